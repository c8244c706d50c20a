//! Products of weight matrices, used where they lie (an mmapped file), with one or many input vectors.
//!
//! `out[r][t] = Σ_c weights[r][c] · inputs[t][c]`: matrix-vector for one input, matrix-matrix for many.
//!
//! | what | shape | dtype |
//! |---|---|---|
//! | weights, as Hugging Face stores a Linear | `[rows, cols]`, any sizes | f32, f16, bf16 |
//! | inputs | `[n, cols]` | f32 |
//! | output | `[rows, n]`: so that work splits over rows into contiguous parts | f32 |
//!
//! Sums are f32, in an order that depends on the backend, on `cols` and on whether there are more than five inputs. Relative error below 1e-6·√cols of
//! Σ|w·x|; the BF16 instructions see inputs as the sum of two bf16 numbers (16 significant bits).
//!
//! One input reads every weight once, which is its whole cost. For many, inputs are cut into pieces of
//! 1024 columns × 5 vectors that stay in L1 while a panel of weight rows goes by from L2: callers get
//! the most out of it with panels ([`Matrix::row_range`]) of 32 to 128 rows.

use crate::{
    dots::{MAX_TILE_QUERIES, Products, RowSet, dots, operand_len, prepare_query, query_tiles},
    dtype::{Element, Elements},
    error::{Result, expect_len},
    simd::Simd,
};
use std::ops::Range;

/// Columns of a piece when there are many inputs: 5 vectors of them are 20 KiB.
const COLUMNS: usize = 1024;

/// A borrowed weight matrix, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    elements: Elements<'a>,
    rows: usize,
    cols: usize,
}

impl<'a> Matrix<'a> {
    /// Sees `elements` as `[rows, cols]`.
    ///
    /// # Errors
    /// If there are more or fewer elements than that.
    pub fn new(elements: Elements<'a>, rows: usize, cols: usize) -> Result<Self> {
        expect_len("matrix", elements.len(), rows.saturating_mul(cols))?;
        Ok(Self { elements, rows, cols })
    }

    /// Output size.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Input size.
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// The elements, row after row.
    pub const fn elements(&self) -> Elements<'a> {
        self.elements
    }

    /// Some of the rows as a matrix of their own; what lies outside is left out.
    pub fn row_range(&self, rows: Range<usize>) -> Self {
        let end = rows.end.min(self.rows);
        let start = rows.start.min(end);
        let elements = self.elements.range(start * self.cols..end * self.cols);
        Self { elements: elements.unwrap_or(Elements::F32(&[])), rows: end - start, cols: self.cols }
    }
}

pub(crate) fn check_product(weights: &Matrix<'_>, inputs: &[f32], out: &[f32]) -> Result<()> {
    let n = inputs.len().checked_div(weights.cols).unwrap_or(0);
    expect_len("inputs", inputs.len(), n * weights.cols)?;
    expect_len("output", out.len(), weights.rows * n)
}

/// See the module's docs. `inputs` is `[n, cols]`, `out` is `[rows, n]`.
#[inline(always)]
pub(crate) fn product<S: Simd>(s: S, weights: Matrix<'_>, inputs: &[f32], out: &mut [f32]) {
    match weights.elements {
        Elements::F32(elements) => product_typed(s, elements, weights, inputs, out),
        Elements::F16(elements) => product_typed(s, elements, weights, inputs, out),
        Elements::Bf16(elements) => product_typed(s, elements, weights, inputs, out),
    }
}

#[inline(always)]
fn product_typed<S: Simd, T: Element>(
    s: S,
    elements: &[T],
    weights: Matrix<'_>,
    inputs: &[f32],
    out: &mut [f32],
) {
    let cols = weights.cols;
    if inputs.is_empty() || weights.rows == 0 {
        return;
    }
    let rows = RowSet { elements, stride: cols, positions: None };
    let n = inputs.len() / cols;
    // Few inputs fit the cache whole, and one pass along each weight row is what memory likes best.
    let piece = if n <= MAX_TILE_QUERIES { cols } else { COLUMNS.min(cols) };
    let mut operands = vec![0.0; MAX_TILE_QUERIES.min(n) * operand_len::<S>(piece)];
    for start in (0..cols).step_by(piece) {
        let len = piece.min(cols - start);
        let stride = operand_len::<S>(len);
        for (first, tile) in query_tiles(n) {
            for (t, operand) in operands.chunks_exact_mut(stride).take(tile).enumerate() {
                let input = &inputs[(first + t) * cols + start..][..len];
                prepare_query::<S, T>(s, input, 1.0, operand);
            }
            let values = &mut out[first..];
            let products = Products { values, per_row: n, per_query: 1, accumulate: start > 0 };
            dots(s, &rows, 0..weights.rows, start..start + len, &operands, tile, false, products);
        }
    }
}
