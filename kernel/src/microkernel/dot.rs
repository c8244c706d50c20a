//! Dot products of rows with a few queries: the inner loop of attention scores and weight products.
//!
//! Queries are packed first (see [`Element::pack_query`]), padded with zeros to a whole number
//! of blocks. Those of a tile are laid block by block, the first block of each, then the second: one address leads to all
//! of them, where one for each would not fit the general registers beside those of the rows. A tile of rows × queries keeps
//! its sums in registers; each row is read once for all the queries of a tile.

use super::prefetch::{Prefetch, Share, prefetch_part};
use crate::simd::{Element, MAX_LANES, Simd};

/// The length of a packed query: `len` rounded up to whole blocks.
#[inline(always)]
pub(crate) const fn packed_len<S: Simd>(len: usize) -> usize {
    len.next_multiple_of(2 * S::LANES)
}

/// Packs queries, tile by tile. `queries` is `[n, len]`, `packed` has [`packed_len`] elements for each;
/// what lies beyond a query becomes 0.
#[inline(always)]
pub(crate) fn pack_queries<S: Simd, T: Element<S>>(
    s: S,
    queries: &[f32],
    len: usize,
    scale: f32,
    packed: &mut [f32],
) {
    let count = queries.len().checked_div(len).unwrap_or(0);
    let stride = packed.len() / count.max(1);
    for (first, tile) in query_tiles(count, S::TILE_QUERIES) {
        let packed = &mut packed[first * stride..(first + tile) * stride];
        pack_tile::<S, T>(
            s,
            tile,
            #[inline(always)]
            |query, start, to| {
                let from = queries[(first + query) * len..][..len].get(start..).unwrap_or_default();
                let (some, rest) = to.split_at_mut(from.len().min(to.len()));
                some.copy_from_slice(&from[..some.len()]);
                rest.fill(0.0);
            },
            scale,
            packed,
        );
    }
}

/// Packs one tile of `tile` queries. `read` puts the elements of a query from some place on into a slice, and zeros behind its end.
#[inline(always)]
pub(crate) fn pack_tile<S: Simd, T: Element<S>>(
    s: S,
    tile: usize,
    read: impl Fn(usize, usize, &mut [f32]),
    scale: f32,
    packed: &mut [f32],
) {
    let block = 2 * S::LANES;
    let mut from = [0.0; 2 * MAX_LANES];
    for (b, to) in packed.chunks_exact_mut((tile * block).max(1)).enumerate() {
        for (h, to) in to.chunks_exact_mut(block).enumerate() {
            read(h, b * block, &mut from[..block]);
            prepare_block::<S, T>(s, &from, scale, to);
        }
    }
}

/// A block of a query.
#[inline(always)]
fn prepare_block<S: Simd, T: Element<S>>(s: S, from: &[f32; 2 * MAX_LANES], scale: f32, to: &mut [f32]) {
    let mut arranged = [0.0; 2 * MAX_LANES];
    for (i, &x) in from.iter().take(2 * S::LANES).enumerate() {
        arranged[T::register_place(i)] = x * scale;
    }
    let registers = [s.load(&arranged[..S::LANES]), s.load(&arranged[S::LANES..2 * S::LANES])];
    let [low, high] = T::pack_query(s, registers);
    s.store(low, &mut to[..S::LANES]);
    s.store(high, &mut to[S::LANES..]);
}

/// Adds the products of a block of `R` rows and the same block of `H` queries to their sums. `place` is the first row, and the element
/// that the block begins with. Between the queries lines are prefetched.
#[inline(always)]
pub(crate) fn accumulate<
    S: Simd,
    T: Element<S>,
    P: Prefetch,
    const R: usize,
    const H: usize,
    const FULL: bool,
>(
    s: S,
    sums: &mut [[S::F32; R]; H],
    rows: [&[T]; R],
    queries: &[f32],
    ahead: &mut P,
    place: (usize, usize),
) {
    // Loops, not closures handed to `map`: those would not be inlined, see `dispatch`.
    let mut blocks = [[s.splat(0.0); 2]; R];
    for (block, row) in blocks.iter_mut().zip(rows) {
        *block = T::load(s, row);
    }
    let queries = queries.chunks_exact(2 * S::LANES);
    for (h, (sums, query)) in sums.iter_mut().zip(queries).enumerate() {
        prefetch_part(s, ahead, place, rows, (h, H));
        let query = [s.load(&query[..S::LANES]), s.load(&query[S::LANES..])];
        for (sum, block) in sums.iter_mut().zip(blocks) {
            *sum = T::dot::<FULL>(s, *sum, block, query);
        }
    }
}

/// Adds up the lanes of all sums, four registers at a time. The last four are filled up with zeros and not summed some
/// other way: so a product has the same bits wherever in a tile it is computed, and equal rows give equal ones.
#[inline(always)]
pub(crate) fn reduce<S: Simd, const R: usize, const H: usize>(s: S, sums: [[S::F32; R]; H]) -> [[f32; R]; H] {
    let mut out = [[0.0; R]; H];
    for first in (0..R * H).step_by(4) {
        let mut four = [s.splat(0.0); 4];
        for (i, sum) in (first..R * H).zip(&mut four) {
            *sum = sums[i / R][i % R];
        }
        for (i, x) in (first..R * H).zip(s.reduce_add_4(four)) {
            out[i / R][i % R] = x;
        }
    }
    out
}

/// Splits `queries` into tiles of nearly equal size, none above `most`: (first, how many).
pub(crate) fn query_tiles(queries: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = queries.div_ceil(most);
    (0..tiles).map(move |t| {
        let (from, to) = (t * queries / tiles, (t + 1) * queries / tiles);
        (from, to - from)
    })
}

/// A tile of queries that goes over the same rows as others do, and its share of their prefetches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) share: Share,
}

/// Puts the tiles of so many queries into `tiles`.
pub(crate) fn share_rows<S: Simd>(queries: usize, tiles: &mut Vec<Tile>) {
    let count = query_tiles(queries, S::TILE_QUERIES).count();
    let numbered = query_tiles(queries, S::TILE_QUERIES).enumerate();
    tiles.clear();
    tiles.extend(numbered.map(|(number, (first, of_tile))| Tile {
        first,
        count: of_tile,
        share: Share::new(number, count),
    }));
}

/// Calls `$body` with `$H` a constant equal to `$count`, which is at least 1 and no more than the constant `$most`, 4 or 5.
macro_rules! with_tile_width {
    ($most:expr, $count:expr, $H:ident => $body:expr) => {
        match $count {
            5 if $most == 5 => {
                const $H: usize = 5;
                $body
            }
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
            _ => {
                const $H: usize = 4;
                $body
            }
        }
    };
}
pub(crate) use with_tile_width;
