//! Linear layers: weights used where they lie, optional biases, rows spread over threads.

use crate::{
    error::{Error, Result},
    files::safetensors::Tensors,
    weight::Weight,
};
use a2ats_kernel::{
    Dtype, Kernels,
    linear::{Inputs, Method, Precision, Purpose, Vectors, rows_per_task},
};
use rayon::prelude::*;

/// y = W·x + b
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// Reads `name.weight`, `[rows, cols]`, and `name.bias` if there is to be one.
    pub(crate) fn load(tensors: &Tensors, name: &str, rows: usize, cols: usize, bias: bool) -> Result<Self> {
        let weight = Weight::load(tensors, &format!("{name}.weight"), rows, cols)?;
        let bias = bias.then(|| tensors.vector(&format!("{name}.bias"), rows)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// Wraps a matrix that is shared with something else, like tied embeddings.
    pub(crate) const fn without_bias(weight: Weight) -> Self {
        Self { weight, bias: None }
    }

    /// Output size.
    pub(crate) const fn rows(&self) -> usize {
        self.weight.rows()
    }

    /// The products of some rows, from `first` on: `[rows, n]`.
    fn multiply(&self, kernels: &dyn Kernels, packed: &Packed, first: usize, out: &mut [f32]) -> Result<()> {
        let matrix = self.weight.matrix();
        let inputs = packed.of(matrix.elements().dtype());
        let rows = out.len() / inputs.count();
        kernels.product(matrix.row_range(first..first + rows), inputs, out)?;
        if let Some(bias) = &self.bias {
            for (out, bias) in out.chunks_exact_mut(inputs.count()).zip(&bias[first..]) {
                out.iter_mut().for_each(|x| *x += bias);
            }
        }
        Ok(())
    }

    /// The weights' rows that a task is given.
    fn rows_per_task(&self, packed: &Packed) -> usize {
        rows_per_task(self.rows(), packed.count, rayon::current_num_threads())
    }
}

/// The products of layers that have their inputs in common, `[rows, n]` each: one parallel region.
pub(crate) fn multiply<const N: usize>(
    kernels: &dyn Kernels,
    packed: &Packed,
    layers: [(&Linear, &mut [f32]); N],
) -> Result<()> {
    layers.into_par_iter().try_for_each(|(layer, out)| {
        let part = layer.rows_per_task(packed);
        out.par_chunks_mut(part * packed.count)
            .enumerate()
            .try_for_each(|(number, out)| layer.multiply(kernels, packed, number * part, out))
    })
}

/// SiLU(gate·x) · (up·x) in the memory of the gate's products, `[rows, n]`: one parallel region.
pub(crate) fn multiply_gated(
    kernels: &dyn Kernels,
    packed: &Packed,
    (gate, gates): (&Linear, &mut [f32]),
    (up, ups): (&Linear, &mut [f32]),
) -> Result<()> {
    let part = gate.rows_per_task(packed);
    let tasks = gates.par_chunks_mut(part * packed.count).zip(ups.par_chunks_mut(part * packed.count));
    tasks.enumerate().try_for_each(|(number, (gates, ups))| {
        gate.multiply(kernels, packed, number * part, gates)?;
        up.multiply(kernels, packed, number * part, ups)?;
        Ok(kernels.silu_mul(gates, ups)?)
    })
}

/// Inputs that layers have in common, packed once for each storage type among their weights.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    count: usize,
    /// By storage type: f32, f16, bf16.
    inputs: [Inputs; 3],
}

impl Packed {
    fn of(&self, dtype: Dtype) -> &Inputs {
        &self.inputs[place(dtype)]
    }

    /// Packs vectors, `[n, cols]`, part by part on all threads. `make` first completes the vectors of a part, which begins with
    /// the given one.
    pub(crate) fn pack_rows(
        &mut self,
        kernels: &dyn Kernels,
        layers: &[&Linear],
        method: Method,
        vectors: &mut [f32],
        make: impl Fn(usize, &mut [f32]) -> Result<()> + Sync,
    ) -> Result<()> {
        let cols = layers[0].weight.cols();
        self.count = vectors.len() / cols;
        for (number, dtype) in dtypes(layers).enumerate() {
            let inputs = &mut self.inputs[place(dtype)];
            let layout = kernels.lay_out(self.count, purpose(dtype, cols, method), inputs)?;
            let of_part = layout.part_vectors();
            let parts = inputs.values_mut().par_chunks_mut(layout.part_len());
            parts.zip(vectors.par_chunks_mut(of_part * cols)).enumerate().try_for_each(
                |(part, (values, vectors))| {
                    if number == 0 {
                        make(part * of_part, vectors)?;
                    }
                    Ok::<_, Error>(kernels.pack(&layout, part, Vectors::Rows(vectors), values)?)
                },
            )?;
        }
        Ok(())
    }

    /// Packs the columns of `values`, `[cols, n]`, as products leave them.
    pub(crate) fn pack_columns(
        &mut self,
        kernels: &dyn Kernels,
        layer: &Linear,
        method: Method,
        values: &[f32],
    ) -> Result<()> {
        let (cols, dtype) = (layer.weight.cols(), layer.weight.dtype());
        self.count = values.len() / cols;
        let inputs = &mut self.inputs[place(dtype)];
        let layout = kernels.lay_out(self.count, purpose(dtype, cols, method), inputs)?;
        let (stride, of_part) = (self.count, layout.part_vectors());
        inputs.values_mut().par_chunks_mut(layout.part_len()).enumerate().try_for_each(|(part, to)| {
            let first = part * of_part;
            let count = of_part.min(stride - first);
            Ok(kernels.pack(&layout, part, Vectors::Columns { values, stride, first, count }, to)?)
        })
    }
}

const fn purpose(dtype: Dtype, cols: usize, method: Method) -> Purpose {
    Purpose { dtype, cols, precision: Precision::Full, method }
}

/// The storage types among the weights of some layers, each once.
fn dtypes(layers: &[&Linear]) -> impl Iterator<Item = Dtype> {
    [Dtype::F32, Dtype::F16, Dtype::Bf16]
        .into_iter()
        .filter(|&dtype| layers.iter().any(|layer| layer.weight.dtype() == dtype))
}

const fn place(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Bf16 => 2,
    }
}

/// `[rows, n]` to `[n, rows]`, in blocks of a few cache lines.
pub(crate) fn transpose(x: &[f32], rows: usize, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    transpose_into(x, rows, n, &mut out, |to, x| *to = x);
    out
}

/// Takes `[rows, n]` into `[n, rows]`.
pub(crate) fn transpose_into(
    x: &[f32],
    rows: usize,
    n: usize,
    out: &mut [f32],
    take: impl Fn(&mut f32, f32) + Sync,
) {
    const BLOCK: usize = 16;
    out.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(block, out)| {
        let first = block * BLOCK;
        for (r, row) in x.chunks_exact(n).enumerate() {
            for (t, &value) in row[first..n.min(first + BLOCK)].iter().enumerate() {
                take(&mut out[t * rows + r], value);
            }
        }
    });
}
