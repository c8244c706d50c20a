//! A linear layer: weights used where they lie, an optional bias, rows spread over threads.

use crate::{
    error::Result,
    files::safetensors::{MatrixHandle, Tensors},
    model::Model,
};
use a2ats_kernel::linear::{Inputs, Purpose, Vectors, rows_per_task};
use rayon::prelude::*;

/// y = W·x + b
#[derive(Debug)]
pub(crate) struct Linear {
    weight: MatrixHandle,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// Reads `name.weight`, `[rows, cols]`, and `name.bias` if there is to be one.
    pub(crate) fn load(
        tensors: &mut Tensors,
        name: &str,
        rows: usize,
        cols: usize,
        bias: bool,
    ) -> Result<Self> {
        let weight = tensors.matrix_handle(&format!("{name}.weight"), rows, cols)?;
        let bias = bias.then(|| tensors.vector(&format!("{name}.bias"), rows)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// Wraps a matrix that is shared with something else, like tied embeddings.
    pub(crate) fn without_bias(weight: MatrixHandle) -> Self {
        Self { weight, bias: None }
    }

    /// The weights as the checkpoint stores them.
    pub(crate) fn bytes<'m>(&self, model: &'m Model) -> &'m [u8] {
        model.tensors.matrix_bytes(&self.weight)
    }

    /// `inputs` is `[n, cols]`; gives `[n, rows]`.
    pub(crate) fn apply(&self, model: &Model, inputs: &[f32]) -> Result<Vec<f32>> {
        let rows = self.weight.rows();
        let n = inputs.len() / self.weight.cols();
        let weights = model.tensors.matrix(&self.weight);
        let vectors = Vectors::Rows(inputs);
        let mut inputs = Inputs::default();
        model.kernels.prepare(vectors, Purpose::new(&weights, n), &mut inputs)?;
        let mut products = vec![0.0; rows * n];
        let part = rows_per_task(rows, n, rayon::current_num_threads());
        products.par_chunks_mut(part * n.max(1)).enumerate().try_for_each(|(number, out)| {
            model.kernels.product(weights.row_range(number * part..(number + 1) * part), &inputs, out)
        })?;
        if n > 1 {
            products = transpose(&products, rows, n);
        }
        if let Some(bias) = &self.bias {
            for out in products.chunks_exact_mut(rows) {
                out.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
            }
        }
        Ok(products)
    }
}

/// `[rows, n]` to `[n, rows]`, in blocks of a few cache lines.
pub(crate) fn transpose(x: &[f32], rows: usize, n: usize) -> Vec<f32> {
    const BLOCK: usize = 16;
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(block, out)| {
        let first = block * BLOCK;
        for (r, row) in x.chunks_exact(n).enumerate() {
            for (t, &value) in row[first..n.min(first + BLOCK)].iter().enumerate() {
                out[t * rows + r] = value;
            }
        }
    });
    out
}
