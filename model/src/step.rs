//! What passes between the layers of a step: working memory, and the count of what was read.

use crate::error::Result;
use a2ats_kernel::{
    Dtype,
    decode::{Choice, StepScratch},
    kv::KvRows,
    tail::ValueSums,
};

/// Working memory of one pass, a part per kv head, shared by all layers.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) heads: Vec<StepScratch>,
    /// Rows of the tokens that prefill is reading, not rounded to the cache's storage type.
    pub(crate) exact_rows: Vec<KvRows>,
}

impl Scratch {
    pub(crate) fn new(kv_heads: usize, head_dim: usize) -> Result<Self> {
        let exact_rows =
            (0..kv_heads).map(|_| KvRows::new(Dtype::F32, head_dim, 0)).collect::<Result<_, _>>()?;
        Ok(Self { heads: vec![StepScratch::default(); kv_heads], exact_rows })
    }
}

/// What decode steps read, summed over steps, layers and kv heads.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReadCount {
    /// Tokens that could have been attended.
    pub tokens: u64,
    /// Tokens that were attended: sinks, window and retrieved ones.
    pub attended: u64,
    /// Tokens that retrieval picked.
    pub picked: u64,
    /// Bytes of KV rows that were read.
    pub row_bytes: u64,
    /// Bytes of codewords that were read.
    pub codeword_bytes: u64,
    /// Bytes of sums of values that were read.
    pub tail_bytes: u64,
    /// Codes whose sums were read.
    pub tail_codes: u64,
    /// Codes that sums were kept of: all, once there is room for all, also those without tokens.
    pub tail_codes_held: u64,
    /// Bytes of KV rows that dense attention would have read.
    pub dense_bytes: u64,
}

impl ReadCount {
    /// Counts one kv head's step.
    pub(crate) fn add(&mut self, choice: &Choice, row_bytes: usize, codeword_bytes: usize) {
        self.tokens += choice.tokens as u64;
        self.attended += choice.attended as u64;
        self.picked += choice.picked as u64;
        self.row_bytes += (choice.attended * row_bytes) as u64;
        self.codeword_bytes += codeword_bytes as u64;
        self.dense_bytes += (choice.tokens * row_bytes) as u64;
    }

    /// Counts one kv head's estimate of what is not attended, from `codes` of the sums.
    pub(crate) fn add_tail(&mut self, codes: usize, sums: &ValueSums) {
        self.tail_bytes += (codes * sums.slot_bytes()) as u64;
        self.tail_codes += codes as u64;
        self.tail_codes_held += sums.codes().len() as u64;
    }

    /// Counts what another part of the work read.
    pub(crate) fn absorb(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.attended += other.attended;
        self.picked += other.picked;
        self.row_bytes += other.row_bytes;
        self.codeword_bytes += other.codeword_bytes;
        self.tail_bytes += other.tail_bytes;
        self.tail_codes += other.tail_codes;
        self.tail_codes_held += other.tail_codes_held;
        self.dense_bytes += other.dense_bytes;
    }

    /// Attended tokens over all tokens; none before the first decode step.
    pub fn attended_share(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.attended as f64 / self.tokens as f64)
    }

    /// Tokens that retrieval picked over all tokens; none before the first decode step.
    pub fn picked_share(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.picked as f64 / self.tokens as f64)
    }

    /// Codes whose sums were read over those that sums were kept of; none without an estimate.
    pub fn tail_codes_share(&self) -> Option<f64> {
        (self.tail_codes_held > 0).then(|| self.tail_codes as f64 / self.tail_codes_held as f64)
    }

    /// Bytes of rows, codewords and sums that were read.
    pub const fn bytes(&self) -> u64 {
        self.row_bytes + self.codeword_bytes + self.tail_bytes
    }

    /// [`bytes`](Self::bytes) over the bytes of rows that dense attention reads; none before the first decode step.
    pub fn bytes_share(&self) -> Option<f64> {
        (self.dense_bytes > 0).then(|| self.bytes() as f64 / self.dense_bytes as f64)
    }
}
