//! Products of a few vectors with many rows that lie in panels: a lane for each row.
//!
//! A panel is sixteen rows, a register's width on the widest instruction set and two or four registers on the others: first
//! the first element of all of them, then the second. So nothing is added up across lanes, a product has the same bits
//! whichever others are made with it, and a few vectors cost hardly more than reading.
//!
//! ```text
//! sums[H][rows] = 0
//! for each element, or pair of them where pairs are multiplied:
//!     lanes[rows] = the element of all rows, widened
//!     for each of H vectors:
//!         sums[h] += lanes · the vector's element
//! ```

use super::{dot::query_tiles, prefetch::LINE, walk::LockStep};
use crate::simd::{Element, MAX_LANES, Simd};
use std::sync::atomic::{Ordering, compiler_fence};

/// Rows of a panel.
pub(crate) const PANEL: usize = MAX_LANES;

/// Most panels that a tile goes over side by side: where they are a register each.
pub(crate) const MOST_PANELS: usize = 4;

/// Rows of so many panels: the distance of a vector's products from those of the next.
pub(crate) const GROUP: usize = MOST_PANELS * PANEL;

/// Most vectors of a tile. With sixteen registers, ten sums leave room for two registers of rows and what is multiplied with them; with
/// thirty-two, twenty sums for four.
pub(crate) const TILE: usize = 5;

/// The same on an instruction set. Where a panel is four registers, five vectors' sums leave too few of thirty-two for f16 on its way to
/// f32.
pub(crate) const fn most_vectors<S: Simd>() -> usize {
    if S::LANES * 4 == PANEL { TILE - 1 } else { TILE }
}

/// Vectors of a wide tile, which goes over half as many panels: where there are so many vectors, rows are widened half as often.
pub(crate) const WIDE: usize = 2 * TILE;

/// Tiles of vectors: (first, how many). Wide ones where registers are as wide as panels, as long as vectors fill them.
pub(crate) fn tiles<S: Simd>(vectors: usize) -> impl Iterator<Item = (usize, usize)> {
    let wide = if S::LANES == PANEL { vectors / WIDE } else { 0 };
    let rest = wide * WIDE;
    let narrow =
        query_tiles(vectors - rest, most_vectors::<S>()).map(move |(first, count)| (rest + first, count));
    (0..wide).map(|tile| (tile * WIDE, WIDE)).chain(narrow)
}

/// Packs the vectors of a tile, of an even length each, into as many numbers: for each step, those of one vector after
/// the other.
#[inline(always)]
pub(crate) fn pack_tile<S: Simd, T: Element<S>>(s: S, vectors: &[f32], len: usize, packed: &mut [f32]) {
    let count = vectors.len() / len;
    for (h, vector) in vectors.chunks_exact(len).enumerate() {
        for (vector, packed) in vector.chunks(2 * S::LANES).zip(packed.chunks_mut(2 * S::LANES * count)) {
            let mut halves = [[0.0; MAX_LANES]; 2];
            for (i, &x) in vector.iter().enumerate() {
                halves[i % 2][i / 2] = x;
            }
            let [first, second] = T::pack_query(s, [s.load(&halves[0]), s.load(&halves[1])]);
            s.store(first, &mut halves[0]);
            s.store(second, &mut halves[1]);
            for (i, of_pair) in packed.chunks_exact_mut(2 * count).enumerate() {
                // Two parts of a pair in one step, or two elements in two.
                let places = if T::PAIRS { [2 * h, 2 * h + 1] } else { [h, count + h] };
                for (place, half) in places.into_iter().zip(halves) {
                    of_pair[place] = half[i];
                }
            }
        }
    }
}

/// How far ahead of each panel lines are prefetched, in bytes: into L1 and into L2.
#[derive(Clone, Copy)]
pub(crate) struct Distances {
    pub(crate) near: usize,
    pub(crate) far: usize,
}

/// Products of `H` vectors with the rows of `G` panels, of `V` registers each: `[H, G · PANEL]`, vectors [`GROUP`] apart.
#[inline(always)]
pub(crate) fn tile_products<S: Simd, T: Element<S>, const G: usize, const V: usize, const H: usize>(
    s: S,
    panels: [&[T]; G],
    vectors: &[f32],
    ahead: Distances,
    products: &mut [f32],
) {
    let mut sums = [[[s.splat(0.0); V]; G]; H];
    for (panels, [vectors]) in
        LockStep::new(panels, [vectors], panels[0].len() / (2 * PANEL), (2 * PANEL, 2 * H))
    {
        for panel in panels {
            for line in (0..size_of_val(panel)).step_by(LINE) {
                let at = panel.as_ptr().cast::<u8>().wrapping_add(line);
                s.prefetch_l1(at.wrapping_add(ahead.near));
                s.prefetch_l2(at.wrapping_add(ahead.far));
            }
        }
        multiply_step::<S, T, G, V, H>(s, panels, vectors, 0, &mut sums);
        if !T::PAIRS {
            // Compilers would load all that the vectors have of both elements first, and have no registers left for the sums (1.6
            // times as long on AVX-512).
            compiler_fence(Ordering::SeqCst);
            multiply_step::<S, T, G, V, H>(s, panels, vectors, 1, &mut sums);
        }
    }
    for (sums, products) in sums.into_iter().zip(products.chunks_mut(GROUP)) {
        for (sums, products) in sums.into_iter().zip(products.chunks_exact_mut(PANEL)) {
            for (sum, products) in sums.into_iter().zip(products.chunks_exact_mut(S::LANES)) {
                s.store(sum, products);
            }
        }
    }
}

/// Adds the products of element number `number` of a pair, or of the pair, to the sums.
#[inline(always)]
fn multiply_step<S: Simd, T: Element<S>, const G: usize, const V: usize, const H: usize>(
    s: S,
    panels: [&[T]; G],
    vectors: &[f32],
    number: usize,
    sums: &mut [[[S::F32; V]; G]; H],
) {
    let parts = if T::PAIRS { 2 } else { 1 };
    let mut lanes = [[s.splat(0.0); V]; G];
    for (lanes, panel) in lanes.iter_mut().zip(panels) {
        for (v, lanes) in lanes.iter_mut().enumerate() {
            *lanes = T::load_lanes(s, &panel[number * PANEL..], v);
        }
    }
    for (h, sums) in sums.iter_mut().enumerate() {
        for part in 0..parts {
            let element = s.splat(vectors[(number * H + h) * parts + part]);
            for (sums, lanes) in sums.iter_mut().zip(lanes) {
                for (sum, lanes) in sums.iter_mut().zip(lanes) {
                    *sum = T::multiply_add(s, *sum, lanes, element);
                }
            }
        }
    }
}
