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
    attention::{Partial, Selection},
    decode::{HeadIndex, Sparsity, StepInput, StepScratch, Tail, attend_rest, choose_rows},
    elementwise::Rotation,
    kv::KvRows,
};
use a2ats_model::{Codebooks, Llama, Result};
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
    pub tail: Tail,
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
pub fn measure(model: &Llama, books: &Codebooks, projections: &Projections, way: Way) -> Result<Vec<Figure>> {
    let config = model.config();
    let sparsity = Sparsity { retrieve: way.retrieve, tail: way.tail, ..Sparsity::default() };
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
    model: &Llama,
    books: &Codebooks,
    projections: &Projections,
    (layer, head): (usize, usize),
    sparsity: Sparsity,
) -> Result<Sum> {
    let (kernels, d) = (model.kernels(), model.config().head_dim);
    let (book, of_head) = (books.of_head(layer, head), projections.of_head(layer, head));
    let frequencies = model.config().rope_frequencies();
    let relative = Rotation::new(books.relative_position(), &frequencies);
    let before = projections.tokens() - DECODED;
    let (mut rows, mut index) = prefilled(kernels, book, of_head, before, sparsity, &frequencies)?;
    let mut scratch = StepScratch::default();
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
        let choice = choose_rows(kernels, book, &mut rows, &mut index, &input, &mut scratch)?;
        let attend = |selection: &Selection<'_>| {
            let mut out = Partial::default();
            kernels.attend(rows.rows(), selection, &queries, scale, &mut out)?;
            Ok::<_, a2ats_model::Error>(out)
        };
        let mut sparse = attend(&Selection::Positions(scratch.positions()))?;
        let codes = attend_rest(kernels, rows.rows(), &index, scale, &scratch, &mut sparse)?;
        let dense = attend(&Selection::Range(0..rows.len()))?;
        let (mut got, mut want) = (vec![0.0; queries.len()], vec![0.0; queries.len()]);
        sparse.finish(&mut got)?;
        dense.finish(&mut want)?;
        for (got, want) in got.iter().zip(&want) {
            sum.difference += f64::from(got - want).powi(2);
            sum.dense += f64::from(*want).powi(2);
        }
        let sums = index.sums().map_or(0, |sums| codes * sums.slot_bytes());
        sum.bytes += (choice.attended * rows.row_bytes() + book.table_bytes() + sums) as f64;
    }
    Ok(sum)
}

/// Rows and index as prefill leaves them.
fn prefilled(
    kernels: &dyn Kernels,
    book: &Codebook,
    head: &projections::Head,
    tokens: usize,
    sparsity: Sparsity,
    frequencies: &[f64],
) -> Result<(KvRows, HeadIndex)> {
    let d = book.head_dim();
    let mut rows = KvRows::new(Dtype::Bf16, d, tokens + DECODED)?;
    let mut index = HeadIndex::new(book.codes(), sparsity)?;
    let mut keys = head.keys[..tokens * d].to_vec();
    let mut codes = vec![0; tokens];
    kernels.encode(book, &keys, &mut codes)?;
    for (position, key) in keys.chunks_exact_mut(d).enumerate() {
        kernels.rotate(key, &Rotation::new(position, frequencies))?;
    }
    rows.append(&keys, &head.values[..tokens * d])?;
    index.append(&codes);
    Ok((rows, index))
}
