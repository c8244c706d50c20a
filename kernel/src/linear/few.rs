//! A few inputs: every weight is read once, which is the whole cost.

use super::Inputs;
use crate::{
    ahead::{Onward, Prefetch},
    dtype::Element,
    simd::{LockStep, MAX_LANES, Simd},
    tile::{accumulate, operand_len, reduce, with_tile_width},
};

/// Bytes of a row that the first cache is asked for ahead; the second one is asked for the next tile of rows.
const NEAR: usize = 512;

/// `elements` is `[rows, cols]`, `out` is `[rows, n]`.
#[inline(always)]
pub(super) fn product<S: Simd, T: Element>(s: S, elements: &[T], inputs: &Inputs, out: &mut [f32]) {
    with_tile_width!(S, inputs.count, H => {
        match (S::REGISTERS >= 32, H) {
            (true, _) | (false, 1) => all_rows::<S, T, 4, H>(s, elements, inputs, out),
            (false, _) => all_rows::<S, T, 2, H>(s, elements, inputs, out),
        }
    });
}

#[inline(always)]
fn all_rows<S: Simd, T: Element, const R: usize, const H: usize>(
    s: S,
    elements: &[T],
    inputs: &Inputs,
    out: &mut [f32],
) {
    let cols = inputs.cols;
    let mut operands = [&[][..]; H];
    for (operand, input) in operands.iter_mut().zip(inputs.values.chunks_exact(operand_len::<S>(cols))) {
        *operand = input;
    }
    for (rows, out) in elements.chunks(R * cols).zip(out.chunks_mut(R * H)) {
        // Where there are not so many left the last is repeated, and what comes of the repetitions is left out.
        let mut tile = [&rows[rows.len() - cols..]; R];
        for (to, row) in tile.iter_mut().zip(rows.chunks_exact(cols)) {
            *to = row;
        }
        let products = tile_products(s, tile, operands);
        for (r, out) in out.chunks_exact_mut(H).enumerate() {
            for h in 0..H {
                out[h] = products[h][r];
            }
        }
    }
}

#[inline(always)]
fn tile_products<S: Simd, T: Element, const R: usize, const H: usize>(
    s: S,
    rows: [&[T]; R],
    operands: [&[f32]; H],
) -> [[f32; R]; H] {
    let (len, step) = (rows[0].len(), 2 * S::LANES);
    let mut sums = [[s.splat(0.0); R]; H];
    let ahead = Onward { near: NEAR, far: R * len * size_of::<T>() };
    for (i, (rows, operands)) in LockStep::new(rows, operands, len / step, (step, step)).enumerate() {
        ahead.advance(s, 0, i * step, rows);
        accumulate::<S, T, R, H, true>(s, &mut sums, rows, operands);
    }
    let whole = len / step * step;
    if whole < len {
        let mut padded = [[T::zeroed(); 2 * MAX_LANES]; R];
        let (mut row_blocks, mut operand_blocks) = ([&[][..]; R], [&[][..]; H]);
        for ((padded, row), block) in padded.iter_mut().zip(rows).zip(&mut row_blocks) {
            padded[..len - whole].copy_from_slice(&row[whole..]);
            *block = &padded[..step];
        }
        for (operand, block) in operands.into_iter().zip(&mut operand_blocks) {
            *block = &operand[whole..];
        }
        accumulate::<S, T, R, H, true>(s, &mut sums, row_blocks, operand_blocks);
    }
    reduce(s, sums)
}
