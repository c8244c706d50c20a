//! Decode attention over all rows and over retrieved ones.

use super::{
    bench::{Bench, Work},
    check,
    contexts::{codebook, codes, index, kv_rows, no_rows, queries},
    results::Shape,
};
use a2ats_kernel::{
    Dtype, Kernels,
    attention::{Partial, Selection},
    decode::attend_chunk,
    kv::{KvRows, Rows},
    retrieval::RetrievalScratch,
};
use a2ats_tests::{
    inputs::{Noise, Stored, rounded},
    reference::{attention::attend as reference, to_f64},
};
use rayon::prelude::*;
use std::hint::black_box;

const TOKENS: usize = 128 << 10;
const KV_HEADS: usize = 8;

/// Rows that fit the second cache beside everything else: what the arithmetic alone takes.
const CACHED_TOKENS: usize = 1024;

/// What is varied; the first is the one that figures are quoted for.
const SHAPES: [(Dtype, usize, usize); 7] = [
    (Dtype::Bf16, 128, 4),
    (Dtype::Bf16, 128, 8),
    (Dtype::Bf16, 128, 7),
    (Dtype::Bf16, 128, 3),
    (Dtype::Bf16, 128, 1),
    (Dtype::F16, 128, 4),
    (Dtype::Bf16, 64, 4),
];

/// Attention over every row, kv heads in turn, split over threads by (kv head, range).
pub fn dense_decode(bench: &mut Bench) {
    if !bench.begins("dense_decode") {
        return;
    }
    let selections = vec![vec![Selection::Range(0..TOKENS); KV_HEADS]];
    over_shapes(bench, "dense_decode", &selections);
}

/// The same where memory is not in the way.
pub fn cached_decode(bench: &mut Bench) {
    if !bench.begins("cached_decode") {
        return;
    }
    for (dtype, head_dim, group) in SHAPES.into_iter().take(3) {
        let rows = kv_rows(dtype, head_dim, CACHED_TOKENS, 1);
        for &kernels in &bench.kernels.clone() {
            time(
                bench,
                "cached_decode",
                kernels,
                0,
                &rows,
                &[vec![Selection::Range(0..CACHED_TOKENS)]],
                group,
            );
        }
    }
}

/// Attention over what retrieval chose, other rows in every run, so that no cache holds them.
pub fn selective(bench: &mut Bench) {
    if !bench.begins("selective") {
        return;
    }
    let chosen = retrieved(bench.kernels[0], 12);
    let selections: Vec<Vec<_>> = chosen
        .iter()
        .map(|heads| heads.iter().map(|positions| Selection::Positions(positions)).collect())
        .collect();
    over_shapes(bench, "selective", &selections);
}

fn over_shapes(bench: &mut Bench, operation: &str, selections: &[Vec<Selection<'_>>]) {
    let mut made: Option<(Dtype, usize, Vec<KvRows>)> = None;
    for (number, (dtype, head_dim, group)) in SHAPES.into_iter().enumerate() {
        if made.as_ref().is_none_or(|(of, dim, _)| (*of, *dim) != (dtype, head_dim)) {
            drop(made.take());
            made = Some((dtype, head_dim, kv_rows(dtype, head_dim, TOKENS, KV_HEADS)));
        }
        let rows = made.as_ref().map_or(&[][..], |(.., rows)| rows);
        for &kernels in &bench.kernels.clone() {
            if number > 0 && kernels.name() == "portable" {
                continue;
            }
            check_attention(kernels, dtype, head_dim, group);
            let pools = bench.pools.len();
            let first = if number > 0 && bench.options.quick { pools - 1 } else { 0 };
            for pool in first..pools {
                time(bench, operation, kernels, pool, rows, selections, group);
            }
        }
    }
}

fn time(
    bench: &mut Bench,
    operation: &str,
    kernels: &dyn Kernels,
    pool: usize,
    rows: &[KvRows],
    selections: &[Vec<Selection<'_>>],
    group: usize,
) {
    let head_dim = rows[0].head_dim();
    let pool = &bench.pools[pool];
    let queries: Vec<f32> = queries(&mut Noise::new(3), group, head_dim);
    let timing = bench.budget.time_on(pool, |run| {
        for whole in attend_heads(kernels, rows, &selections[run % selections.len()], &queries) {
            black_box(output(&whole, queries.len()));
        }
    });
    let attended: usize = selections.iter().flatten().map(Selection::len).sum::<usize>() / selections.len();
    let shape = Shape {
        dtype: Some(rows[0].dtype().name()),
        tokens: Some(rows[0].len()),
        attended: (operation == "selective").then_some(attended / rows.len()),
        kv_heads: Some(rows.len()),
        group: Some(group),
        head_dim: Some(head_dim),
        ..Shape::default()
    };
    let threads = pool.current_num_threads();
    let work = if operation == "cached_decode" {
        Work::Flops(attended * group * 4 * head_dim)
    } else {
        Work::Bytes(attended * rows[0].row_bytes())
    };
    bench.record(operation, kernels.name(), threads, shape, timing, work);
}

/// Attention of every kv head, as an engine spreads it over threads: `attend_chunk` rows a task, partials merged in
/// order.
pub fn attend_heads(
    kernels: &dyn Kernels,
    rows: &[KvRows],
    selections: &[Selection<'_>],
    queries: &[f32],
) -> Vec<Partial> {
    let tasks: Vec<(usize, Selection<'_>)> = selections
        .iter()
        .enumerate()
        .flat_map(|(head, selection)| chunks(selection).into_iter().map(move |chunk| (head, chunk)))
        .collect();
    let partials: Vec<Partial> = tasks
        .par_iter()
        .map(|(head, chunk)| {
            let mut partial = Partial::default();
            attend(kernels, rows[*head].rows(), chunk, queries, &mut partial);
            partial
        })
        .collect();
    let mut merged: Vec<Option<Partial>> = vec![None; rows.len()];
    for ((head, _), partial) in tasks.into_iter().zip(partials) {
        match &mut merged[head] {
            Some(whole) => whole.merge(&partial).expect("partials of one head have one shape"),
            none => *none = Some(partial),
        }
    }
    merged.into_iter().flatten().collect()
}

/// What a partial amounts to, `[group, head_dim]`.
pub fn output(whole: &Partial, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    whole.finish(&mut out).expect("the output has the queries' shape");
    out
}

fn attend(
    kernels: &dyn Kernels,
    rows: Rows<'_>,
    selection: &Selection<'_>,
    queries: &[f32],
    out: &mut Partial,
) {
    let scale = 1.0 / (rows.head_dim() as f32).sqrt();
    kernels.attend(rows, selection, queries, scale, out).expect("shapes fit together");
}

fn chunks<'a>(selection: &Selection<'a>) -> Vec<Selection<'a>> {
    let chunk = attend_chunk(selection.len());
    match selection {
        Selection::Range(range) => {
            range.clone().step_by(chunk).map(|at| Selection::Range(at..range.end.min(at + chunk))).collect()
        }
        Selection::Positions(positions) => positions.chunks(chunk).map(Selection::Positions).collect(),
    }
}

/// What retrieval chooses in a context of [`TOKENS`], by run and kv head.
fn retrieved(kernels: &dyn Kernels, runs: usize) -> Vec<Vec<Vec<u32>>> {
    let mut noise = Noise::new(5);
    let (codewords, group, head_dim) = (4096, 4, 128);
    let book = codebook(&mut noise, codewords, head_dim, Dtype::F16);
    let mut scratch = RetrievalScratch::default();
    let mut scores = vec![0.0; codewords * group];
    let mut by_head: Vec<Vec<Vec<u32>>> = Vec::new();
    for _ in 0..KV_HEADS {
        let mut index = index(codewords, &codes(&mut noise, codewords, TOKENS));
        let mut choose = |_| {
            let queries = queries(&mut noise, group, head_dim);
            let mut positions = Vec::new();
            kernels.codeword_scores(&book, &queries, None, &mut scores).expect("shapes fit together");
            index
                .choose(kernels, no_rows(), &scores, &mut scratch, &mut positions)
                .expect("shapes fit together");
            positions
        };
        by_head.push((0..runs).map(&mut choose).collect());
    }
    (0..runs).map(|run| by_head.iter_mut().map(|runs| std::mem::take(&mut runs[run])).collect()).collect()
}

/// Attention over some hundred rows, all and a choice of them, against the reference.
fn check_attention(kernels: &dyn Kernels, dtype: Dtype, head_dim: usize, group: usize) {
    let (mut noise, tokens) = (Noise::new(7), 1000);
    let keys = rounded(dtype, &noise.vector(tokens * head_dim, 1.0));
    let values = rounded(dtype, &noise.vector(tokens * head_dim, 1.0));
    let queries = queries(&mut noise, group, head_dim);
    let stored = Stored::rows(dtype, &keys, &values, head_dim, 0);
    let rows = Rows::new(stored.elements(), head_dim).expect("whole rows");
    let chosen = noise.positions(tokens);
    for selection in [Selection::Range(0..tokens), Selection::Positions(&chosen)] {
        let mask: Vec<bool> = match &selection {
            Selection::Range(_) => vec![true; tokens],
            Selection::Positions(chosen) => {
                (0..tokens as u32).map(|position| chosen.contains(&position)).collect()
            }
        };
        let (mut partial, mut out) = (Partial::default(), vec![0.0; queries.len()]);
        attend(kernels, rows, &selection, &queries, &mut partial);
        partial.finish(&mut out).expect("the output has the queries' shape");
        let scale = f64::from(1.0 / (head_dim as f32).sqrt());
        let want = reference(&to_f64(&queries), &to_f64(&keys), &to_f64(&values), head_dim, scale, &mask);
        check::close(&format!("attention on {}", kernels.name()), &out, &want, 2e-2);
    }
}
