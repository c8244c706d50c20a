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

/// Bytes of a row that the first cache is asked for ahead; the second one is asked for the next tile of rows.
const NEAR: usize = 512;

/// `elements` is `[rows, cols]`, `out` is `[rows, n]`.
#[inline(always)]
pub(super) fn product<S: Simd, T: Element<S>>(
    s: S,
    elements: &[T],
    inputs: &Inputs,
    operands: &[f32],
    out: &mut [f32],
) {
    with_tile_width!(S::TILE_QUERIES, inputs.count, H => {
        match (S::REGISTERS >= 32, H) {
            (true, _) | (false, 1) => all_rows::<S, T, 4, H>(s, elements, (inputs.cols, operands), out),
            (false, _) => all_rows::<S, T, 2, H>(s, elements, (inputs.cols, operands), out),
        }
    });
}

#[inline(always)]
fn all_rows<S: Simd, T: Element<S>, const R: usize, const H: usize>(
    s: S,
    elements: &[T],
    (cols, operands): (usize, &[f32]),
    out: &mut [f32],
) {
    for (rows, out) in elements.chunks(R * cols).zip(out.chunks_mut(R * H)) {
        // Where there are not so many left the last is repeated, and what comes of the repetitions is left out.
        let mut tile = [&rows[rows.len() - cols..]; R];
        for (to, row) in tile.iter_mut().zip(rows.chunks_exact(cols)) {
            *to = row;
        }
        let products: [[f32; R]; H] = tile_products(s, tile, operands);
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
    operands: &[f32],
) -> [[f32; R]; H] {
    let (len, step) = (rows[0].len(), 2 * S::LANES);
    let mut sums = [[s.splat(0.0); R]; H];
    let mut ahead = Stream { near: NEAR, far: R * len * size_of::<T>() };
    for (i, (rows, [operands])) in LockStep::new(rows, [operands], len / step, (step, H * step)).enumerate() {
        accumulate::<S, T, Stream, R, H, true>(s, &mut sums, rows, operands, &mut ahead, i * step);
    }
    let whole = len / step * step;
    if whole < len {
        let mut padded = [[T::zeroed(); 2 * MAX_LANES]; R];
        let mut row_blocks = [&[][..]; R];
        for ((padded, row), block) in padded.iter_mut().zip(rows).zip(&mut row_blocks) {
            padded[..len - whole].copy_from_slice(&row[whole..]);
            *block = &padded[..step];
        }
        let operands = &operands[whole * H..];
        accumulate::<S, T, NoPrefetch, R, H, true>(s, &mut sums, row_blocks, operands, &mut NoPrefetch, 0);
    }
    reduce(s, sums)
}
