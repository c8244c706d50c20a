//! What decode steps read.

use a2ats_kernel::decode::Amount;

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
    /// Bytes of sums of values, and of single values, that the estimate of the rest read.
    pub estimate_bytes: u64,
    /// Bytes of KV rows that dense attention would have read.
    pub dense_bytes: u64,
}

impl ReadCount {
    /// Counts one kv head's step.
    pub(crate) fn add(
        &mut self,
        amount: Amount,
        row_bytes: usize,
        codeword_bytes: usize,
        estimate_bytes: usize,
    ) {
        self.tokens += amount.tokens as u64;
        self.attended += amount.attended as u64;
        self.picked += amount.picked as u64;
        self.row_bytes += (amount.attended * row_bytes) as u64;
        self.codeword_bytes += codeword_bytes as u64;
        self.estimate_bytes += estimate_bytes as u64;
        self.dense_bytes += (amount.tokens * row_bytes) as u64;
    }

    /// Counts what another part of the work read.
    pub fn absorb(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.attended += other.attended;
        self.picked += other.picked;
        self.row_bytes += other.row_bytes;
        self.codeword_bytes += other.codeword_bytes;
        self.estimate_bytes += other.estimate_bytes;
        self.dense_bytes += other.dense_bytes;
    }

    /// What has been read since an earlier count of the same sequence.
    pub(crate) const fn since(&self, earlier: &Self) -> Self {
        Self {
            tokens: self.tokens - earlier.tokens,
            attended: self.attended - earlier.attended,
            picked: self.picked - earlier.picked,
            row_bytes: self.row_bytes - earlier.row_bytes,
            codeword_bytes: self.codeword_bytes - earlier.codeword_bytes,
            estimate_bytes: self.estimate_bytes - earlier.estimate_bytes,
            dense_bytes: self.dense_bytes - earlier.dense_bytes,
        }
    }

    /// Attended tokens over all tokens; none before the first decode step.
    pub fn attended_share(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.attended as f64 / self.tokens as f64)
    }

    /// Tokens that retrieval picked over all tokens; none before the first decode step.
    pub fn picked_share(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.picked as f64 / self.tokens as f64)
    }

    /// Bytes of rows, codewords and sums that were read.
    pub const fn bytes(&self) -> u64 {
        self.row_bytes + self.codeword_bytes + self.estimate_bytes
    }

    /// [`bytes`](Self::bytes) over the bytes of rows that dense attention reads; none before the first decode step.
    pub fn bytes_share(&self) -> Option<f64> {
        (self.dense_bytes > 0).then(|| self.bytes() as f64 / self.dense_bytes as f64)
    }
}
