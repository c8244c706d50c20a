//! A few inputs: every weight is read once, which is the whole cost.

use super::Inputs;
use crate::{
    element::Element,
    microkernel::{
        dot::{accumulate, reduce, with_tile_width},
        prefetch::{NoPrefetch, Stream},
        walk::LockStep,
    },
    simd::{MAX_LANES, Simd},
};

/// How far ahead a row is prefetched into L1, in bytes; into L2 the next tile of rows is.
const NEAR: usize = 512;

/// `elements` is `[rows, cols]`, `out` is `[rows, n]`.
#[inline(always)]
pub(super) fn product<S: Simd, T: Element<S>>(
    s: S,
    elements: &[T],
    inputs: &Inputs,
    packed: &[f32],
    out: &mut [f32],
) {
    with_tile_width!(S::TILE_QUERIES, inputs.count, H => {
        match (S::REGISTERS >= 32, H) {
            (true, _) | (false, 1) => all_rows::<S, T, 4, H>(s, elements, (inputs.cols, packed), out),
            (false, _) => all_rows::<S, T, 2, H>(s, elements, (inputs.cols, packed), out),
        }
    });
}

#[inline(always)]
fn all_rows<S: Simd, T: Element<S>, const R: usize, const H: usize>(
    s: S,
    elements: &[T],
    (cols, packed): (usize, &[f32]),
    out: &mut [f32],
) {
    for (rows, out) in elements.chunks(R * cols).zip(out.chunks_mut(R * H)) {
        // Where there are not so many left the last is repeated, and what comes of the repetitions is left out.
        let mut tile = [&rows[rows.len() - cols..]; R];
        for (to, row) in tile.iter_mut().zip(rows.chunks_exact(cols)) {
            *to = row;
        }
        let products: [[f32; R]; H] = tile_products(s, tile, packed);
        for (r, out) in out.chunks_exact_mut(H).enumerate() {
            for h in 0..H {
                out[h] = products[h][r];
            }
        }
    }
}

#[inline(always)]
fn tile_products<S: Simd, T: Element<S>, const R: usize, const H: usize>(
    s: S,
    rows: [&[T]; R],
    packed: &[f32],
) -> [[f32; R]; H] {
    let (len, step) = (rows[0].len(), 2 * S::LANES);
    let mut sums = [[s.splat(0.0); R]; H];
    let mut ahead = Stream { near: NEAR, far: R * len * size_of::<T>() };
    for (i, (rows, [packed])) in LockStep::new(rows, [packed], len / step, (step, H * step)).enumerate() {
        accumulate::<S, T, Stream, R, H, true>(s, &mut sums, rows, packed, &mut ahead, (0, i * step));
    }
    let whole = len / step * step;
    if whole < len {
        let mut padded = [[T::zeroed(); 2 * MAX_LANES]; R];
        let mut row_blocks = [&[][..]; R];
        for ((padded, row), block) in padded.iter_mut().zip(rows).zip(&mut row_blocks) {
            padded[..len - whole].copy_from_slice(&row[whole..]);
            *block = &padded[..step];
        }
        let packed = &packed[whole * H..];
        accumulate::<S, T, NoPrefetch, R, H, true>(s, &mut sums, row_blocks, packed, &mut NoPrefetch, (0, 0));
    }
    reduce(s, sums)
}
