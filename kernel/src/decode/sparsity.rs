//! What a step attends to, and how it estimates what it does not.

use crate::{
    dtype::Dtype,
    elementwise::Rotation,
    error::{Error, Result, expect_len},
    store::{Layout, Store},
};
use std::ops::Range;

/// How what is not attended is estimated from its codes, see [`crate::estimate`]: which score stands for those of a code's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimate {
    /// Not at all, as in the paper.
    Off,
    /// By the score that retrieval goes by: as if all tokens were at the fixed relative position.
    Fixed,
    /// By the average of the code's scores over all distances that there are: what its tokens' scores are on average, if they are
    /// spread over the context. The rotation to a fixed position gives the pairs of high frequency some phase, which is that of few
    /// tokens; on average they cancel.
    Averaged,
}

impl Estimate {
    /// Whether there is an estimate.
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Off)
    }
}

/// What is attended besides the retrieved tokens, and how many of those there are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sparsity {
    /// Share of the context that each query head retrieves (the paper's top-k), 0.03 unless told otherwise.
    pub retrieve: f64,
    /// Last positions that are always attended, the current one included.
    pub window: usize,
    /// First positions that are always attended.
    pub sinks: usize,
    /// How what is not attended is estimated: it is, by the scores that are there, unless told otherwise. On the demo model the attention
    /// output is then 1.7 to 3.3 times closer to dense attention's for a quarter more time at most, and at 1% retrieved
    /// closer in less time than without at 3%. Averaged scores are always closer still, 1.8 to 8 times closer than without, but not the
    /// default: with them a step takes 1.23 to 1.40 times as long, and 1.3 is what the estimate was to cost (docs/estimate.md,
    /// docs/benchmarks.md).
    pub estimate: Estimate,
}

impl Default for Sparsity {
    fn default() -> Self {
        Self { retrieve: 0.03, window: 64, sinks: 8, estimate: Estimate::Fixed }
    }
}

impl Sparsity {
    /// Tokens that each query head retrieves from a context of `tokens`: `retrieve · tokens`, rounded down.
    pub fn take(&self, tokens: usize) -> usize {
        (self.retrieve * tokens as f64) as usize
    }

    /// How far the tokens that retrieval may choose from are from the newest one, in a context of `tokens`.
    pub fn distances(&self, tokens: usize) -> Range<usize> {
        self.window..tokens.saturating_sub(self.sinks).max(self.window)
    }

    /// What turns queries into [`averaged`](crate::decode::StepInput::averaged_queries) ones in a context of `tokens`, for a model's
    /// inverse frequencies, `[head_dim / 2]`; nothing, if those are not asked for.
    pub fn averaged_rotation(&self, tokens: usize, frequencies: &[f64]) -> Option<Rotation> {
        (self.estimate == Estimate::Averaged).then(|| Rotation::averaged(self.distances(tokens), frequencies))
    }

    /// Checks that the sparsity makes sense, and that it is the one a store was laid out for.
    pub(crate) fn check_store(&self, store: &Store) -> Result<()> {
        self.check()?;
        let layout = store.layout();
        expect_len("window of the store", layout.window, self.window)?;
        // A store has no more sinks than it may have tokens.
        expect_len("sinks of the store", layout.sinks, self.sinks.min(store.capacity()))
    }

    /// What a store keeps that is decoded in this way.
    pub const fn layout(&self, dtype: Dtype, head_dim: usize, codes: usize) -> Layout {
        Layout { dtype, head_dim, codes, window: self.window, sinks: self.sinks }
    }

    /// Checks the share, which must be a number from 0 on; 1 and above attend to everything.
    ///
    /// # Errors
    /// [`Error::Unsupported`] otherwise.
    pub fn check(&self) -> Result<()> {
        if self.retrieve.is_finite() && self.retrieve >= 0.0 && self.window > 0 {
            return Ok(());
        }
        let got = format!("{} with a window of {}", self.retrieve, self.window);
        Err(Error::Unsupported {
            what: "retrieve share",
            got,
            supported: "0 and above, with a window from 1 on",
        })
    }
}
