//! The core: some query vectors over a run of rows, a block at a time.

use super::{Partial, weigh::weigh_block};
use crate::{
    beside::{Beside, Later, ask_for_whole},
    dtype::Element,
    kv::row_width,
    linear::Precision,
    memory::Aligned,
    rows::{BLOCK, Block, RowSet, block_products},
    simd::Simd,
    tile::{operand_len, prepare_queries, sharing_tiles},
};

/// How far ahead memory is asked for rows, in bytes: dense decode wants 32 KiB at least, rows here and there gain another
/// tenth from 64.
const AHEAD: usize = 64 << 10;

/// Query vectors in operand form.
pub(super) struct Queries {
    head_dim: usize,
    operands: Aligned,
}

impl Queries {
    /// `queries` is `[n, head_dim]`; the scale of the scores is multiplied in here.
    #[inline(always)]
    pub(super) fn new<S: Simd, T: Element>(s: S, queries: &[f32], head_dim: usize, scale: f32) -> Self {
        let stride = operand_len::<S>(row_width(head_dim));
        let mut operands = Aligned::zeros(queries.len() / head_dim * stride);
        prepare_queries::<S, T>(s, queries.chunks_exact(head_dim), scale, &mut operands);
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
    #[inline(always)]
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
    set: &RowSet<'_, T>,
    queries: &Queries,
    visible: Visible,
    precision: Precision,
    out: &mut Partial,
) {
    s.vectorize(
        #[inline(always)]
        || {
            let n = queries.count();
            let width = row_width(queries.head_dim);
            out.reset(n, queries.head_dim);
            // Sums over values in the registers' order while the rows go by; see `Element`.
            let mut sums = Aligned::zeros(n * width);
            let (mut weights, mut next_weights) = (Aligned::zeros(n * BLOCK), Aligned::zeros(n * BLOCK));
            let tiles = sharing_tiles::<S>(n);
            let far = AHEAD.div_ceil(set.stride * size_of::<T>()).next_multiple_of(BLOCK);
            ask_for_whole(s, set, 0);
            // The scores of a block are computed before the values of the block before it are weighed. Right after they were
            // stored, in pieces, whole registers of them could not be loaded until everything before had ended, reads
            // from memory too: dense decode took 42 ns a row on Granite Rapids instead of 32.
            let (mut block, mut next) = (Block::new(set, set.len()), Block::new(set, 0));
            for start in (0..set.len() + BLOCK).step_by(BLOCK) {
                if start > 0 && start < far {
                    ask_for_whole(s, set, start);
                }
                let later = Later::new(set, start.saturating_sub(BLOCK) + far);
                let mut lines = later.lines();
                let after = Block::new(set, start + BLOCK);
                if next.len > 0 {
                    // With the keys, the values of the block before, which are needed next.
                    let soon = if block.len > 0 { &block } else { &next };
                    for &(first, tile, share) in &tiles {
                        let mut ahead = Beside::new(lines, share, soon, width);
                        let operands = &queries.operands[first * width..];
                        let scores = &mut next_weights[first * BLOCK..(first + tile) * BLOCK];
                        block_products(s, &next, &mut ahead, operands, width, precision, scores);
                        lines = ahead.lines;
                    }
                }
                if block.len > 0 {
                    for (q, (weights, sums)) in
                        weights.chunks_exact_mut(BLOCK).zip(sums.chunks_exact_mut(width)).enumerate()
                    {
                        let seen = visible.count(q, start - BLOCK + block.len).saturating_sub(start - BLOCK);
                        weights[seen..].fill(f32::NEG_INFINITY);
                        softmax_block::<S, T>(s, weights, &mut out.largest[q], &mut out.sum[q], sums);
                    }
                    // With the values, the next keys. Behind the last block, what is there already is asked for again.
                    let soon = if after.len > 0 { &after } else { &block };
                    for &(first, tile, share) in &tiles {
                        let mut ahead = Beside::new(lines, share, soon, 0);
                        let weights = &weights[first * BLOCK..(first + tile) * BLOCK];
                        let sums = &mut sums[first * width..(first + tile) * width];
                        weigh_block(s, &block, &mut ahead, weights, width, sums);
                        lines = ahead.lines;
                    }
                }
                (block, next) = (next, after);
                std::mem::swap(&mut weights, &mut next_weights);
            }
            restore_order::<S, T>(&sums, width, queries.head_dim, &mut out.values);
        },
    );
}

/// Turns a query's scores of a block into weights, rescaling what was summed before if a larger score came.
#[inline(always)]
fn softmax_block<S: Simd, T: Element>(
    s: S,
    scores: &mut [f32],
    largest: &mut f32,
    sum: &mut f32,
    values: &mut [f32],
) {
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
    for at in (0..BLOCK).step_by(2 * S::LANES) {
        let (low, high) = scores[at..at + 2 * S::LANES].split_at(S::LANES);
        let low = s.exp(s.sub(s.load(low), reference));
        let high = s.exp(s.sub(s.load(high), reference));
        total = T::put_weights(s, total, [low, high], scores, at);
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

/// Brings sums over values back from the registers' order to memory's, without the padding.
#[inline(always)]
fn restore_order<S: Simd, T: Element>(sums: &[f32], width: usize, head_dim: usize, values: &mut [f32]) {
    let block = 2 * S::LANES;
    for (sums, values) in sums.chunks_exact(width).zip(values.chunks_exact_mut(head_dim)) {
        for (i, value) in values.iter_mut().enumerate() {
            *value = sums[i / block * block + T::value_place::<S>(i % block)];
        }
    }
}
