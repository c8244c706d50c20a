//! The core: some query vectors over runs of rows, a block at a time.
//!
//! ```text
//! for each block of 32 rows:
//!     scores[n][32] = queries · keys                      (microkernel/rows.rs)
//!     of the block before it:
//!         weights = e^(scores − largest); sum += weights   (rescaled where a larger score comes)
//!         sums[n][width] += weights · values               (weigh.rs)
//! ```

use super::{Partial, weigh::weigh_block};
use crate::{
    memory::Aligned,
    microkernel::{
        block::{BLOCK, Block, Cursor, RowSet},
        dot::{Tile, pack_queries, packed_len, share_rows},
        prefetch::{Blocks, Lines, prefetch_block},
        rows::block_products,
    },
    precision::Precision,
    shape::row_width,
    simd::{Element, Simd},
};
use std::ops::Range;

/// How far ahead rows are prefetched into L2, in bytes: dense decode wants 32 KiB at least, rows here and there gain another
/// tenth from 64.
const AHEAD: usize = 64 << 10;

/// Working memory of attention, to be kept between calls: one for each task that runs at a time.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    /// Packed queries, `[n, width]`.
    packed: Aligned,
    /// Sums over values in the registers' order while the rows go by, `[n, width]`.
    sums: Aligned,
    /// Of two blocks, `[n, BLOCK]`.
    weights: [Aligned; 2],
    tiles: Vec<Tile>,
    /// Of prefill's tiles of queries.
    pub(super) partials: [Partial; 2],
}

/// What is asked of some rows.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    /// `[n, head_dim]`
    pub(crate) queries: &'a [f32],
    pub(crate) head_dim: usize,
    /// What scores are multiplied by.
    pub(crate) scale: f32,
    pub(crate) visible: Visible,
    pub(crate) precision: Precision,
    /// Rows that are summed up apart from the others: a multiple of [`BLOCK`].
    pub(crate) segment: usize,
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

/// Attention over rows `part` of a set. Fills `out` anew.
#[inline(never)]
pub(super) fn attend_rows<S: Simd, T: Element<S>>(
    s: S,
    set: &RowSet<'_, T>,
    part: Range<usize>,
    request: &Request<'_>,
    scratch: &mut Scratch,
    out: &mut Partial,
) {
    s.vectorize(
        #[inline(always)]
        || {
            let Request { queries, head_dim, scale, visible, precision, segment } = *request;
            let (n, width) = (queries.len() / head_dim, row_width(head_dim));
            out.reset(n, head_dim, part.len().div_ceil(segment).max(1));
            let Scratch { packed, sums, weights: [weights, next_weights], tiles, .. } = scratch;
            packed.resize(n * packed_len::<S>(width));
            pack_queries::<S, T>(s, queries, head_dim, scale, packed);
            sums.resize(n * width);
            sums.fill(0.0);
            weights.resize(n * BLOCK);
            next_weights.resize(n * BLOCK);
            share_rows::<S>(n, tiles);
            let far = AHEAD.div_ceil(set.row_bytes()).next_multiple_of(BLOCK);
            let mut blocks = Cursor::new(set, part.clone());
            let mut distant_blocks = Cursor::new(set, part.end.min(part.start + far)..part.end);
            // The scores of a block are computed before the values of the block before it are weighed. Right after they were
            // stored, in pieces, whole registers of them could not be loaded until everything before had ended, reads
            // from memory too: dense decode took 42 ns a row on Granite Rapids instead of 32.
            let (weighed, scored, upcoming, distant) =
                (&mut Block::default(), &mut Block::default(), &mut Block::default(), &mut Block::default());
            let (mut weighed, mut scored, mut upcoming) = (weighed, scored, upcoming);
            blocks.fill(scored);
            distant_blocks.fill(distant);
            prefetch_block(s, scored, set.row_bytes());
            let (mut number, mut in_segment) = (0, 0);
            for start in (0..part.len() + BLOCK).step_by(BLOCK) {
                blocks.fill(upcoming);
                if start < far {
                    prefetch_block(s, upcoming, set.row_bytes());
                }
                // What is there already is prefetched again where there is no more.
                let mut lines =
                    Lines::new(s, if distant.len > 0 { &*distant } else { &*scored }, set.row_bytes());
                if scored.len > 0 {
                    // With the keys, the values of the block before, which are needed next.
                    let soon = if weighed.len > 0 { &*weighed } else { &*scored };
                    for &Tile { first, count, share } in tiles.iter() {
                        let mut ahead = Blocks::new(lines, share, soon, width);
                        let packed = &packed[first * width..];
                        let scores = &mut next_weights[first * BLOCK..(first + count) * BLOCK];
                        block_products(s, scored, &mut ahead, packed, width, precision, scores, count);
                        lines = ahead.lines;
                    }
                }
                if weighed.len > 0 {
                    let of_segment = out.segment(number);
                    for (q, (weights, sums)) in
                        weights.chunks_exact_mut(BLOCK).zip(sums.chunks_exact_mut(width)).enumerate()
                    {
                        let seen =
                            visible.count(q, start - BLOCK + weighed.len).saturating_sub(start - BLOCK);
                        weights[seen..].fill(f32::NEG_INFINITY);
                        let (largest, sum) = (&mut of_segment.largest[q], &mut of_segment.sum[q]);
                        softmax_block::<S, T>(s, weights, largest, sum, sums);
                    }
                    // With the values, the next keys. Behind the last block, what is there already is prefetched again.
                    let soon = if upcoming.len > 0 { &*upcoming } else { &*weighed };
                    for &Tile { first, count, share } in tiles.iter() {
                        let mut ahead = Blocks::new(lines, share, soon, 0);
                        let weights = &weights[first * BLOCK..(first + count) * BLOCK];
                        let sums = &mut sums[first * width..(first + count) * width];
                        weigh_block(s, weighed, &mut ahead, weights, width, sums);
                        lines = ahead.lines;
                    }
                    in_segment += weighed.len;
                    if in_segment == segment || scored.len == 0 {
                        restore_order::<S, T>(sums, width, head_dim, of_segment.values);
                        sums.fill(0.0);
                        (number, in_segment) = (number + 1, 0);
                    }
                }
                if start > 0 {
                    distant_blocks.fill(distant);
                }
                (weighed, scored, upcoming) = (scored, upcoming, weighed);
                std::mem::swap(weights, next_weights);
            }
        },
    );
}

/// Turns a query's scores of a block into weights, rescaling what was summed before if a larger score came.
#[inline(always)]
fn softmax_block<S: Simd, T: Element<S>>(
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
pub(crate) fn restore_order<S: Simd, T: Element<S>>(
    sums: &[f32],
    width: usize,
    head_dim: usize,
    values: &mut [f32],
) {
    let block = 2 * S::LANES;
    for (sums, values) in sums.chunks_exact(width).zip(values.chunks_exact_mut(head_dim)) {
        for (i, value) in values.iter_mut().enumerate() {
            *value = sums[i / block * block + T::value_place(i % block)];
        }
    }
}
