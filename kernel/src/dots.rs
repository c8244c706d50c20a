//! Dot products of rows with a few queries: the inner loop of codeword scores, attention scores and weight products.
//!
//! Queries are first brought into operand form (see [`crate::dtype::Element`]), padded with zeros to a whole number
//! of blocks, and laid one after the other. A tile of rows × queries keeps its sums in registers; each row is read
//! once for all the queries of a tile.
//!
//! [`dots`] is compiled once per backend and storage type, not inlined into the kernels that use it: one call does a
//! block of rows, and inlining it everywhere made the crate take five minutes to compile for nothing measurable.

use crate::{
    dtype::Element,
    simd::{LockStep, MAX_LANES, Simd},
};
use std::{array, ops::Range};

/// Most queries of one tile: with two rows, ten sums, four row registers and a query fill sixteen registers.
pub(crate) const MAX_TILE_QUERIES: usize = 5;

/// Rows prefetched ahead of the ones at hand. On Zen 4, one thread, of 24 GB/s: 4 rows give 11, 12–14 give 18–20,
/// 24–48 give 16.
const PREFETCH_AHEAD: usize = 12;

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

/// Where [`dots`] puts the product of a row and a query.
pub(crate) struct Products<'a> {
    /// The product of row `i` of the range and query `h` is at `i · per_row + h · per_query`.
    pub(crate) values: &'a mut [f32],
    pub(crate) per_row: usize,
    pub(crate) per_query: usize,
    /// Add to what is there instead of replacing it.
    pub(crate) accumulate: bool,
}

impl Products<'_> {
    #[inline(always)]
    fn put<const H: usize>(&mut self, row: usize, products: [f32; H]) {
        for (h, x) in products.into_iter().enumerate() {
            let to = &mut self.values[row * self.per_row + h * self.per_query];
            *to = if self.accumulate { *to + x } else { x };
        }
    }
}

/// The length of a query in operand form: `len` rounded up to whole blocks.
#[inline(always)]
pub(crate) fn operand_len<S: Simd>(len: usize) -> usize {
    len.next_multiple_of(2 * S::LANES)
}

/// Brings one query into operand form. `operand` has [`operand_len`] elements; what lies beyond the query becomes 0.
#[inline(always)]
pub(crate) fn prepare_query<S: Simd, T: Element>(s: S, query: &[f32], scale: f32, operand: &mut [f32]) {
    let block = 2 * S::LANES;
    for (b, to) in operand.chunks_exact_mut(block).enumerate() {
        let from = query.get(b * block..).unwrap_or_default();
        let mut arranged = [0.0; 2 * MAX_LANES];
        for (i, &x) in from.iter().take(block).enumerate() {
            arranged[T::register_place(i, S::LANES)] = x * scale;
        }
        let registers = [s.load(&arranged[..S::LANES]), s.load(&arranged[S::LANES..2 * S::LANES])];
        let [low, high] = T::query_operand(s, registers);
        s.store(low, &mut to[..S::LANES]);
        s.store(high, &mut to[S::LANES..]);
    }
}

/// Dot products of `R` rows of `len` elements with `H` queries in operand form.
#[inline(always)]
fn tile<S: Simd, T: Element, const R: usize, const H: usize>(
    s: S,
    rows: [&[T]; R],
    len: usize,
    queries: &[f32],
) -> [[f32; H]; R] {
    let block = 2 * S::LANES;
    let stride = operand_len::<S>(len);
    let mut sums = [[s.splat(0.0); H]; R];
    let operands: [&[f32]; H] = array::from_fn(|h| &queries[h * stride..][..stride]);
    let steps = LockStep::new(rows, len, block).zip(LockStep::new(operands, stride, block));
    for (row_blocks, query_blocks) in steps {
        accumulate(s, &mut sums, row_blocks, query_blocks);
    }
    let rest = len % block;
    if rest > 0 {
        let mut padded = [[T::zeroed(); 2 * MAX_LANES]; R];
        for (padded, row) in padded.iter_mut().zip(rows) {
            padded[..rest].copy_from_slice(&row[len - rest..len]);
        }
        let row_blocks = array::from_fn(|r| &padded[r][..block]);
        accumulate(s, &mut sums, row_blocks, operands.map(|query| &query[stride - block..]));
    }
    reduce(s, sums)
}

#[inline(always)]
fn accumulate<S: Simd, T: Element, const R: usize, const H: usize>(
    s: S,
    sums: &mut [[S::F32; H]; R],
    rows: [&[T]; R],
    queries: [&[f32]; H],
) {
    // Loops, not closures handed to `map`: those would not be inlined, see `dispatch`.
    let mut blocks = [[s.splat(0.0); 2]; R];
    for (block, row) in blocks.iter_mut().zip(rows) {
        *block = T::load_operand(s, row);
    }
    for (h, query) in queries.into_iter().enumerate() {
        let (low, high) = query.split_at(S::LANES);
        let query = [s.load(low), s.load(high)];
        for (sums, block) in sums.iter_mut().zip(blocks) {
            sums[h] = T::dot(s, sums[h], block, query);
        }
    }
}

/// Adds up the lanes of all sums, four registers at a time. The last four are filled up with zeros and not summed some
/// other way: so a product has the same bits wherever in a tile it is computed, and equal codewords score equally.
#[inline(always)]
fn reduce<S: Simd, const R: usize, const H: usize>(s: S, sums: [[S::F32; H]; R]) -> [[f32; H]; R] {
    let mut out = [[0.0; H]; R];
    for first in (0..R * H).step_by(4) {
        let mut four = [s.splat(0.0); 4];
        for (i, sum) in (first..R * H).zip(&mut four) {
            *sum = sums[i / H][i % H];
        }
        for (i, x) in (first..R * H).zip(s.reduce_add_4(four)) {
            out[i / H][i % H] = x;
        }
    }
    out
}

/// Dot products of elements `columns` of the rows `range` of a set with `count` queries in operand form, which
/// [`query_tiles`] keeps at 5 or fewer. With `prefetch`, rows (whole ones) are asked for a dozen ahead.
#[inline(never)]
#[expect(clippy::too_many_arguments, reason = "one flat call per block of rows")]
pub(crate) fn dots<S: Simd, T: Element>(
    s: S,
    rows: &RowSet<'_, T>,
    range: Range<usize>,
    columns: Range<usize>,
    queries: &[f32],
    count: usize,
    prefetch: bool,
    mut out: Products<'_>,
) {
    s.vectorize(#[inline(always)] || {
        with_tile_width!(count, H => dots_of::<S, T, H>(s, rows, range, columns, queries, prefetch, &mut out));
    });
}

/// Asks for `R` rows, whole ones, a dozen after row `i`.
#[inline(always)]
fn prefetch_ahead<S: Simd, T: Element, const R: usize>(s: S, rows: &RowSet<'_, T>, i: usize) {
    for ahead in i + PREFETCH_AHEAD..i + PREFETCH_AHEAD + R {
        if ahead < rows.len() {
            s.prefetch(rows.row(ahead, 0, rows.stride));
        }
    }
}

#[inline(always)]
fn dots_of<S: Simd, T: Element, const H: usize>(
    s: S,
    rows: &RowSet<'_, T>,
    range: Range<usize>,
    columns: Range<usize>,
    queries: &[f32],
    prefetch: bool,
    out: &mut Products<'_>,
) {
    let len = columns.len();
    let row = |i: usize| rows.row(i, columns.start, len);
    let mut i = range.start;
    // With 32 registers four rows fit; each query operand is then loaded half as often.
    if S::REGISTERS >= 32 {
        while i + 4 <= range.end {
            if prefetch {
                prefetch_ahead::<S, T, 4>(s, rows, i);
            }
            let products = tile::<S, T, 4, H>(s, array::from_fn(|r| row(i + r)), len, queries);
            for (r, products) in products.into_iter().enumerate() {
                out.put(i - range.start + r, products);
            }
            i += 4;
        }
    }
    while i + 2 <= range.end {
        if prefetch {
            prefetch_ahead::<S, T, 2>(s, rows, i);
        }
        let [first, second] = tile::<S, T, 2, H>(s, [row(i), row(i + 1)], len, queries);
        out.put(i - range.start, first);
        out.put(i - range.start + 1, second);
        i += 2;
    }
    if i < range.end {
        if prefetch {
            prefetch_ahead::<S, T, 1>(s, rows, i);
        }
        let [last] = tile::<S, T, 1, H>(s, [row(i)], len, queries);
        out.put(i - range.start, last);
    }
}

/// Splits `queries` into tiles of nearly equal size, none above [`MAX_TILE_QUERIES`]: (first, how many).
pub(crate) fn query_tiles(queries: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = queries.div_ceil(MAX_TILE_QUERIES);
    (0..tiles).map(move |t| {
        let (from, to) = (t * queries / tiles, (t + 1) * queries / tiles);
        (from, to - from)
    })
}

/// Calls `$body` with `$H` a constant equal to `$count`, which [`query_tiles`] keeps within 1..=5.
macro_rules! with_tile_width {
    ($count:expr, $H:ident => $body:expr) => {
        match $count {
            1 => {
                const $H: usize = 1;
                $body
            }
            2 => {
                const $H: usize = 2;
                $body
            }
            3 => {
                const $H: usize = 3;
                $body
            }
            4 => {
                const $H: usize = 4;
                $body
            }
            _ => {
                const $H: usize = 5;
                $body
            }
        }
    };
}
pub(crate) use with_tile_width;
