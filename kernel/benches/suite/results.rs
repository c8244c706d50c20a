//! What a run leaves: the machine's rooflines and one measurement per operation, backend, shape and thread count.

use serde::Serialize;

/// A whole run, as `--json` writes it.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub machine: Machine,
    pub results: Vec<Measurement>,
}

/// The walls that operations are held against, measured in the same process.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cpu: String,
    /// How many threads "all threads" means.
    pub threads: usize,
    /// Bytes per second of a streaming read over more memory than any cache holds, on one thread.
    pub read_bandwidth_1: f64,
    /// The same on all threads.
    pub read_bandwidth_all: f64,
    /// Bytes per second of reading rows of 512 bytes at pseudo-random places, without any arithmetic, on one thread:
    /// what selective attention could reach at most.
    pub gather_bandwidth_1: f64,
    /// The same on all threads.
    pub gather_bandwidth_all: f64,
    pub peaks: Vec<Peak>,
}

/// How fast a multiply-add instruction runs when nothing else is in the way.
#[derive(Debug, Clone, Serialize)]
pub struct Peak {
    /// The backend that is built on it.
    pub backend: String,
    pub instruction: String,
    pub flops_per_second_1: f64,
    pub flops_per_second_all: f64,
}

/// One timed operation.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// `dense_decode`, `selective`, `codeword_scores`, `retrieve`, `decode_step_a2ats`, `decode_step_dense`, `matvec`,
    /// `matmul`, `prefill_attention`, …
    pub operation: String,
    pub backend: String,
    pub threads: usize,
    pub shape: Shape,
    /// The best of several samples, per run of the operation.
    pub seconds: f64,
    /// The median sample: how far it is from the best tells how noisy the machine was.
    pub median_seconds: f64,
    /// For what memory bounds: bytes that have to be read, over `seconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<f64>,
    /// For what arithmetic bounds: two per multiply-add of the operation's definition, over `seconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flops_per_second: Option<f64>,
    /// `bytes_per_second` over the read bandwidth, or `flops_per_second` over the peak, for as many threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roofline_ratio: Option<f64>,
    /// Of an a2ats step: the seconds of its parts, each measured alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
}

/// The parts of a decode step.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Parts {
    pub score: f64,
    pub retrieve: f64,
    pub attend: f64,
}

/// What an operation ran on; only what applies is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Shape {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<&'static str>,
    /// Length of the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Rows attended per kv head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attended: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codewords: Option<usize>,
    /// Output size of a product of weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    /// Input size of a product of weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cols: Option<usize>,
    /// Vectors that go through a product, or query positions of prefill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<usize>,
    /// Whether bf16 instructions see inputs in full, as two bf16 numbers, or rounded to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<&'static str>,
}
