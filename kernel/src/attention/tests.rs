//! What attention prefetches.

use super::{
    Partial, Scratch,
    block::{Request, Visible, attend_rows},
};
use crate::{
    microkernel::{
        block::RowSet,
        recording::{Recording, recorded},
    },
    precision::Precision,
    rows::Run,
    shape::row_width,
    simd::{Element, Simd},
};
use half::bf16;
use std::collections::BTreeMap;

const ROWS: usize = 500;

/// How often each line of some rows is prefetched, over runs of many lengths in which each row is once; with a line's last prefetch
/// before that of the row itself.
fn counts<S: Simd, T: Element<S>>(s: S, head_dim: usize, group: usize) -> (Vec<usize>, usize) {
    let stride = 2 * row_width(head_dim);
    // On a line's beginning.
    let memory = vec![T::zeroed(); ROWS * stride + 64];
    let offset = memory.as_ptr().align_offset(64);
    let elements = &memory[offset..offset + ROWS * stride];
    let (mut runs, mut at) = (Vec::new(), 0);
    for len in (1..).map(|i: usize| 1 + i * 7 % 45) {
        let end = ROWS.min(at + len);
        runs.push(Run::new(0, at..end));
        at = end;
        if end == ROWS {
            break;
        }
    }
    runs.reverse();
    let mut areas = [&[][..]; crate::rows::MAX_AREAS];
    areas[0] = elements;
    let set = RowSet::new(areas, stride, &runs);
    let queries = vec![0.5; group * head_dim];
    let request = Request {
        queries: &queries,
        head_dim,
        scale: 1.0,
        visible: Visible::All,
        precision: Precision::Full,
        segment: 64,
    };
    let lines = recorded(|| {
        attend_rows(s, &set, 0..ROWS, &request, &mut Scratch::default(), &mut Partial::default())
    });
    let first = elements.as_ptr() as usize / 64;
    let all = ROWS * stride * size_of::<T>() / 64;
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line).or_insert(0) += 1;
    }
    let outside = counts.keys().filter(|&&line| !(first..first + all).contains(&line)).count();
    ((first..first + all).map(|line| counts.get(&line).copied().unwrap_or(0)).collect(), outside)
}

fn check<S: Simd>(s: S) {
    for group in [1, 3, 4, 8, 16] {
        for (head_dim, size) in [16, 32, 64, 96, 128, 160, 256].into_iter().flat_map(|d| [(d, 2), (d, 4)]) {
            let (counts, outside) = if size == 2 {
                counts::<S, bf16>(s, head_dim, group)
            } else {
                counts::<S, f32>(s, head_dim, group)
            };
            let missing = counts.iter().filter(|&&count| count == 0).count();
            let what = format!("{} lanes, group {group}, head_dim {head_dim}, {size} bytes", S::LANES);
            assert_eq!(missing, 0, "{what}: lines never prefetched");
            // A step may be longer than what is left of short rows.
            assert!(outside <= 16, "{what}: {outside} lines of nothing");
            // A tile of queries that has no share in a row's prefetches repeats one, as rows of odd lengths do.
            if group <= S::TILE_QUERIES && head_dim.is_power_of_two() && head_dim >= 128 {
                let repeated = counts.iter().filter(|&&count| count > 1).count();
                assert!(
                    4 * repeated <= counts.len(),
                    "{what}: {repeated} of {} lines more than once",
                    counts.len()
                );
            }
        }
    }
}

#[test]
fn every_line_is_prefetched_and_no_other() {
    check(Recording::<16, 32>);
    check(Recording::<8, 16>);
    check(Recording::<4, 32>);
}
