//! One transformer block, as the papers write it: normalize, attend, add; normalize, gate, add.

use crate::{
    attention::{Context, Prefill, Steps},
    error::Result,
    files::safetensors::Tensors,
    linear::{Linear, Packed, multiply, multiply_gated, transpose_into},
    observer::Observer,
    sequence::Sequence,
    spec::Spec,
};
use a2ats_kernel::linear::Method;

/// Tokens that go through the products at once: each weight is used so many times when it is in the cache, and packed inputs stay in
/// the second cache.
pub(crate) const PIECE: usize = 128;

/// The weights of one block.
#[derive(Debug)]
pub(crate) struct Block {
    input_norm: Vec<f32>,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    post_attention_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// Working memory of the products, `[cols or rows, n]` of a piece.
#[derive(Debug, Default)]
pub(crate) struct Products {
    pub(crate) packed: Packed,
    normalized: Vec<f32>,
    attended: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    pub(crate) out: Vec<f32>,
}

impl Block {
    /// Reads the weights of block `number`.
    pub(crate) fn load(tensors: &Tensors, spec: &Spec, number: usize) -> Result<Self> {
        let (hidden, inner) = (spec.hidden_size, spec.intermediate_size);
        let queries = spec.num_attention_heads * spec.head_dim;
        let keys = spec.num_key_value_heads * spec.head_dim;
        let name = |part: &str| format!("model.layers.{number}.{part}");
        Ok(Self {
            input_norm: tensors.vector(&name("input_layernorm.weight"), hidden)?,
            query: Linear::load(tensors, &name("self_attn.q_proj"), queries, hidden, spec.attention_bias)?,
            key: Linear::load(tensors, &name("self_attn.k_proj"), keys, hidden, spec.attention_bias)?,
            value: Linear::load(tensors, &name("self_attn.v_proj"), keys, hidden, spec.attention_bias)?,
            output: Linear::load(tensors, &name("self_attn.o_proj"), hidden, queries, spec.attention_bias)?,
            post_attention_norm: tensors.vector(&name("post_attention_layernorm.weight"), hidden)?,
            gate: Linear::load(tensors, &name("mlp.gate_proj"), inner, hidden, spec.mlp_bias)?,
            up: Linear::load(tensors, &name("mlp.up_proj"), inner, hidden, spec.mlp_bias)?,
            down: Linear::load(tensors, &name("mlp.down_proj"), hidden, inner, spec.mlp_bias)?,
        })
    }

    /// Sequences that take one token each; `x` is `[n, hidden]`. Five parallel regions: q, k and v; attention; its output; gate and up;
    /// down.
    pub(crate) fn step(
        &self,
        context: Context<'_>,
        layer: usize,
        sequences: &mut [Sequence],
        (steps, products): (&mut Steps, &mut Products),
        x: &mut [f32],
    ) -> Result<()> {
        let method = Method::Few;
        self.project(context, products, method, x)?;
        let Products { queries, keys, values, .. } = products;
        steps.attend(context, layer, sequences, [queries, keys, values])?;
        steps.count(sequences);
        let output = |first: usize, to: &mut [f32]| {
            for (number, to) in to.chunks_exact_mut(self.attended_width(context)).enumerate() {
                steps.output(first + number, to);
            }
        };
        self.add_output(context, products, method, x, output)?;
        self.add_mlp(context, products, method, x)
    }

    /// A sequence that reads several tokens, which lie in `x`, `[n, hidden]`.
    pub(crate) fn read(
        &self,
        context: Context<'_>,
        layer: usize,
        (sequence, observer): (&mut Sequence, Option<&dyn Observer>),
        (prefill, products): (&mut Prefill, &mut Products),
        x: &mut [f32],
    ) -> Result<()> {
        let hidden = context.spec.hidden_size;
        let pieces = PIECE * hidden;
        for (number, x) in x.chunks_mut(pieces).enumerate() {
            let n = x.len() / hidden;
            self.project(context, products, Method::for_inputs(n), x)?;
            let Products { queries, keys, values, .. } = &*products;
            prefill.take(context, number * PIECE, n, [queries, keys, values])?;
        }
        prefill.attend(context, layer, sequence, observer)?;
        for (number, x) in x.chunks_mut(pieces).enumerate() {
            let method = Method::for_inputs(x.len() / hidden);
            let output = |first: usize, to: &mut [f32]| prefill.output(context, number * PIECE + first, to);
            self.add_output(context, products, method, x, output)?;
            self.add_mlp(context, products, method, x)?;
        }
        Ok(())
    }

    /// Numbers of what a token attended to.
    fn attended_width(&self, context: Context<'_>) -> usize {
        context.spec.num_attention_heads * context.spec.head_dim
    }

    /// Query, key and value projections of normalized tokens.
    fn project(
        &self,
        context: Context<'_>,
        products: &mut Products,
        method: Method,
        x: &mut [f32],
    ) -> Result<()> {
        let n = x.len() / context.spec.hidden_size;
        let Products { packed, normalized, queries, keys, values, .. } = products;
        let layers = [&self.query, &self.key, &self.value];
        normalize(context, packed, &layers, method, (normalized, x), &self.input_norm)?;
        let [query, key, value] = layers;
        let layers = [(query, queries), (key, keys), (value, values)];
        multiply(context.kernels, packed, layers.map(|(layer, to)| (layer, sized(to, layer.rows() * n))))
    }

    /// x ← x + W_o·attended, for what `output` gives of tokens from some number on.
    fn add_output(
        &self,
        context: Context<'_>,
        products: &mut Products,
        method: Method,
        x: &mut [f32],
        output: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<()> {
        let n = x.len() / context.spec.hidden_size;
        let Products { packed, attended, out, .. } = products;
        let attended = sized(attended, n * self.attended_width(context));
        packed.pack_rows(context.kernels, &[&self.output], method, attended, |first, to| {
            output(first, to);
            Ok(())
        })?;
        add_product(context, &self.output, packed, out, x)
    }

    /// SiLU(gate) · up of normalized tokens, in the working memory of the gate.
    pub(crate) fn gated(
        &self,
        context: Context<'_>,
        products: &mut Products,
        method: Method,
        x: &[f32],
    ) -> Result<()> {
        let Products { packed, normalized, gate, up, .. } = products;
        let (layers, norm) = ([&self.gate, &self.up], &self.post_attention_norm);
        normalize(context, packed, &layers, method, (normalized, x), norm)?;
        let rows = self.gate.rows() * (x.len() / context.spec.hidden_size);
        let (gate, up) = (sized(gate, rows), sized(up, rows));
        multiply_gated(context.kernels, packed, (&self.gate, gate), (&self.up, up))
    }

    /// x ← x + mlp(norm(x))
    fn add_mlp(
        &self,
        context: Context<'_>,
        products: &mut Products,
        method: Method,
        x: &mut [f32],
    ) -> Result<()> {
        let n = x.len() / context.spec.hidden_size;
        self.gated(context, products, method, x)?;
        let Products { packed, gate, out, .. } = products;
        let gate = &gate[..self.gate.rows() * n];
        packed.pack_columns(context.kernels, &self.down, method, gate)?;
        add_product(context, &self.down, packed, out, x)
    }
}

/// Packs the normalized tokens `x`, `[n, hidden]`, for some layers.
fn normalize(
    context: Context<'_>,
    packed: &mut Packed,
    layers: &[&Linear],
    method: Method,
    (normalized, x): (&mut Vec<f32>, &[f32]),
    norm: &[f32],
) -> Result<()> {
    let hidden = context.spec.hidden_size;
    packed.pack_rows(context.kernels, layers, method, sized(normalized, x.len()), |first, normalized| {
        normalized.copy_from_slice(&x[first * hidden..][..normalized.len()]);
        Ok(context.kernels.rms_norm(normalized, norm, context.spec.rms_norm_eps as f32)?)
    })
}

/// x ← x + W·inputs, for x of `[n, hidden]`; products come as `[hidden, n]`.
fn add_product(
    context: Context<'_>,
    layer: &Linear,
    packed: &Packed,
    out: &mut Vec<f32>,
    x: &mut [f32],
) -> Result<()> {
    let out = sized(out, x.len());
    multiply(context.kernels, packed, [(layer, &mut *out)])?;
    transpose_into(out, layer.rows(), x.len() / layer.rows(), x, |x, y| *x += y);
    Ok(())
}

/// As many numbers of some working memory, which grows if it must.
pub(crate) fn sized(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    &mut memory[..len]
}
