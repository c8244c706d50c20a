//! Rows of one length in blocks: resolved from positions once, asked for a block ahead, multiplied with queries.

use crate::{
    ahead::Prefetch,
    dtype::Element,
    linear::Precision,
    simd::{EqualRows, LockStep, Simd},
    tile::{accumulate, reduce, with_tile_width},
};

/// Rows of equal length in memory: all of them in turn, or those at some positions.
#[derive(Clone, Copy)]
pub(crate) struct RowSet<'a, T> {
    /// All the rows there are, one after the other.
    elements: &'a [T],
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    /// The rows of the set, or all of them.
    positions: Option<&'a [u32]>,
    len: usize,
}

impl<'a, T> RowSet<'a, T> {
    /// The rows of `elements` at some positions, or all of them.
    #[inline(always)]
    pub(crate) fn new(elements: &'a [T], stride: usize, positions: Option<&'a [u32]>) -> Self {
        let len = positions.map_or(elements.len() / stride, <[u32]>::len);
        Self { elements, stride, positions, len }
    }

    /// How many rows the set has.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where row `i` of the set begins, or the last one if there are not so many: to ask memory for it.
    #[inline(always)]
    pub(crate) fn address(&self, i: usize) -> *const T {
        let i = i.min(self.len.saturating_sub(1));
        let position = self.positions.map_or(i, |positions| positions.get(i).map_or(0, |&at| at as usize));
        self.elements.as_ptr().wrapping_add(position * self.stride)
    }

    /// Row `i` of the set.
    #[inline(always)]
    fn row(&self, i: usize) -> &'a [T] {
        let position = self.positions.map_or(i, |positions| positions[i] as usize);
        &self.elements[position * self.stride..][..self.stride]
    }
}

/// Rows of a block: scores, keys and values of a block stay in the first caches, and the time that a block takes is
/// what memory has to bring the next ones. Blocks of 64 rows are 5% faster where rows are cached; from memory they were 5–10%
/// slower on Zen 4, where two blocks fill L1.
pub(crate) const BLOCK: usize = 32;

/// The rows of a block. What lies beyond the set repeats its last row: kernels work on whole tiles, and the weights
/// of what they compute too much are zero.
pub(crate) struct Block<'a, T> {
    pub(crate) rows: EqualRows<'a, T, BLOCK>,
    /// Rows that are not repetitions.
    pub(crate) len: usize,
}

impl<'a, T> Block<'a, T> {
    /// The rows of `set` from `start` on; none if it has none there.
    #[inline(always)]
    pub(crate) fn new(set: &RowSet<'a, T>, start: usize) -> Self {
        let len = BLOCK.min(set.len().saturating_sub(start));
        let rows = if len > 0 {
            EqualRows::new(
                set.stride,
                #[inline(always)]
                |i| set.row(start + i.min(len - 1)),
            )
        } else {
            EqualRows::new(
                0,
                #[inline(always)]
                |_| &[],
            )
        };
        Self { rows, len }
    }
}

/// Dot products of the first `width` elements of a block's rows with a tile of queries in operand form;
/// `products` is `[count, BLOCK]`. Meanwhile memory is asked for what is `ahead`.
#[inline(always)]
pub(crate) fn block_products<S: Simd, T: Element, P: Prefetch>(
    s: S,
    block: &Block<'_, T>,
    ahead: &mut P,
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
    ahead: &mut P,
    queries: &[f32],
    width: usize,
    products: &mut [f32],
) {
    with_tile_width!(S::TILE_QUERIES, products.len() / BLOCK, H => {
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
    ahead: &mut P,
    queries: &[f32],
    width: usize,
    products: &mut [f32],
) {
    let mut local = *ahead;
    for first in (0..block.len).step_by(R) {
        let mut sums = [[s.splat(0.0); R]; H];
        let step = 2 * S::LANES;
        let steps = LockStep::new(block.rows.rows::<R>(first), [queries], width / step, (step, H * step));
        local.turn::<R>(first);
        for (i, (rows, [queries])) in steps.enumerate() {
            accumulate::<S, T, P, R, H, FULL>(s, &mut sums, rows, queries, &mut local, i * step);
        }
        for (products, of_rows) in products.chunks_exact_mut(BLOCK).zip(reduce(s, sums)) {
            products[first..first + R].copy_from_slice(&of_rows);
        }
    }
    *ahead = local;
}
