//! A few inputs: every weight is read once, which is the whole cost. More of them than a tile has go over each few rows tile by tile.

use super::inputs::{Inputs, Layout};
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

/// Rows that all tiles of inputs go over before the next ones: those of a tile of rows, which stay in L1 or L2 meanwhile.
const ROWS: usize = 4;

/// `elements` is `[rows, cols]`, `out` is `[rows, n]`.
#[inline(always)]
pub(super) fn product<S: Simd, T: Element<S>>(
    s: S,
    elements: &[T],
    inputs: &Inputs,
    layout: &Layout,
    out: &mut [f32],
) {
    let (cols, count) = (layout.purpose.cols, layout.count);
    let rows = if count > layout.part_vectors { ROWS } else { elements.len() / cols };
    for (elements, out) in elements.chunks(rows * cols).zip(out.chunks_mut(rows * count)) {
        for (number, packed) in inputs.values().chunks(layout.part_len).enumerate() {
            let first = number * layout.part_vectors;
            with_tile_width!(S::TILE_QUERIES, layout.part_vectors.min(count - first), H => {
                let out = Out { values: &mut *out, first, count };
                match (S::REGISTERS >= 32, H) {
                    (true, _) | (false, 1) => all_rows::<S, T, 4, H>(s, elements, (cols, packed), out),
                    (false, _) => all_rows::<S, T, 2, H>(s, elements, (cols, packed), out),
                }
            });
        }
    }
}

/// Where a tile's products go.
struct Out<'a> {
    /// `[rows, count]`
    values: &'a mut [f32],
    /// The tile's first input.
    first: usize,
    count: usize,
}

#[inline(always)]
fn all_rows<S: Simd, T: Element<S>, const R: usize, const H: usize>(
    s: S,
    elements: &[T],
    (cols, packed): (usize, &[f32]),
    out: Out<'_>,
) {
    for (rows, values) in elements.chunks(R * cols).zip(out.values.chunks_mut(R * out.count)) {
        // Where there are not so many left the last is repeated, and what comes of the repetitions is left out.
        let mut tile = [&rows[rows.len() - cols..]; R];
        for (to, row) in tile.iter_mut().zip(rows.chunks_exact(cols)) {
            *to = row;
        }
        let products: [[f32; R]; H] = tile_products(s, tile, packed);
        for (r, values) in values.chunks_exact_mut(out.count).enumerate() {
            for (value, products) in values[out.first..].iter_mut().zip(&products) {
                *value = products[r];
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
