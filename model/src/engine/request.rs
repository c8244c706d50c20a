//! What is asked of the engine, and what it tells.

use super::{ledger::Promise, sampling::SamplingOptions};
use crate::{
    error::{Error, Result},
    sequence::{ReadCount, Sequence},
};
use a2ats_kernel::Kernels;
use serde::Serialize;
use std::time::Duration;

/// The number of a request, by which events name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(super) u64);

/// A text to be continued.
#[derive(Debug, Default)]
pub struct Request {
    /// The tokens to read.
    pub prompt: Vec<u32>,
    /// A sequence that they follow; an empty one without it.
    pub behind: Option<Kept>,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// Most tokens to make, an end-of-sequence token not counted. With 0 the prompt is read and nothing made.
    pub max_new_tokens: usize,
    /// Strings that end the text; they are not part of it.
    pub stop: Vec<String>,
    /// Whether the sequence is wanted back.
    pub keep: bool,
}

/// A sequence between two requests, with the memory that it was promised.
#[derive(Debug)]
pub struct Kept {
    pub(super) sequence: Sequence,
    pub(super) promises: Vec<Promise>,
    /// Tokens that another one was promised memory for.
    pub(super) shared: usize,
    /// A token that was made and not read yet: it comes in front of the next prompt.
    pub(super) unread: Option<u32>,
}

impl Kept {
    /// The sequence.
    pub const fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// How many tokens it stands for, one that is not read yet included.
    pub fn len(&self) -> usize {
        self.sequence.len() + usize::from(self.unread.is_some())
    }

    /// Whether it has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the tokens from position `tokens` on.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn rewind(&mut self, kernels: &dyn Kernels, tokens: usize) -> Result<()> {
        if tokens <= self.sequence.len() {
            self.unread = None;
            self.sequence.rewind(kernels, tokens)?;
        }
        Ok(())
    }

    /// Another one with the same tokens, which shares what does not change.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn fork(&self) -> Result<Self> {
        let (sequence, shared) = (self.sequence.fork()?, self.sequence.len());
        Ok(Self { sequence, promises: Vec::new(), shared, unread: self.unread })
    }
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The model made an end-of-sequence token.
    EndOfSequence,
    /// One of the strings came that end it.
    StopString,
    /// As many tokens were made as were asked for.
    Length,
    /// The context is as long as the model allows.
    ContextFull,
    /// Whoever asked wanted no more.
    Interrupted,
}

/// What is told about requests.
#[derive(Debug)]
pub enum Event {
    /// More of the prompt has been read.
    Reading {
        /// Which request.
        request: RequestId,
        /// Tokens' worth of work that is done.
        done: usize,
        /// Tokens of the prompt.
        of: usize,
    },
    /// A token has been made.
    Token {
        /// Which request.
        request: RequestId,
        /// The token.
        id: u32,
        /// The text that is certain now; may be empty, and may be of earlier tokens.
        text: String,
    },
    /// A request has come to its end.
    Finished {
        /// Which request.
        request: RequestId,
        /// How.
        end: Box<End>,
    },
    /// A request has failed; others go on.
    Failed {
        /// Which request.
        request: RequestId,
        /// Why.
        error: Error,
    },
}

/// How a request ended, and what it took.
#[derive(Debug)]
pub struct End {
    /// Why there is no more.
    pub stop: Stop,
    /// Text that was held back until now.
    pub text: String,
    /// Tokens of the prompt that were read.
    pub prompt_tokens: usize,
    /// Tokens that were made.
    pub generated_tokens: usize,
    /// Tokens that went through the model one by one, the last one that was made not among them as a rule.
    pub decode_steps: usize,
    /// Time from the prompt's beginning to the first logits.
    pub prefill: Duration,
    /// Time from then on.
    pub decode: Duration,
    /// What this request's decode steps read.
    pub read: ReadCount,
    /// The sequence, if it was to be kept.
    pub kept: Option<Kept>,
}
