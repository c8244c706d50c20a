//! Rows of one length in blocks: resolved from positions once, asked for a block ahead, multiplied with queries.

use crate::{
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
/// what memory has to bring the next one. On Zen 4, two threads, dense attention at 128K tokens: blocks of 64 rows, 32 KiB
/// ahead, read 5–10% slower, though they are 5% faster where rows are cached. Asking for all of the next block while the
/// scores are computed and for nothing while the values are summed was slower still.
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

    /// Asks for `len` elements of a row from `from` on, if there is one.
    #[inline(always)]
    pub(crate) fn prefetch<S: Simd>(&self, s: S, row: usize, from: usize, len: usize) {
        if self.len > 0 {
            s.prefetch(&self.rows[row][from..from + len]);
        }
    }
}

/// The block after the one at hand, to be asked for meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Ahead<'b, 'a, T> {
    pub(crate) block: &'b Block<'a, T>,
    /// Rows that are asked for while this many are multiplied: attention goes twice over a block, and asks for half of
    /// the next one each time.
    pub(crate) per: usize,
}

impl<T> Ahead<'_, '_, T> {
    /// Asks for what is due when row `row` is multiplied.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, s: S, row: usize) {
        if row.is_multiple_of(self.per) {
            self.block.prefetch(s, row / self.per, 0, self.block.rows[0].len());
        }
    }
}

/// Dot products of the first `width` elements of a block's rows with some queries in operand form, `[count, width]`;
/// `products` is `[count, BLOCK]`. Meanwhile rows of the next block are asked for.
#[inline(always)]
pub(crate) fn block_products<S: Simd, T: Element>(
    s: S,
    block: &Block<'_, T>,
    next: Option<Ahead<'_, '_, T>>,
    queries: &[f32],
    width: usize,
    precision: Precision,
    products: &mut [f32],
) {
    // Where there is no difference, there is one version.
    if precision == Precision::Full || !T::multiplies_pairs::<S>() {
        products_with::<S, T, true>(s, block, next, queries, width, products);
    } else {
        products_with::<S, T, false>(s, block, next, queries, width, products);
    }
}

#[inline(always)]
fn products_with<S: Simd, T: Element, const FULL: bool>(
    s: S,
    block: &Block<'_, T>,
    next: Option<Ahead<'_, '_, T>>,
    queries: &[f32],
    width: usize,
    products: &mut [f32],
) {
    with_tile_width!(S, products.len() / BLOCK, H => {
        // Sums of a tile fill about half the registers; the rows, widened, and the queries need the rest.
        match (S::REGISTERS >= 32, H) {
            (true, 1 | 2) if T::multiplies_pairs::<S>() => {
                tile_products::<S, T, 8, H, FULL>(s, block, next, queries, width, products);
            }
            (true, _) | (false, 1) => tile_products::<S, T, 4, H, FULL>(s, block, next, queries, width, products),
            (false, _) => tile_products::<S, T, 2, H, FULL>(s, block, next, queries, width, products),
        }
    });
}

#[inline(always)]
fn tile_products<S: Simd, T: Element, const R: usize, const H: usize, const FULL: bool>(
    s: S,
    block: &Block<'_, T>,
    next: Option<Ahead<'_, '_, T>>,
    queries: &[f32],
    width: usize,
    products: &mut [f32],
) {
    let mut operands = [&[][..]; H];
    for (operand, query) in operands.iter_mut().zip(queries.chunks_exact(width)) {
        *operand = query;
    }
    for first in (0..block.len).step_by(R) {
        if let Some(next) = next {
            for r in 0..R {
                next.prefetch(s, first + r);
            }
        }
        let mut sums = [[s.splat(0.0); R]; H];
        let step = 2 * S::LANES;
        for (rows, queries) in LockStep::new(*block.rows::<R>(first), operands, width / step, (step, step)) {
            accumulate::<S, T, R, H, FULL>(s, &mut sums, rows, queries);
        }
        for (products, of_rows) in products.chunks_exact_mut(BLOCK).zip(reduce(s, sums)) {
            products[first..first + R].copy_from_slice(&of_rows);
        }
    }
}
