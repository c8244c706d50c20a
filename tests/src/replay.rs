//! Replays a recorded run through the model and the kernels and compares every figure.

use crate::golden::{Golden, Parameters};
use crate::reader::Reader;
use crate::reference::{relative_error, to_f64};
use a2ats_kernel::{
    Dtype, Kernels,
    decode::{Estimate, Sparsity},
};
use a2ats_model::{Attention, Codebooks, Model};
use serde::Serialize;
use std::sync::Arc;

/// Storage types of a replay: figures for KV rows other than f32 are for the rows alone, codewords stay f32.
#[derive(Debug, Clone, Copy)]
pub struct Storage {
    /// Of the KV rows.
    pub kv: Dtype,
    /// Of the codewords.
    pub codewords: Dtype,
}

/// What a replay on one backend gave.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The backend.
    pub backend: String,
    /// How what is not attended was estimated.
    pub estimate: String,
    /// Storage type of the KV rows.
    pub kv_dtype: String,
    /// Storage type of the codewords.
    pub codeword_dtype: String,
    /// ‖got − want‖ / ‖want‖ over the logits of all steps.
    pub relative_logit_error: f64,
    /// The same for the dense run, which goes with the sparse one without a estimate.
    pub dense_relative_logit_error: Option<f64>,
    /// ‖got − dense‖ / ‖dense‖ over the logits of the sparse steps.
    pub relative_distance_from_dense: f64,
    /// Share of steps whose best token is the recorded one.
    pub argmax_agreement: f64,
    /// Share of keys whose code is the recorded one.
    pub code_agreement: f64,
    /// Mean share of the context that retrieval picked.
    pub union_fraction: f64,
    /// The recorded mean.
    pub expected_union_fraction: f64,
}

struct Run {
    logits: Vec<f32>,
    codes: Vec<u16>,
    union_fractions: Vec<f64>,
}

/// Replays a recorded run on one backend: sparse with an estimate of what is not attended, or sparse and dense
/// without. What is recorded of estimates is by fixed scores; others are only compared with dense attention to any purpose.
///
/// # Errors
/// If the folder's model or codebooks cannot be used.
pub fn replay(
    golden: &Golden,
    kernels: &'static dyn Kernels,
    storage: Storage,
    estimate: Estimate,
) -> a2ats_model::Result<Outcome> {
    let model = Model::open(&golden.folder, kernels)?;
    let file = golden.folder.join("codebooks_reference.safetensors");
    let books = Arc::new(Codebooks::open(&file, model.owner(), storage.codewords)?);
    let parameters = &golden.parameters;
    let Parameters { top_k: retrieve, window, sinks, .. } = *parameters;
    let sparsity = Sparsity { retrieve, window, sinks, estimate };
    let expected_logits = if estimate.is_on() { &golden.estimate_logits } else { &golden.logits };
    let sparse = run(golden, &model, &books, Attention::A2ats(sparsity), storage.kv)?;
    let dense = match estimate {
        Estimate::Fixed | Estimate::Averaged => None,
        Estimate::Off => Some(run(golden, &model, &books, Attention::Dense, storage.kv)?),
    };

    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let vocabulary = golden.logits.len() / golden.generated.len();
    let best =
        |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(id, _)| id as u32);
    let rows = sparse.logits.chunks_exact(vocabulary).zip(expected_logits.chunks_exact(vocabulary));
    let agreeing = rows.filter(|(got, want)| best(got) == best(want)).count();
    let same_codes =
        sparse.codes.iter().zip(&golden.codes).filter(|(got, want)| i64::from(**got) == **want).count();
    let expected: Vec<f64> = golden.union_fraction.iter().map(|&x| f64::from(x)).collect();
    Ok(Outcome {
        backend: kernels.name().to_owned(),
        estimate: format!("{estimate:?}").to_lowercase(),
        kv_dtype: storage.kv.to_string(),
        codeword_dtype: storage.codewords.to_string(),
        relative_distance_from_dense: relative_error(
            &to_f64(&sparse.logits[vocabulary..]),
            &to_f64(&golden.dense_logits[vocabulary..]),
        ),
        relative_logit_error: relative_error(&to_f64(&sparse.logits), &to_f64(expected_logits)),
        dense_relative_logit_error: dense
            .map(|dense| relative_error(&to_f64(&dense.logits), &to_f64(&golden.dense_logits))),
        argmax_agreement: agreeing as f64 / golden.generated.len() as f64,
        code_agreement: same_codes as f64 / golden.codes.len().max(sparse.codes.len()) as f64,
        union_fraction: mean(&sparse.union_fractions),
        expected_union_fraction: mean(&expected),
    })
}

fn run(
    golden: &Golden,
    model: &Model,
    books: &Arc<Codebooks>,
    attention: Attention,
    kv: Dtype,
) -> a2ats_model::Result<Run> {
    let steps = golden.generated.len() - 1;
    let mut reader = Reader::new(model, Some(books), attention, kv, golden.prompt.len() + steps)?;
    let mut logits = reader.read(&golden.prompt)?;
    let mut union_fractions = Vec::new();
    for &id in &golden.generated[..steps] {
        let before = *reader.sequence().read();
        logits.extend(reader.step(id)?);
        let after = *reader.sequence().read();
        union_fractions.push((after.picked - before.picked) as f64 / (after.tokens - before.tokens) as f64);
    }
    let config = model.spec();
    let heads = (0..config.num_hidden_layers)
        .flat_map(|layer| (0..config.num_key_value_heads).map(move |head| (layer, head)));
    let codes = heads.flat_map(|(layer, head)| reader.sequence().codes(layer, head)).collect();
    Ok(Run { logits, codes, union_fractions })
}
