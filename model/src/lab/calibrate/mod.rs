//! Codebooks for a model: read text, record keys and queries, cluster (paper, section 3.2 and 4).
//!
//! Per layer and kv head, with k a key before rotation, q a query of the group rotated to the one fixed relative position:
//!
//! 1. H = Σ qᵀq over all queries, divided by the root mean square of its entries; L_H = cholesky(H + 1e-6·I).
//! 2. k-means of the rows k·L_H: that minimises (k − k̂)·H·(k − k̂)ᵀ, the error of attention scores.
//! 3. Codewords are the centroids brought back to key space, ĉ = c·L_H⁻¹.
//!
//! A tenth of the tokens, the last ones of each document, is kept apart and tells how good the codebooks are:
//! [`quality`].
//!
//! # What a killed run leaves
//!
//! Everything is kept in a folder beside the output until that is whole: `lock` is held by the process that works there; `plan.json` says what was asked for; `keys`
//! holds all keys of the layers asked for, in bf16, `[layers, kv_heads, tokens, head_dim]`; `reading` what was added up until
//! the last whole document; `layer-N-head-M` each finished codebook. The same command goes on from there, to the same
//! bytes. Memory is bounded whatever the number of tokens and layers: beside the model and the KV cache of one document (16384 tokens)
//! it is the keys of a head three times in f32, for as many heads as the clusterer wants at a time (the CPU's: one), and the sums.

pub mod estimate;
mod folder;
mod head;
mod heads;
mod keys;
pub mod merge;
mod moments;
#[cfg(feature = "parquet")]
mod parquet;
pub mod quality;
mod reading;
mod recorder;
pub mod text;
mod work;

use crate::{
    codebooks::{self, write::Tensor},
    error::{Error, Result},
    model::Model,
};
use a2ats_kernel::clustering::{self, Clusterer};
use quality::Quality;
use serde::{Deserialize, Serialize};
use std::{
    ops::{ControlFlow, Range},
    path::Path,
};
use work::Work;
pub use work::work_folder;

/// Tokens of a document at most (paper, section 4).
pub const LONGEST_DOCUMENT: usize = 16384;

/// How codebooks are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Codewords per kv head.
    pub codewords: usize,
    /// Where queries are rotated to.
    pub relative_position: usize,
    /// Most iterations of k-means.
    pub iterations: usize,
    /// Seed of the random numbers.
    pub seed: u64,
    /// The layers to make codebooks for.
    pub layers: Range<usize>,
}

impl Settings {
    /// The number of a kv head among those of the layers asked for.
    fn number_of(&self, kv_heads: usize, layer: usize, kv_head: usize) -> usize {
        (layer - self.layers.start) * kv_heads + kv_head
    }
}

/// How far a calibration is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// So many tokens went through the model.
    Reading {
        /// Tokens done.
        tokens: usize,
        /// Of how many.
        of: usize,
    },
    /// A step of one head's clustering; there may be several at a time.
    Clustering {
        /// Heads that are done.
        heads: usize,
        /// Of how many.
        of: usize,
        /// The step.
        step: clustering::Progress,
    },
}

/// What became of one kv head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadReport {
    /// The layer.
    pub layer: usize,
    /// The kv head.
    pub kv_head: usize,
    /// Mean squared error of the keys that were clustered, in the metric of the queries.
    pub mean_squared_error: f64,
    /// Iterations of k-means.
    pub iterations: usize,
    /// Whether k-means came to rest.
    pub converged: bool,
    /// On tokens that were kept apart.
    pub quality: Quality,
}

/// What became of all of them; kept as JSON in the codebook file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was asked for.
    pub settings: Settings,
    /// Tokens that keys and queries were taken from.
    pub tokens: usize,
    /// Tokens that were kept apart.
    pub held_out: usize,
    /// By layer, then by kv head.
    pub heads: Vec<HeadReport>,
}

/// Makes codebooks from `documents` of token ids and writes them to `out`. `keep_on` is told about every step and may break
/// off: then there is no result, and the same call goes on later.
///
/// # Errors
/// For settings and documents that cannot be used, for files that cannot be read or written, and for a model whose
/// keys or queries are not finite.
pub fn calibrate(
    model: &Model,
    documents: &[Vec<u32>],
    settings: &Settings,
    clusterer: &dyn Clusterer,
    out: &Path,
    keep_on: &mut (dyn FnMut(Progress) -> ControlFlow<()> + Send),
) -> Result<Option<Report>> {
    check(model, documents, settings)?;
    let work = Work::open(out, model, documents, settings)?;
    let Some(recorded) = reading::read(model, documents, settings, &work, keep_on)? else { return Ok(None) };
    let kv_heads = model.spec.num_key_value_heads;
    let numbers =
        settings.layers.clone().flat_map(|layer| (0..kv_heads).map(move |kv_head| (layer, kv_head)));
    let heads: Vec<_> = numbers
        .map(|(layer, kv_head)| head::Head {
            model,
            settings,
            work: &work,
            recorded: &recorded,
            layer,
            kv_head,
        })
        .collect();
    let Some(heads) = heads::finish(&heads, clusterer, keep_on)? else { return Ok(None) };
    let report = Report {
        settings: settings.clone(),
        tokens: recorded.documents.kept(),
        held_out: recorded.documents.held_out(),
        heads,
    };
    write(model, &work, &report, out)?;
    work.remove()?;
    Ok(Some(report))
}

fn check(model: &Model, documents: &[Vec<u32>], settings: &Settings) -> Result<()> {
    let layers = model.spec.num_hidden_layers;
    if settings.layers.is_empty() || settings.layers.end > layers {
        let Range { start, end } = settings.layers;
        return Err(Error::Usage(format!("layers {start}..{end}: the model has 0..{layers}")));
    }
    let most = 1 << 16;
    if !(1..=most).contains(&settings.codewords) {
        return Err(Error::Usage(format!("{} codewords: give 1 to {most}", settings.codewords)));
    }
    for document in documents {
        model.check_ids(document)?;
    }
    let tokens = keys::Documents::new(documents).kept();
    if tokens < settings.codewords {
        return Err(Error::Usage(format!(
            "the text has {tokens} tokens to make {} codewords from (a tenth is kept apart); give more text, or fewer codewords",
            settings.codewords
        )));
    }
    Ok(())
}

/// Puts the finished heads together.
fn write(model: &Model, work: &Work, report: &Report, out: &Path) -> Result<()> {
    let (d, kv_heads) = (model.spec.head_dim, model.spec.num_key_value_heads);
    let heads = |layer| (0..kv_heads).map(move |head| work.head(layer, head)).collect::<Result<Vec<_>>>();
    let layers: Vec<_> = report.settings.layers.clone().map(heads).collect::<Result<_>>()?;
    let mut tensors = Vec::new();
    for (layer, heads) in report.settings.layers.clone().zip(&layers) {
        for (name, rows) in [("codewords", report.settings.codewords), ("cholesky", d)] {
            let parts = heads.iter().map(|head| head.f32(name)).collect::<Result<Vec<_>>>()?;
            tensors.push(Tensor::f32(format!("layers.{layer}.{name}"), vec![kv_heads, rows, d], parts));
        }
    }
    let calibration = serde_json::to_string(report).map_err(|error| Error::io(out)(error.into()))?;
    let metadata = codebooks::native_metadata(model.owner(), report.settings.relative_position, calibration);
    codebooks::write::write(out, &metadata, &tensors)
}
