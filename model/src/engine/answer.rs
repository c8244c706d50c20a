//! One request that is being worked on.

use super::{
    ledger::Promise,
    request::{End, Event, Kept, Request, RequestId, Stop},
    sampling::Sampler,
    stop::StopStrings,
};
use crate::{
    error::Result,
    sequence::{ReadCount, Sequence},
    text::tokenizer::{TextStream, Tokenizer},
};
use std::time::{Duration, Instant};

/// A request, but for its sequence.
pub(super) struct Answer<'m> {
    pub(super) id: RequestId,
    sampler: Sampler,
    stream: Option<TextStream<'m>>,
    stop_strings: StopStrings,
    max_new_tokens: usize,
    keep: bool,
    promises: Vec<Promise>,
    shared: usize,
    prompt_tokens: usize,
    generated_tokens: usize,
    /// The token that came in front of its prompt.
    unread_before: Option<u32>,
    /// What its sequence had read before.
    read_before: ReadCount,
    started: Instant,
    first_logits: Option<Instant>,
    /// Tokens of the sequence when it began to decode.
    prompt_end: usize,
}

/// What becomes of a request after a token.
pub(super) enum Next {
    /// It goes on with this token.
    Token(u32),
    /// It ends; the token that was made last has not been read.
    End(Stop, Option<u32>),
}

impl<'m> Answer<'m> {
    pub(super) fn new(
        id: RequestId,
        request: Request,
        tokenizer: &'m Tokenizer,
        behind: Option<&Kept>,
    ) -> Result<Self> {
        Ok(Self {
            id,
            sampler: Sampler::new(request.sampling)?,
            stream: Some(tokenizer.stream()),
            stop_strings: StopStrings::new(request.stop),
            max_new_tokens: request.max_new_tokens,
            keep: request.keep,
            promises: Vec::new(),
            shared: 0,
            prompt_tokens: 0,
            generated_tokens: 0,
            unread_before: behind.and_then(|kept| kept.unread),
            read_before: behind.map(|kept| *kept.sequence.read()).unwrap_or_default(),
            started: Instant::now(),
            first_logits: None,
            prompt_end: usize::MAX,
        })
    }

    /// Most tokens that it makes.
    pub(super) const fn max_new_tokens(&self) -> usize {
        self.max_new_tokens
    }

    /// It has its place. What has been promised for its sequence is held until it ends.
    pub(super) fn begin(&mut self, promises: Vec<Promise>, shared: usize) {
        (self.promises, self.shared, self.started) = (promises, shared, Instant::now());
    }

    /// Says that so much of the prompt has been read.
    pub(super) const fn has_read(&mut self, tokens: usize) {
        self.prompt_tokens = tokens;
    }

    /// Says that the prompt has been read.
    pub(super) fn begin_to_decode(&mut self, sequence: &Sequence) {
        (self.first_logits, self.prompt_end) = (Some(Instant::now()), sequence.len());
    }

    /// Chooses the next token after those of `sequence`, and tells it.
    pub(super) fn next(
        &mut self,
        logits: &mut [f32],
        sequence: &Sequence,
        end_of_sequence: &[u32],
        tell: &mut dyn FnMut(Event),
    ) -> Result<Next> {
        if self.max_new_tokens == 0 {
            return Ok(Next::End(Stop::Length, None));
        }
        let id = self.sampler.next(logits, sequence.ids())?;
        if end_of_sequence.contains(&id) {
            return Ok(Next::End(Stop::EndOfSequence, None));
        }
        self.generated_tokens += 1;
        let new = self.stream.as_mut().map(|stream| stream.push(id)).transpose()?.flatten();
        let (text, stopped) = new.map_or((String::new(), false), |new| self.stop_strings.push(&new));
        tell(Event::Token { request: self.id, id, text });
        let stop = if stopped {
            Stop::StopString
        } else if self.generated_tokens >= self.max_new_tokens {
            Stop::Length
        } else if sequence.len() >= sequence.capacity() {
            Stop::ContextFull
        } else {
            return Ok(Next::Token(id));
        };
        Ok(Next::End(stop, Some(id)))
    }

    /// Ends it.
    pub(super) fn end(
        mut self,
        stop: Stop,
        sequence: Sequence,
        unread: Option<u32>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let rest = self.stream.take().map(TextStream::finish).transpose()?.unwrap_or_default();
        let text = match stop {
            Stop::StopString => String::new(),
            _ => {
                let (certain, stopped) = self.stop_strings.push(&rest);
                if stopped { certain } else { certain + &self.stop_strings.finish() }
            }
        };
        let unread = if self.prompt_tokens == 0 { self.unread_before } else { unread };
        let first_logits = self.first_logits.unwrap_or_else(Instant::now);
        let end = End {
            stop,
            text,
            prompt_tokens: self.prompt_tokens,
            generated_tokens: self.generated_tokens,
            decode_steps: sequence.len().saturating_sub(self.prompt_end),
            prefill: first_logits - self.started,
            decode: self.first_logits.map_or(Duration::ZERO, |first| first.elapsed()),
            read: sequence.read().since(&self.read_before),
            kept: self.keep.then(|| Kept { sequence, promises: self.promises, shared: self.shared, unread }),
        };
        tell(Event::Finished { request: self.id, end: Box::new(end) });
        Ok(())
    }
}
