//! A block of rows times a few queries.
//!
//! ```text
//! for each tile of R rows × H queries:
//!     products[H][R] = 0
//!     for each step of 2·LANES elements:
//!         products += rows · queries        (dot.rs)
//! ```

use super::{
    block::{BLOCK, Block},
    dot::{accumulate, reduce, with_tile_width},
    prefetch::Prefetch,
    walk::LockStep,
};
use crate::{
    precision::Precision,
    simd::{Element, Simd},
};

/// Dot products of the first `width` elements of a block's rows with a tile of packed queries: rows
/// `[count, BLOCK]` of `products`, of which the first `block.len`, rounded up to a whole tile, are written.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two factors, their sizes, the result, and what is prefetched")]
pub(crate) fn block_products<S: Simd, T: Element<S>, P: Prefetch>(
    s: S,
    block: &Block<'_, T>,
    ahead: &mut P,
    queries: &[f32],
    width: usize,
    precision: Precision,
    products: &mut [f32],
    count: usize,
) {
    // Where there is no difference, there is one version.
    if precision == Precision::Full || !T::PAIRS {
        products_with::<S, T, P, true>(s, block, ahead, queries, width, products, count);
    } else {
        products_with::<S, T, P, false>(s, block, ahead, queries, width, products, count);
    }
}

#[inline(always)]
fn products_with<S: Simd, T: Element<S>, P: Prefetch, const FULL: bool>(
    s: S,
    block: &Block<'_, T>,
    ahead: &mut P,
    queries: &[f32],
    width: usize,
    products: &mut [f32],
    count: usize,
) {
    with_tile_width!(S::TILE_QUERIES, count, H => {
        // Sums of a tile fill about half the registers; the rows, widened, and the queries need the rest.
        match (S::REGISTERS >= 32, H) {
            (true, 1 | 2) if T::PAIRS => {
                tile_products::<S, T, P, 8, H, FULL>(s, block, ahead, queries, width, products);
            }
            (true, _) | (false, 1) => tile_products::<S, T, P, 4, H, FULL>(s, block, ahead, queries, width, products),
            (false, _) => tile_products::<S, T, P, 2, H, FULL>(s, block, ahead, queries, width, products),
        }
    });
}

#[inline(always)]
fn tile_products<S: Simd, T: Element<S>, P: Prefetch, const R: usize, const H: usize, const FULL: bool>(
    s: S,
    block: &Block<'_, T>,
    ahead: &mut P,
    queries: &[f32],
    width: usize,
    products: &mut [f32],
) {
    let mut local = *ahead;
    let products: &mut [[f32; BLOCK]; H] =
        products.as_chunks_mut().0.first_chunk_mut().expect("room for a block of each query");
    for first in (0..block.len).step_by(R) {
        let mut sums = [[s.splat(0.0); R]; H];
        let step = 2 * S::LANES;
        let steps = LockStep::new(block.rows.rows::<R>(first), [queries], width / step, (step, H * step));
        local.begin_tile::<S, R>(first);
        for (i, (rows, [queries])) in steps.enumerate() {
            accumulate::<S, T, P, R, H, FULL>(s, &mut sums, rows, queries, &mut local, (first, i * step));
        }
        for (products, of_rows) in products.iter_mut().zip(reduce(s, sums)) {
            products[first..first + R].copy_from_slice(&of_rows);
        }
    }
    *ahead = local;
}
