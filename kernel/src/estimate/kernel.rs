//! The estimate itself: products of the codes' weights with their sums of values, for the whole group.
//!
//! ```text
//! largest[h] = the largest estimate ŝ of what anything is left of
//! for each table:
//!     weights[h][slot] = e^(ŝ − largest) · share    (0 where nothing is left)
//!     denominator[h] += weights · counts
//!     sums[h] += (weights · scales) · numbers        (strips.rs)
//! for each block of 32 rows:
//!     weights[h][row] = the weight of its code
//!     denominator[h] += weights
//!     sums[h] += weights · values                    (attention/weigh.rs)
//! ```

use super::{
    Part, Table, Unattended,
    strips::{self, Number, Strips},
    sums::Sums,
};
use crate::{
    attention::{Partial, Segment, restore_order, typed, weigh_block},
    dtype::Elements,
    memory::Aligned,
    microkernel::{
        block::{BLOCK, Block, Cursor},
        dot::query_tiles,
        prefetch::NoPrefetch,
    },
    shape::row_width,
    simd::{Element, MAX_LANES, Simd},
};
use half::{bf16, f16};
use std::ops::Range;

/// Taken off all weights, of which 1 is the largest: 2⁻⁶⁴.
const LEAST_WEIGHT: f32 = 1.0 / 18_446_744_073_709_551_616.0;

/// Working memory of an estimate, to be kept between calls: one for each task that runs at a time.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    /// `[group, stride]`: estimates, then weights, of the slots of a part, table after table.
    weights: Aligned,
    /// `[stride]`: how many tokens each slot has, and what share of its code is left.
    counts: Aligned,
    shares: Aligned,
    /// `[stride]`: −∞ where nothing is left, else 0.
    floor: Aligned,
    /// `[group, width]`
    sums: Aligned,
    /// Of single rows: their weights, `[group, BLOCK]`, and sums in the registers' order, `[group, width]`.
    of_block: Aligned,
    of_rows: Aligned,
}

/// The estimate of a part of what is left out, on a plain instruction set: weights in full, beside bf16 too. Fills `out` anew.
#[inline(never)]
pub(crate) fn estimate<S: Simd>(
    s: S,
    what: &Unattended<'_>,
    part: &Part,
    scratch: &mut Scratch,
    out: &mut Partial,
) {
    s.vectorize(
        #[inline(always)]
        || estimate_here(s, what, part, scratch, out),
    );
}

#[inline(always)]
fn estimate_here<S: Simd>(
    s: S,
    what: &Unattended<'_>,
    part: &Part,
    scratch: &mut Scratch,
    out: &mut Partial,
) {
    let (group, head_dim) = (what.offsets.len(), what.rows.head_dim());
    let width = row_width(head_dim);
    out.reset(group, head_dim, 1);
    let mut out = out.segment(0);
    let stride = part.slots.len().next_multiple_of(MAX_LANES);
    scratch.weights.resize(group * stride);
    scratch.counts.resize(stride);
    scratch.shares.resize(stride);
    scratch.floor.resize(stride);
    scratch.sums.resize(group * width);
    scratch.sums.fill(0.0);
    gather_slots(what, part, scratch);
    let codes = what.scores.len() / group;
    for head in 0..group {
        let weights = &mut scratch.weights[head * stride..(head + 1) * stride];
        let scores = &what.scores[head * codes..(head + 1) * codes];
        gather(what, part, scores, weights);
        let offset = what.offsets[head];
        let mut largest = scale_scores(s, weights, &scratch.floor, what.scale, offset);
        if part.rows {
            for code in what.row_codes.iter().map(|&code| usize::from(code)) {
                let estimate = scores[code] * what.scale + offset;
                largest = if what.shares[code] > 0.0 { largest.max(estimate) } else { largest };
            }
        }
        let slots = (&*scratch.counts, &*scratch.shares);
        (out.largest[head], out.sum[head]) = (largest, weigh_slots(s, weights, slots, largest));
    }
    for (table, slots, at) in parts_of_tables(what, part) {
        let weights = &mut scratch.weights[..];
        match table.sums {
            Sums::F32(numbers) => {
                add_sums(s, numbers, slots, (weights, stride, at), &mut scratch.sums, width);
            }
            Sums::Int8 { numbers, scales } => {
                for weights in weights.chunks_exact_mut(stride) {
                    for (weight, scale) in weights[at..].iter_mut().zip(&scales[slots.clone()]) {
                        *weight *= scale;
                    }
                }
                add_sums(s, numbers, slots, (weights, stride, at), &mut scratch.sums, width);
            }
        }
    }
    if part.rows && !what.rows.is_empty() {
        match what.rows.areas()[0].elements() {
            Elements::F32(_) => weigh_rows::<S, f32>(s, what, scratch, &mut out),
            Elements::F16(_) => weigh_rows::<S, f16>(s, what, scratch, &mut out),
            Elements::Bf16(_) => weigh_rows::<S, bf16>(s, what, scratch, &mut out),
        }
    }
    for (to, from) in out.values.chunks_exact_mut(head_dim).zip(scratch.sums.chunks_exact(width)) {
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
    }
}

/// The tables' slots that are in a part: of the table, and from which place on in the part's order.
fn parts_of_tables<'a>(
    what: &Unattended<'a>,
    part: &Part,
) -> impl Iterator<Item = (&'a Table<'a>, Range<usize>, usize)> {
    let (mut first, wanted) = (0, part.slots.clone());
    what.tables.iter().filter_map(move |table| {
        let start = wanted.start.max(first);
        let end = wanted.end.min(first + table.codes.len());
        let found = (start < end).then(|| (table, start - first..end - first, start - wanted.start));
        first += table.codes.len();
        found
    })
}

fn gather_slots(what: &Unattended<'_>, part: &Part, scratch: &mut Scratch) {
    let Scratch { counts, shares, floor, .. } = scratch;
    counts[part.slots.len()..].fill(0.0);
    for (table, slots, at) in parts_of_tables(what, part) {
        for (to, &from) in counts[at..].iter_mut().zip(&table.counts[slots]) {
            *to = from as f32;
        }
    }
    gather(what, part, what.shares, shares);
    for (floor, share) in floor.iter_mut().zip(shares.iter()) {
        *floor = if *share > 0.0 { 0.0 } else { f32::NEG_INFINITY };
    }
}

/// What the codes of a part's slots have of `numbers`, `[codes]`; where a table has all codes these are in order.
fn gather(what: &Unattended<'_>, part: &Part, numbers: &[f32], to: &mut [f32]) {
    to[part.slots.len()..].fill(0.0);
    for (table, slots, at) in parts_of_tables(what, part) {
        if table.codes.len() == numbers.len() {
            to[at..at + slots.len()].copy_from_slice(&numbers[slots]);
        } else {
            for (to, &code) in to[at..].iter_mut().zip(&table.codes[slots]) {
                *to = numbers[usize::from(code)];
            }
        }
    }
}

/// Scores to estimates, −∞ where the floor is; gives the largest.
#[inline(always)]
fn scale_scores<S: Simd>(s: S, scores: &mut [f32], floor: &[f32], scale: f32, offset: f32) -> f32 {
    let (scale, offset) = (s.splat(scale), s.splat(offset));
    let mut top = s.splat(f32::NEG_INFINITY);
    for (scores, floor) in scores.chunks_exact_mut(S::LANES).zip(floor.chunks_exact(S::LANES)) {
        let estimate = s.add(s.mul_add(s.load(scores), scale, offset), s.load(floor));
        top = s.max(top, estimate);
        s.store(estimate, scores);
    }
    s.reduce_max(top)
}

/// Replaces estimates by weights, e^{x − largest} times what share of a code is left; zeros, if the largest is −∞. Gives the sum of them times
/// the slots' counts. (Prefetching meanwhile where the sums begin gained nothing.)
#[inline(always)]
fn weigh_slots<S: Simd>(s: S, x: &mut [f32], (counts, shares): (&[f32], &[f32]), largest: f32) -> f32 {
    if largest == f32::NEG_INFINITY {
        x.fill(0.0);
        return 0.0;
    }
    let (reference, mut sum) = (s.splat(largest), s.splat(0.0));
    let slots = counts.chunks_exact(S::LANES).zip(shares.chunks_exact(S::LANES));
    for (x, (counts, shares)) in x.chunks_exact_mut(S::LANES).zip(slots) {
        let weight = s.exp(s.sub(s.load(x), reference));
        // What this leaves, times a scale, is in the range of f32 where values are; none that it changes matters.
        let weight = s.max(s.sub(weight, s.splat(LEAST_WEIGHT)), s.splat(0.0));
        let weight = s.mul(weight, s.load(shares));
        s.store(weight, x);
        sum = s.mul_add(weight, s.load(counts), sum);
    }
    s.reduce_add(sum)
}

/// Adds the sums of some slots of a table times their weights, `[group, stride]`, which begin at place `at` of each.
#[inline(always)]
fn add_sums<S: Simd, T: Number>(
    s: S,
    numbers: &[T],
    slots: Range<usize>,
    (weights, stride, at): (&[f32], usize, usize),
    sums: &mut [f32],
    width: usize,
) {
    strips::add(s, &Strips { numbers, width, slots }, (weights, stride, at), sums);
}

/// Adds the values of single rows with the weights of their codes.
#[inline(never)]
fn weigh_rows<S: Simd, T: Element<S>>(
    s: S,
    what: &Unattended<'_>,
    scratch: &mut Scratch,
    out: &mut Segment<'_>,
) {
    s.vectorize(
        #[inline(always)]
        || {
            let (group, width) = (what.offsets.len(), row_width(what.rows.head_dim()));
            let codes = what.scores.len() / group;
            let set = typed::<T>(&what.rows);
            let (mut blocks, mut block) = (Cursor::new(&set, 0..what.rows.len()), Block::default());
            let Scratch { of_block, of_rows: sums, .. } = scratch;
            of_block.resize(group * BLOCK);
            sums.resize(group * width);
            sums.fill(0.0);
            for row_codes in what.row_codes.chunks(BLOCK) {
                blocks.fill(&mut block);
                let mut shares = [0.0; BLOCK];
                for (share, &code) in shares.iter_mut().zip(row_codes) {
                    *share = what.shares[usize::from(code)];
                }
                for (head, weights) in of_block.chunks_exact_mut(BLOCK).enumerate() {
                    let scores = &what.scores[head * codes..(head + 1) * codes];
                    for (weight, &code) in weights.iter_mut().zip(row_codes) {
                        *weight =
                            scores[usize::from(code)] * what.scale + what.offsets[head] - out.largest[head];
                    }
                }
                weights_of(s, of_block);
                for (weights, sum) in of_block.chunks_exact_mut(BLOCK).zip(&mut *out.sum) {
                    *sum += share_weights(s, weights, &shares);
                }
                for (first, count) in query_tiles(group, S::TILE_QUERIES) {
                    let weights = &of_block[first * BLOCK..(first + count) * BLOCK];
                    let sums = &mut sums[first * width..(first + count) * width];
                    weigh_block(s, &block, &mut NoPrefetch, weights, width, sums);
                }
            }
            restore_order::<S, T>(sums, width, what.rows.head_dim(), out.values);
        },
    );
}

/// Replaces numbers by e^x, at most 1. A function of its own: inside of the loop over blocks its constants would push the sums of
/// others onto the stack.
#[inline(never)]
fn weights_of<S: Simd>(s: S, x: &mut [f32]) {
    s.vectorize(
        #[inline(always)]
        || {
            for x in x.chunks_exact_mut(S::LANES) {
                let weight = s.max(s.sub(s.exp(s.load(x)), s.splat(LEAST_WEIGHT)), s.splat(0.0));
                // Where rows do not count, what is in their places may be anything.
                s.store(s.min(weight, s.splat(1.0)), x);
            }
        },
    );
}

/// Multiplies the weights of a block with what share of the rows' codes is left; gives their sum.
#[inline(always)]
fn share_weights<S: Simd>(s: S, weights: &mut [f32], shares: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (x, shares) in weights.chunks_exact_mut(S::LANES).zip(shares.chunks_exact(S::LANES)) {
        let weight = s.mul(s.load(x), s.load(shares));
        s.store(weight, x);
        sum = s.add(sum, weight);
    }
    s.reduce_add(sum)
}

/// Adds the values of consecutive rows to `sums`, `[width]`.
#[inline(never)]
pub(crate) fn add_values<S: Simd, T: Element<S>>(s: S, rows: &[T], sums: &mut [f32]) {
    const { assert!(!T::PAIRS, "values are added one by one") };
    s.vectorize(
        #[inline(always)]
        || {
            let (width, step) = (sums.len(), 2 * S::LANES);
            for (at, sums) in sums.chunks_exact_mut(step).enumerate() {
                let mut registers = [s.splat(0.0); 2];
                for row in rows.chunks_exact(2 * width) {
                    let values = T::load(s, &row[width + at * step..][..step]);
                    registers = [s.add(registers[0], values[0]), s.add(registers[1], values[1])];
                }
                let mut arranged = [0.0; 2 * MAX_LANES];
                s.store(registers[0], &mut arranged[..S::LANES]);
                s.store(registers[1], &mut arranged[S::LANES..]);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum += arranged[T::register_place(i)];
                }
            }
        },
    );
}
