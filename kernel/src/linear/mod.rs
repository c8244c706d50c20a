//! Products of weight matrices, used where they lie (an mmapped file), with one or many input vectors.
//!
//! `out[r][t] = Σ_c weights[r][c] · inputs[t][c]`: matrix-vector for one input, matrix-matrix for many.
//!
//! | what | shape | dtype |
//! |---|---|---|
//! | weights, as Hugging Face stores a Linear | `[rows, cols]`, any sizes | f32, f16, bf16 |
//! | inputs, prepared once for all the weights that go over them | `[n, cols]` | f32 |
//! | output | `[rows, n]`: so that work splits over rows into contiguous parts | f32 |
//!
//! Sums are f32, in an order that depends on the backend, on `cols` and on the [`Method`], and on nothing else: an input's products
//! are the same alone and among others.
//! Relative error below 1e-6·√cols of Σ|w·x|; the BF16 instructions see inputs as [`Precision`] says.
//!
//! With few inputs every weight is read once, which is the whole cost, and each tile of rows goes over tiles of up to eight of them
//! (four on some backends). With many, a lane is an input and weights are taken one by one (`microkernel/broadcast.rs`). Callers
//! spread a product over threads by ranges of [`rows_per_task`] rows ([`Matrix::row_range`]); no number depends on how many,
//! as long as they are a multiple of 64.

mod few;
mod inputs;
mod many;
mod vectors;

pub use crate::precision::Precision;
use inputs::backend_for;
pub use inputs::{Inputs, Layout, Method, Purpose};
pub(crate) use inputs::{lay_out, pack_all, pack_part};
pub use vectors::Vectors;

use crate::{
    dtype::Elements,
    error::{Error, Result, expect_len},
    simd::{Element, Simd, Stored},
};
use std::ops::Range;

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

/// How many weight rows a task is best given, of a product of `rows` rows and `inputs` vectors on `threads` threads.
///
/// Few inputs: 64 rows of 4096 bf16 weights are half a MiB, long enough to stream. Many: each range reads all the inputs
/// once, so that longer ones do better (1.1 times with 256 rows instead of 64 on Granite Rapids, more gains
/// nothing), as long as every thread has a few of them.
pub fn rows_per_task(rows: usize, inputs: usize, threads: usize) -> usize {
    const FEW_INPUTS: usize = 64;
    const SHORT: usize = 64;
    const LONG: usize = 256;
    const TASKS_PER_THREAD: usize = 4;
    if inputs <= FEW_INPUTS {
        return SHORT;
    }
    let even = rows / TASKS_PER_THREAD.saturating_mul(threads.max(1));
    even.next_multiple_of(SHORT).clamp(SHORT, LONG)
}

pub(crate) fn check_product<S: Simd>(weights: &Matrix<'_>, inputs: &Inputs, out: &[f32]) -> Result<()> {
    let dtype = weights.elements.dtype();
    let (made_for, by, cols) =
        inputs.layout().map_or((dtype, "", 0), |of| (of.purpose.dtype, of.backend, of.purpose.cols));
    if (by, made_for) != (backend_for::<S>(dtype), dtype) {
        return Err(Error::Unsupported {
            what: "prepared inputs",
            got: format!("made by {by:?} for {made_for} weights"),
            supported: "inputs made by the same backend for the weights' storage type",
        });
    }
    expect_len("inputs' dimension", cols, weights.cols)?;
    expect_len("output", out.len(), weights.rows * inputs.count())
}

/// See the module's docs; `out` is `[rows, n]`.
#[inline(always)]
pub(crate) fn product<S: Simd>(s: S, weights: Matrix<'_>, inputs: &Inputs, out: &mut [f32]) {
    if weights.cols == 0 {
        out.fill(0.0);
        return;
    }
    if inputs.count() == 0 || weights.rows == 0 {
        return;
    }
    match weights.elements {
        Elements::F32(elements) => product_typed(s.plain(), elements, inputs, out),
        Elements::F16(elements) => product_typed(s.plain(), elements, inputs, out),
        elements @ Elements::Bf16(_) => product_typed(s, S::Bf16::of(elements), inputs, out),
    }
}

#[inline(never)]
fn product_typed<S: Simd, T: Element<S>>(s: S, elements: &[T], inputs: &Inputs, out: &mut [f32]) {
    s.vectorize(
        #[inline(always)]
        || match inputs.layout() {
            Some(layout) if layout.purpose.method == Method::Few => {
                few::product(s, elements, inputs, layout, out);
            }
            Some(layout) => many::product(s, elements, inputs, layout, out),
            None => {}
        },
    );
}
