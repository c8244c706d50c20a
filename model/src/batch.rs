//! Tokens that pass through a model together.

use crate::{
    attention::{Prefill, Steps},
    block::Products,
    observer::Observer,
    sequence::Sequence,
};

/// Sequences that take one token each, and at most one that reads several.
#[derive(Default)]
pub struct Batch<'a> {
    /// Sequences that take one token each; logits come for all of them.
    pub steps: &'a mut [Sequence],
    /// Those tokens.
    pub ids: &'a [u32],
    /// What is read besides.
    pub chunk: Option<Chunk<'a>>,
}

/// Tokens that a sequence reads: each attends to itself and to all before it.
pub struct Chunk<'a> {
    /// The sequence.
    pub sequence: &'a mut Sequence,
    /// The tokens, one to [`PREFILL_CHUNK`](crate::PREFILL_CHUNK).
    pub ids: &'a [u32],
    /// Which of them are to have logits.
    pub logits: Wanted,
    /// Who looks at the projections.
    pub observer: Option<&'a dyn Observer>,
}

/// Tokens of a chunk for which logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// None: more of the prompt comes.
    None,
    /// The last one.
    Last,
    /// All of them.
    All,
}

/// Working memory of [`Model::forward`](crate::Model::forward), to be kept, and the logits of the last batch.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(crate) steps: Steps,
    pub(crate) prefill: Prefill,
    pub(crate) products: Products,
    /// `[n, hidden]` of the steps, and of the chunk.
    pub(crate) x: [Vec<f32>; 2],
    /// `[rows, vocabulary]`
    pub(crate) logits: Vec<f32>,
    pub(crate) vocabulary: usize,
}

impl Workspace {
    /// The logits of a token that had some: those of the steps come first, then those of the chunk.
    pub fn logits(&self, row: usize) -> &[f32] {
        &self.logits[row * self.vocabulary..(row + 1) * self.vocabulary]
    }

    /// The same, to be changed in place by whoever samples.
    pub fn logits_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.logits[row * self.vocabulary..(row + 1) * self.vocabulary]
    }
}
