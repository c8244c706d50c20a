//! What a calibration will take, before it is begun.

use super::{LONGEST_DOCUMENT, Settings, keys, keys::Documents};
use crate::{block::Products, error::Result, model::Model, sequence::kv_bytes};
use a2ats_kernel::{Dtype, clustering::Clusterer, linear::Method};
use serde::Serialize;
use std::time::Instant;

/// Passes over all pairs of points and centroids that a clustering takes, about: one and a half to choose the first
/// centroids, and iterations over fewer and fewer that still move.
const PASSES: f64 = 5.0;

/// Tokens that weights are multiplied with for a measurement.
const TOKENS: usize = 128;

/// Time, disk and memory.
#[derive(Debug, Clone, Serialize)]
pub struct Estimate {
    /// Tokens to be read.
    pub tokens: usize,
    /// Seconds for the text to go through the model, without attention.
    pub reading_seconds: f64,
    /// Seconds for k-means of all heads.
    pub clustering_seconds: f64,
    /// Bytes of the folder that is kept until the output is whole.
    pub disk_bytes: u64,
    /// Bytes of the output.
    pub output_bytes: u64,
    /// Bytes of memory, the mapped weights left out.
    pub memory_bytes: u64,
}

/// Reckons what a calibration with `clusterer` will take on the threads it is called on, by what a small part of the work takes.
///
/// # Errors
/// As the kernels and the clusterer.
pub fn estimate(
    model: &Model,
    documents: &[Vec<u32>],
    settings: &Settings,
    clusterer: &dyn Clusterer,
) -> Result<Estimate> {
    let spec = &model.spec;
    let (d, kv_heads) = (spec.head_dim, spec.num_key_value_heads);
    let documents = Documents::new(documents);
    let heads = settings.layers.len() * kv_heads;
    let tokens = documents.tokens();
    let codebook = (settings.codewords * d + d * d) * size_of::<f32>();
    let kept = documents.kept();
    let pairs = kept as f64 * settings.codewords as f64 * heads as f64;
    let of_heads = clusterer.at_a_time().min(heads) * 3 * kept * d * size_of::<f32>();
    let sums = 2 * heads * d * d * size_of::<f64>();
    Ok(Estimate {
        tokens,
        reading_seconds: seconds_per_token(model)? * tokens as f64,
        clustering_seconds: clusterer.seconds_per_pair(d)? * pairs * PASSES,
        disk_bytes: keys::bytes(heads, tokens, d) + (heads * codebook) as u64,
        output_bytes: (heads * codebook) as u64,
        memory_bytes: (kv_bytes(spec, Dtype::Bf16, LONGEST_DOCUMENT.min(tokens)) as u64)
            + (of_heads + sums) as u64,
    })
}

/// By layer 0's MLP: the other layers and the projections in proportion to their weights.
fn seconds_per_token(model: &Model) -> Result<f64> {
    let spec = &model.spec;
    let x = vec![0.5; TOKENS * spec.hidden_size];
    let start = Instant::now();
    model.blocks[0].gated(model.context(), &mut Products::default(), Method::Many, &x)?;
    let seconds = start.elapsed().as_secs_f64();
    let measured = 2 * spec.hidden_size * spec.intermediate_size;
    let heads = 2 * (spec.num_attention_heads + spec.num_key_value_heads) * spec.head_dim;
    let of_layer = spec.hidden_size * (3 * spec.intermediate_size + heads);
    Ok(seconds / TOKENS as f64 * (of_layer * spec.num_hidden_layers) as f64 / measured as f64)
}
