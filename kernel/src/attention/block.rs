//! The core: some query vectors over a run of rows, 64 rows at a time.

use super::Partial;
use crate::{
    dots::{
        MAX_TILE_QUERIES, Products, RowSet, dots, operand_len, prepare_query, query_tiles, with_tile_width,
    },
    dtype::Element,
    kv::row_width,
    simd::{LockStep, MAX_LANES, Simd},
};
use std::{array, ops::Range};

/// Rows of a block. Scores of all queries, keys and values of a block stay in L1 and L2; larger blocks gave nothing.
const BLOCK: usize = 64;

/// Query vectors in operand form.
pub(super) struct Queries {
    head_dim: usize,
    operands: Vec<f32>,
}

impl Queries {
    /// `queries` is `[n, head_dim]`; the scale of the scores is multiplied in here.
    #[inline(always)]
    pub(super) fn new<S: Simd, T: Element>(s: S, queries: &[f32], head_dim: usize, scale: f32) -> Self {
        let stride = operand_len::<S>(row_width(head_dim));
        let mut operands = vec![0.0; queries.len() / head_dim * stride];
        for (query, operand) in queries.chunks_exact(head_dim).zip(operands.chunks_exact_mut(stride)) {
            prepare_query::<S, T>(s, query, scale, operand);
        }
        Self { head_dim, operands }
    }

    /// How many vectors there are.
    pub(super) fn count(&self) -> usize {
        self.operands.len() / row_width(self.head_dim)
    }
}

/// Which rows of a set a query sees.
#[derive(Clone, Copy)]
pub(crate) enum Visible {
    /// All of them.
    All,
    /// Query q sees the rows up to and including `first + q / group`.
    Causal { first: usize, group: usize },
}

impl Visible {
    fn count(self, query: usize, rows: usize) -> usize {
        match self {
            Self::All => rows,
            Self::Causal { first, group } => rows.min(first + query / group + 1),
        }
    }
}

/// Attention of `queries` over the rows of a set. Fills `out` anew.
#[inline(never)]
pub(super) fn attend_rows<S: Simd, T: Element>(
    s: S,
    rows: &RowSet<'_, T>,
    queries: &Queries,
    visible: Visible,
    out: &mut Partial,
) {
    let n = queries.count();
    let width = row_width(queries.head_dim);
    out.reset(n, queries.head_dim);
    // Sums over values in register order while the rows go by; see `Element`.
    let mut sums = vec![0.0; n * width];
    let mut weights = vec![0.0; n * BLOCK];
    for start in (0..rows.len()).step_by(BLOCK) {
        let block = start..rows.len().min(start + BLOCK);
        score_block(s, rows, block.clone(), queries, &mut weights);
        s.vectorize(
            #[inline(always)]
            || {
                for (q, weights) in weights.chunks_exact_mut(BLOCK).enumerate() {
                    let visible = visible.count(q, block.end).saturating_sub(start);
                    weights[visible..].fill(f32::NEG_INFINITY);
                    let sums = &mut sums[q * width..(q + 1) * width];
                    softmax_block(s, weights, &mut out.largest[q], &mut out.sum[q], sums);
                }
                add_values(s, rows, block, width, &weights, &mut sums);
            },
        );
    }
    restore_order::<S, T>(&sums, width, queries.head_dim, &mut out.values);
}

/// Scores of all queries with a block's keys: `scores` is `[n, BLOCK]`.
fn score_block<S: Simd, T: Element>(
    s: S,
    rows: &RowSet<'_, T>,
    block: Range<usize>,
    queries: &Queries,
    scores: &mut [f32],
) {
    let width = row_width(queries.head_dim);
    for (first, tile) in query_tiles(queries.count()) {
        let operands = &queries.operands[first * width..];
        let values = &mut scores[first * BLOCK..(first + tile) * BLOCK];
        let out = Products { values, per_row: 1, per_query: BLOCK, accumulate: false };
        dots(s, rows, block.clone(), 0..width, operands, tile, first == 0, out);
    }
}

/// Turns a query's scores of a block into softmax terms, rescaling what was summed before if a larger score came.
#[inline(always)]
fn softmax_block<S: Simd>(s: S, scores: &mut [f32], largest: &mut f32, sum: &mut f32, values: &mut [f32]) {
    let mut top = s.splat(f32::NEG_INFINITY);
    for scores in scores.chunks_exact(S::LANES) {
        top = s.max(top, s.load(scores));
    }
    let top = s.reduce_max(top);
    if top > *largest {
        let factor = (*largest - top).exp();
        *largest = top;
        *sum *= factor;
        scale_all(s, values, factor);
    }
    if *largest == f32::NEG_INFINITY {
        scores.fill(0.0);
        return;
    }
    let reference = s.splat(*largest);
    let mut total = s.splat(0.0);
    for scores in scores.chunks_exact_mut(S::LANES) {
        let term = s.exp(s.sub(s.load(scores), reference));
        total = s.add(total, term);
        s.store(term, scores);
    }
    *sum += s.reduce_add(total);
}

#[inline(always)]
fn scale_all<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    for x in x.chunks_exact_mut(S::LANES) {
        s.store(s.mul(s.load(x), factor), x);
    }
}

/// Adds the weighted values of a block to the queries' sums: `weights` is `[n, BLOCK]`, `sums` `[n, width]`.
#[inline(always)]
fn add_values<S: Simd, T: Element>(
    s: S,
    rows: &RowSet<'_, T>,
    block: Range<usize>,
    width: usize,
    weights: &[f32],
    sums: &mut [f32],
) {
    for (first, tile) in query_tiles(weights.len() / BLOCK) {
        let weights = &weights[first * BLOCK..(first + tile) * BLOCK];
        let sums = &mut sums[first * width..(first + tile) * width];
        with_tile_width!(tile, H => {
            for at in (0..width).step_by(2 * S::LANES) {
                add_value_block::<S, T, H>(s, rows, block.clone(), weights, width, at, sums);
            }
        });
    }
}

/// One block of 2·LANES value elements of all rows, for `H` queries, whose sums stay in registers meanwhile.
#[inline(always)]
fn add_value_block<S: Simd, T: Element, const H: usize>(
    s: S,
    rows: &RowSet<'_, T>,
    block: Range<usize>,
    weights: &[f32],
    width: usize,
    at: usize,
    sums: &mut [f32],
) {
    const { assert!(H <= MAX_TILE_QUERIES) };
    let mut registers = [[s.splat(0.0); 2]; H];
    for (h, registers) in registers.iter_mut().enumerate() {
        let (low, high) = sums[h * width + at..][..2 * S::LANES].split_at(S::LANES);
        *registers = [s.load(low), s.load(high)];
    }
    let of_query: [&[f32]; H] = array::from_fn(|h| &weights[h * BLOCK..(h + 1) * BLOCK]);
    for (i, weights) in block.clone().zip(LockStep::new(of_query, block.len(), 1)) {
        let [low, high] = T::load(s, rows.row(i, width + at, 2 * S::LANES));
        for (registers, weight) in registers.iter_mut().zip(weights) {
            let weight = s.splat(weight[0]);
            registers[0] = s.mul_add(low, weight, registers[0]);
            registers[1] = s.mul_add(high, weight, registers[1]);
        }
    }
    for (h, [low, high]) in registers.into_iter().enumerate() {
        let sums = &mut sums[h * width + at..][..2 * S::LANES];
        s.store(low, &mut sums[..S::LANES]);
        s.store(high, &mut sums[S::LANES..]);
    }
}

/// Brings sums over values back from register order to memory order, without the padding.
#[inline(always)]
fn restore_order<S: Simd, T: Element>(sums: &[f32], width: usize, head_dim: usize, values: &mut [f32]) {
    let block = 2 * S::LANES;
    const { assert!(S::LANES <= MAX_LANES) };
    for (sums, values) in sums.chunks_exact(width).zip(values.chunks_exact_mut(head_dim)) {
        for (i, value) in values.iter_mut().enumerate() {
            *value = sums[i / block * block + T::register_place(i % block, S::LANES)];
        }
    }
}
