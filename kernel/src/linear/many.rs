//! Many inputs: the matrix-matrix product of prefill.

use super::inputs::{Inputs, Layout};
use crate::{
    memory::Aligned,
    microkernel::broadcast::{multiply_lanes, panel_lanes, store_tile},
    simd::{Element, MAX_LANES, Row, Simd},
};
use std::ops::Range;

/// Columns at a time, an even number, and rows at a time. With sixteen lanes a panel of inputs has 96 KiB of the columns, and the
/// rows have 512 KiB of them in f32: both stay in the second cache while the panel goes over all the rows. (With the columns
/// innermost, all of 512 inputs, 8 MiB, were read again for each 64 rows: a tenth slower.) With 256
/// columns 8% slower on Granite Rapids, with 128 14%.
const COLUMNS: usize = 512;
const ROWS: usize = 256;

/// A piece of the weights, `[rows, columns.len()]` at `stride` from row to row.
struct Piece<'a, T> {
    elements: &'a [T],
    stride: usize,
    rows: usize,
    columns: Range<usize>,
}

/// `elements` is `[rows, cols]`, `out` is `[rows, n]`. Rows are multiplied as they lie, or widened first, each once for all the
/// inputs.
#[inline(always)]
pub(super) fn product<S: Simd, T: Element<S>>(
    s: S,
    elements: &[T],
    inputs: &Inputs,
    layout: &Layout,
    out: &mut [f32],
) {
    let (cols, panels) = (layout.purpose.cols, inputs.values());
    let is_stored_so = T::as_multiplied(elements).is_some();
    let mut wide = Aligned::zeros(if is_stored_so { 0 } else { ROWS * COLUMNS.min(cols) });
    let wide: &mut [T::Multiplied] = bytemuck::cast_slice_mut(&mut wide);
    for_each_piece(
        elements,
        layout,
        out,
        #[inline(always)]
        |elements, columns, out| {
            let rows = elements.len() / cols;
            let piece = if let Some(elements) = T::as_multiplied(elements) {
                Piece { elements: &elements[columns.start..], stride: cols, rows, columns }
            } else {
                let stride = columns.len();
                for (row, wide) in elements.chunks_exact(cols).zip(wide.chunks_exact_mut(stride)) {
                    T::widen(s, &row[columns.clone()], wide);
                }
                Piece { elements: &*wide, stride, rows, columns }
            };
            all_panels(s, &piece, layout, panels, out);
        },
    );
}

/// Calls `multiply` with some rows, some of their columns, and the rows' part of the output.
#[inline(always)]
fn for_each_piece<T>(
    elements: &[T],
    layout: &Layout,
    out: &mut [f32],
    mut multiply: impl FnMut(&[T], Range<usize>, &mut [f32]),
) {
    let cols = layout.purpose.cols;
    for start in (0..cols).step_by(COLUMNS) {
        for (elements, out) in elements.chunks(ROWS * cols).zip(out.chunks_mut(ROWS * layout.count)) {
            multiply(elements, start..cols.min(start + COLUMNS), out);
        }
    }
}

/// Multiplies a piece of the weights with all the inputs.
#[inline(always)]
fn all_panels<S: Simd, T: Row<S>>(
    s: S,
    piece: &Piece<'_, T>,
    layout: &Layout,
    panels: &[f32],
    out: &mut [f32],
) {
    let steps = layout.steps;
    let pairs = layout.purpose.cols.div_ceil(2);
    let lanes = panel_lanes::<S>();
    let (start, end) = (piece.columns.start / 2, piece.columns.end.div_ceil(2));
    for (number, panel) in panels.chunks(pairs * steps * lanes).enumerate() {
        let width = panel.len() / pairs;
        let panel = Panel {
            values: &panel[start * width..end * width],
            steps,
            first: number * lanes,
            count: layout.count,
        };
        match (S::REGISTERS >= 32, width / steps / S::LANES) {
            (true, 1) => all_rows::<S, T, 8, 1>(s, piece, &panel, out),
            (true, 2) => all_rows::<S, T, 8, 2>(s, piece, &panel, out),
            (true, _) => all_rows::<S, T, 8, 3>(s, piece, &panel, out),
            (false, 1) => all_rows::<S, T, 4, 1>(s, piece, &panel, out),
            (false, _) => all_rows::<S, T, 4, 2>(s, piece, &panel, out),
        }
    }
}

/// A panel of inputs, cut to some columns.
struct Panel<'a> {
    values: &'a [f32],
    steps: usize,
    /// The input in the first lane.
    first: usize,
    /// All the inputs there are.
    count: usize,
}

/// Goes over the rows, `R` at a time, with a panel of `C` registers.
#[inline(always)]
fn all_rows<S: Simd, T: Row<S>, const R: usize, const C: usize>(
    s: S,
    piece: &Piece<'_, T>,
    panel: &Panel<'_>,
    out: &mut [f32],
) {
    let columns = piece.columns.len();
    for first in (0..piece.rows).step_by(R) {
        // Where there are not so many left the last is repeated, and what comes of the repetitions is left out.
        let mut rows = [&[][..]; R];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &piece.elements[(first + r).min(piece.rows - 1) * piece.stride..][..columns];
        }
        let mut sums = [[s.splat(0.0); C]; R];
        multiply_lanes::<S, T, R, C>(s, rows, panel.values, panel.steps, &mut sums);
        if T::PAIRS && !columns.is_multiple_of(2) {
            multiply_last::<S, T, R, C>(s, rows, panel, &mut sums);
        }
        let tile = store_tile(s, sums);
        for (out, tile) in out[first * panel.count..].chunks_exact_mut(panel.count).zip(&tile) {
            put(s, &mut out[panel.first..], tile, piece.columns.start > 0);
        }
    }
}

/// The last column, if there is an odd number of them and pairs are multiplied.
#[inline(always)]
fn multiply_last<S: Simd, T: Row<S>, const R: usize, const C: usize>(
    s: S,
    rows: [&[T]; R],
    panel: &Panel<'_>,
    sums: &mut [[S::F32; C]; R],
) {
    let mut last = [[T::zeroed(); 2]; R];
    let mut pairs = [&[][..]; R];
    for ((last, row), pair) in last.iter_mut().zip(rows).zip(&mut pairs) {
        last[0] = row[row.len() - 1];
        *pair = &last[..];
    }
    let values = &panel.values[panel.values.len() - panel.steps * C * S::LANES..];
    multiply_lanes::<S, T, R, C>(s, pairs, values, panel.steps, sums);
}

/// Writes a row's sums, or adds them to what earlier columns gave; `out` may end before the lanes do.
#[inline(always)]
fn put<S: Simd, const C: usize>(s: S, out: &mut [f32], sums: &[[f32; MAX_LANES]; C], add: bool) {
    for (out, sums) in out.chunks_mut(S::LANES).zip(sums) {
        if out.len() == S::LANES {
            let sum = s.load(sums);
            s.store(if add { s.add(s.load(out), sum) } else { sum }, out);
        } else {
            for (out, &sum) in out.iter_mut().zip(sums) {
                *out = if add { *out + sum } else { sum };
            }
        }
    }
}
