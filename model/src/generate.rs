//! From a prompt's last logits to text: sample, stop, decode, again.

use crate::{engine::sampling::Sampler, error::Result, session::Session};
use serde::Serialize;
use std::ops::ControlFlow;

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The model made an end-of-sequence token.
    EndOfSequence,
    /// As many tokens were made as were asked for.
    Length,
    /// The context is as long as the model allows.
    ContextFull,
    /// Whoever takes the tokens wanted no more.
    Interrupted,
}

/// What was generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The tokens, without the end-of-sequence token.
    pub ids: Vec<u32>,
    /// Why there are no more.
    pub stop: Stop,
    /// The last of `ids` if it is not in the session's cache: it was made, and nothing had to be computed from it.
    pub unread: Option<u32>,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// Most tokens to make, an end-of-sequence token not counted.
    pub max_new_tokens: usize,
    /// Most tokens of the context.
    pub max_context: usize,
    /// Tokens that end the text.
    pub end_of_sequence: &'a [u32],
}

/// Makes tokens after what the session holds, whose last logits are `logits`. `take` gets each token as it comes.
///
/// # Errors
/// What [`Session::decode`], [`Sampler::next`] and `take` report.
pub fn generate(
    session: &mut Session<'_>,
    sampler: &mut Sampler,
    mut logits: Vec<f32>,
    limits: Limits<'_>,
    mut take: impl FnMut(u32) -> Result<ControlFlow<()>>,
) -> Result<Generation> {
    let mut ids = Vec::new();
    let ended = |ids, stop, unread| Ok(Generation { ids, stop, unread });
    while ids.len() < limits.max_new_tokens {
        let id = sampler.next(&mut logits, session.ids())?;
        if limits.end_of_sequence.contains(&id) {
            return ended(ids, Stop::EndOfSequence, None);
        }
        ids.push(id);
        if take(id)?.is_break() {
            return ended(ids, Stop::Interrupted, Some(id));
        }
        if ids.len() == limits.max_new_tokens {
            return ended(ids, Stop::Length, Some(id));
        }
        if session.ids().len() >= limits.max_context {
            return ended(ids, Stop::ContextFull, Some(id));
        }
        logits = session.decode(id)?;
    }
    ended(ids, Stop::Length, None)
}
