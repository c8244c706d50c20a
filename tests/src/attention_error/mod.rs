//! How far sparse attention is from dense attention, by what it reads: on the demo model's own projections, layer by layer.
//!
//! A ledger goes through the model densely, and its queries, keys and values are kept. Its last tokens are then decoded from
//! those, once for each way of attending, so that every layer and every way has the same inputs. The error is the length of the
//! difference of a layer's attention outputs, all heads and tokens together, over that of the dense ones.

mod plot;
mod projections;
mod table;

pub use plot::draw;
pub use projections::Projections;
pub use table::write_table;

use a2ats_kernel::{
    Codebook, Dtype, Kernels,
    attention::{self, Partial},
    decode::{Choice, Estimate, Sparsity, StepInput, StepScratch, decode_step},
    elementwise::Rotation,
    store::Store,
};
use a2ats_model::{Codebooks, Model, Result};
use rayon::prelude::*;

/// Tokens at the end of a context that are decoded.
pub const DECODED: usize = 32;

/// A way of attending.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    /// Codewords per kv head.
    pub codewords: usize,
    /// Share of the context that each query head retrieves.
    pub retrieve: f64,
    /// How the rest is estimated.
    pub estimate: Estimate,
}

/// What came of it in one layer.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Tokens of the context.
    pub tokens: usize,
    /// The layer.
    pub layer: usize,
    /// How it was attended.
    pub way: Way,
    /// ‖sparse − dense‖ / ‖dense‖ over the layer's attention outputs.
    pub error: f64,
    /// Bytes that a step of the layer read: rows, codewords, sums.
    pub bytes: f64,
}

/// One kv head's part of a layer's figures.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    difference: f64,
    dense: f64,
    bytes: f64,
}

/// Measures one way of attending in all layers.
///
/// # Errors
/// As the kernels.
pub fn measure(model: &Model, books: &Codebooks, projections: &Projections, way: Way) -> Result<Vec<Figure>> {
    let config = model.spec();
    let sparsity = Sparsity { retrieve: way.retrieve, estimate: way.estimate, ..Sparsity::default() };
    let of_layer = |layer: usize| {
        let heads: Vec<Sum> = (0..config.num_key_value_heads)
            .into_par_iter()
            .map(|head| of_head(model, books, projections, (layer, head), sparsity))
            .collect::<Result<_>>()?;
        let all = heads.iter().fold(Sum::default(), |all, head| Sum {
            difference: all.difference + head.difference,
            dense: all.dense + head.dense,
            bytes: all.bytes + head.bytes,
        });
        let error = (all.difference / all.dense).sqrt();
        Ok(Figure { tokens: projections.tokens(), layer, way, error, bytes: all.bytes / DECODED as f64 })
    };
    (0..config.num_hidden_layers).map(of_layer).collect()
}

/// Decodes the last tokens of one kv head.
fn of_head(
    model: &Model,
    books: &Codebooks,
    projections: &Projections,
    (layer, head): (usize, usize),
    sparsity: Sparsity,
) -> Result<Sum> {
    let (kernels, d) = (model.kernels(), model.spec().head_dim);
    let (book, of_head) = (books.of_head(layer, head), projections.of_head(layer, head));
    let frequencies = model.spec().rope_frequencies();
    let relative = Rotation::new(books.relative_position(), &frequencies);
    let before = projections.tokens() - DECODED;
    let mut store = prefilled(kernels, book, of_head, before, sparsity, &frequencies)?;
    let (mut scratch, mut all) = (StepScratch::default(), Choice::default());
    let (mut of_attention, mut dense) = (attention::Scratch::default(), Partial::default());
    let scale = 1.0 / (d as f32).sqrt();
    let mut sum = Sum::default();
    for position in before..projections.tokens() {
        let here = Rotation::new(position, &frequencies);
        let (mut queries, key, value) = of_head.token(position, d);
        let (mut windowed, mut rotated_key) = (queries.clone(), key.to_vec());
        kernels.rotate(&mut queries, &here)?;
        kernels.rotate(&mut windowed, &relative)?;
        let mut averaged = Vec::new();
        if let Some(rotation) = sparsity.averaged_rotation(position + 1, &frequencies) {
            averaged = of_head.token(position, d).0;
            kernels.rotate(&mut averaged, &rotation)?;
        }
        kernels.rotate(&mut rotated_key, &here)?;
        let input = StepInput {
            queries: &queries,
            windowed_queries: &windowed,
            averaged_queries: &averaged,
            key,
            rotated_key: &rotated_key,
            value,
        };
        let (mut got, mut want) = (vec![0.0; queries.len()], vec![0.0; queries.len()]);
        let amount =
            decode_step(kernels, book, &mut store, &sparsity, &input, scale, &mut scratch, &mut got)?;
        let rows = all.choose_all(&store).attended;
        all.attend(kernels, &store, 0..rows, &queries, scale, &mut of_attention, &mut dense)?;
        dense.finish(&mut want)?;
        for (got, want) in got.iter().zip(&want) {
            sum.difference += f64::from(got - want).powi(2);
            sum.dense += f64::from(*want).powi(2);
        }
        let choice = scratch.choice();
        let estimate = if choice.leaves() { choice.estimate_bytes(&store) } else { 0 };
        let rows = amount.attended * store.layout().row_bytes();
        sum.bytes += (rows + book.table_bytes() + estimate) as f64;
    }
    Ok(sum)
}

/// What prefill leaves behind.
fn prefilled(
    kernels: &dyn Kernels,
    book: &Codebook,
    head: &projections::Head,
    tokens: usize,
    sparsity: Sparsity,
    frequencies: &[f64],
) -> Result<Store> {
    let d = book.head_dim();
    let mut store = Store::new(sparsity.layout(Dtype::Bf16, d, book.codes()), tokens + DECODED)?;
    let mut keys = head.keys[..tokens * d].to_vec();
    let mut codes = vec![0; tokens];
    kernels.encode(book, &keys, &mut codes)?;
    for (position, key) in keys.chunks_exact_mut(d).enumerate() {
        kernels.rotate(key, &Rotation::new(position, frequencies))?;
    }
    store.append(&keys, &head.values[..tokens * d], &codes)?;
    store.sort(kernels)?;
    Ok(store)
}
