//! How decode steps attend.

use a2ats_kernel::{Dtype, decode::Sparsity, store::Layout};

/// How decode steps attend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attention {
    /// To every token.
    Dense,
    /// To the retrieved tokens, the window and the sinks.
    A2ats(Sparsity),
    /// To every token of short contexts, and from so many tokens on to the retrieved ones. Codes are kept either way.
    Auto(Sparsity, usize),
}

impl Attention {
    /// What is attended in a context of `tokens`, if not everything.
    pub fn sparsity_at(&self, tokens: usize) -> Option<Sparsity> {
        match *self {
            Self::Dense => None,
            Self::A2ats(sparsity) => Some(sparsity),
            Self::Auto(sparsity, from) => Some(sparsity).filter(|_| tokens >= from),
        }
    }

    /// What is attended where contexts are long.
    pub const fn sparsity(&self) -> Option<Sparsity> {
        match *self {
            Self::Dense => None,
            Self::A2ats(sparsity) | Self::Auto(sparsity, _) => Some(sparsity),
        }
    }

    /// Whether what is not attended is estimated.
    pub fn has_estimate(&self) -> bool {
        self.sparsity().is_some_and(|sparsity| sparsity.estimate.is_on())
    }

    /// What a kv head keeps of its tokens, with a codebook of so many codewords.
    pub(super) fn layout(&self, dtype: Dtype, head_dim: usize, codes: usize) -> Layout {
        match self.sparsity() {
            None => Layout { dtype, head_dim, codes: 0, window: 1, sinks: 0 },
            Some(sparsity) => sparsity.layout(dtype, head_dim, codes),
        }
    }

    /// The name that command lines and reports use.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::A2ats(_) => "a2ats",
            Self::Auto(..) => "auto",
        }
    }
}
