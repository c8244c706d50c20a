//! Rows of one length in blocks: resolved from positions once, asked for a block ahead, multiplied with queries.

use crate::{
    ahead::Prefetch,
    dtype::Element,
    linear::Precision,
    simd::{LockStep, Simd},
    tile::{accumulate, reduce, with_tile_width},
};

/// Rows of equal length in memory: all of them in turn, or those at some positions.
#[derive(Clone, Copy)]
pub(crate) struct RowSet<'a, T> {
    /// All the rows there are, one after the other.
    pub(crate) elements: &'a [T],
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    /// The rows of the set, or all of them.
    pub(crate) positions: Option<&'a [u32]>,
}

impl<'a, T> RowSet<'a, T> {
    /// How many rows the set has.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.positions.map_or(self.elements.len() / self.stride, <[u32]>::len)
    }

    /// `len` elements of row `i` of the set, from element `from` on.
    #[inline(always)]
    pub(crate) fn row(&self, i: usize, from: usize, len: usize) -> &'a [T] {
        let position = self.positions.map_or(i, |positions| positions[i] as usize);
        &self.elements[position * self.stride + from..][..len]
    }
}

/// Rows of a block: scores, keys and values of a block stay in the first caches, and the time that a block takes is
/// what memory has to bring the next ones. Blocks of 64 rows are 5% faster where rows are cached; from memory they were 5–10%
/// slower on Zen 4, where two blocks fill L1.
pub(crate) const BLOCK: usize = 32;

/// The rows of a block. What lies beyond the set repeats its last row: kernels work on whole tiles, and the weights
/// of what they compute too much are zero.
pub(crate) struct Block<'a, T> {
    /// All of the same length.
    rows: [&'a [T]; BLOCK],
    /// Rows that are not repetitions.
    pub(crate) len: usize,
}

impl<'a, T> Block<'a, T> {
    /// The rows of `set` from `start` on; none if it has none there.
    #[inline(always)]
    pub(crate) fn new(set: &RowSet<'a, T>, start: usize) -> Self {
        let mut rows = [&[][..]; BLOCK];
        let len = BLOCK.min(set.len().saturating_sub(start));
        for (i, row) in rows.iter_mut().enumerate().take(len) {
            *row = set.row(start + i, 0, set.stride);
        }
        if len > 0 {
            let last = rows[len - 1];
            rows[len..].fill(last);
        }
        Self { rows, len }
    }

    /// `R` rows from `first` on.
    #[inline(always)]
    pub(crate) fn rows<const R: usize>(&self, first: usize) -> &[&'a [T]; R] {
        const { assert!(BLOCK.is_multiple_of(R)) };
        self.rows[first..].first_chunk().expect("tiles divide a block")
    }
}

/// Dot products of the first `width` elements of a block's rows with some queries in operand form, `[count, width]`;
/// `products` is `[count, BLOCK]`. Meanwhile memory is asked for what is `ahead`.
#[inline(always)]
pub(crate) fn block_products<S: Simd, T: Element, P: Prefetch>(
    s: S,
    block: &Block<'_, T>,
    ahead: Option<&P>,
    queries: &[f32],
    width: usize,
    precision: Precision,
    products: &mut [f32],
) {
    // Where there is no difference, there is one version.
    if precision == Precision::Full || !T::multiplies_pairs::<S>() {
        products_with::<S, T, P, true>(s, block, ahead, queries, width, products);
    } else {
        products_with::<S, T, P, false>(s, block, ahead, queries, width, products);
    }
}

#[inline(always)]
fn products_with<S: Simd, T: Element, P: Prefetch, const FULL: bool>(
    s: S,
    block: &Block<'_, T>,
    ahead: Option<&P>,
    queries: &[f32],
    width: usize,
    products: &mut [f32],
) {
    with_tile_width!(S, products.len() / BLOCK, H => {
        // Sums of a tile fill about half the registers; the rows, widened, and the queries need the rest.
        match (S::REGISTERS >= 32, H) {
            (true, 1 | 2) if T::multiplies_pairs::<S>() => {
                tile_products::<S, T, P, 8, H, FULL>(s, block, ahead, queries, width, products);
            }
            (true, _) | (false, 1) => tile_products::<S, T, P, 4, H, FULL>(s, block, ahead, queries, width, products),
            (false, _) => tile_products::<S, T, P, 2, H, FULL>(s, block, ahead, queries, width, products),
        }
    });
}

#[inline(always)]
fn tile_products<S: Simd, T: Element, P: Prefetch, const R: usize, const H: usize, const FULL: bool>(
    s: S,
    block: &Block<'_, T>,
    ahead: Option<&P>,
    queries: &[f32],
    width: usize,
    products: &mut [f32],
) {
    let mut operands = [&[][..]; H];
    for (operand, query) in operands.iter_mut().zip(queries.chunks_exact(width)) {
        *operand = query;
    }
    for first in (0..block.len).step_by(R) {
        let mut sums = [[s.splat(0.0); R]; H];
        let step = 2 * S::LANES;
        let ahead = if let Some(ahead) = ahead
            && ahead.asks(first / R)
        {
            Some(ahead)
        } else {
            None
        };
        let steps = LockStep::new(*block.rows::<R>(first), operands, width / step, (step, step));
        for (i, (rows, queries)) in steps.enumerate() {
            if let Some(ahead) = ahead {
                ahead.advance(s, first, i * step, rows);
            }
            accumulate::<S, T, R, H, FULL>(s, &mut sums, rows, queries);
        }
        for (products, of_rows) in products.chunks_exact_mut(BLOCK).zip(reduce(s, sums)) {
            products[first..first + R].copy_from_slice(&of_rows);
        }
    }
}
