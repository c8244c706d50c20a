//! Many sequences: requests in, events out.
//!
//! ```text
//! submit → waiting → reading (one at a time, chunk by chunk) → decoding (a token in each step) → finished
//! ```
//!
//! Each [`Engine::step`] is one pass over the weights: a token of every sequence that is decoding, and a chunk of the prompt that is
//! being read. A request waits until there is a place in the batch and memory for all the tokens that it may come to. What it gets
//! does not depend on the other requests: chunks are cut by the prompt alone, and no sum by what else is in the batch.

mod answer;
mod ledger;
pub mod memory;
mod pass;
mod request;
pub mod sampling;
mod stop;

pub use request::{End, Event, Kept, Request, RequestId, Stop};

use crate::{
    batch::Workspace,
    codebooks::Codebooks,
    error::{Error, Result},
    model::Model,
    sequence::{Attention, Sequence, check_context, longest_context},
    text::tokenizer::Tokenizer,
};
use a2ats_kernel::Dtype;
use answer::{Answer, Next};
use ledger::{Ledger, Need, Promise};
use pass::{Reading, Who, end};
use std::{collections::VecDeque, ops::ControlFlow, sync::Arc};

/// How an engine works.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model's codebooks, if there are any.
    pub codebooks: Option<Arc<Codebooks>>,
    /// How decode steps attend.
    pub attention: Attention,
    /// Storage type of KV rows.
    pub kv_dtype: Dtype,
    /// Tokens that end a text.
    pub end_of_sequence: Vec<u32>,
    /// Most sequences at a time.
    pub batch: usize,
}

/// A model at work on requests.
pub struct Engine<'m> {
    model: &'m Model,
    tokenizer: &'m Tokenizer,
    options: Options,
    ledger: Ledger,
    workspace: Workspace,
    last: u64,
    waiting: VecDeque<(Answer<'m>, Vec<u32>, Option<Kept>)>,
    reading: Option<Reading<'m>>,
    /// Those that decode: what they are, their sequences, and the token that each takes next.
    answers: Vec<Answer<'m>>,
    sequences: Vec<Sequence>,
    ids: Vec<u32>,
}

impl<'m> Engine<'m> {
    /// An engine without requests. Its memory is what is free now.
    ///
    /// # Errors
    /// If the attention and the codebooks do not fit together, or the batch is empty.
    pub fn new(model: &'m Model, tokenizer: &'m Tokenizer, options: Options) -> Result<Self> {
        if options.batch == 0 {
            return Err(Error::Usage("a batch of 0 sequences: give at least 1".to_owned()));
        }
        Sequence::new(&model.spec, options.codebooks.clone(), options.attention, options.kv_dtype, 1)?;
        let ledger = Ledger::new(&model.spec, model.tensors().mapped_bytes() as u64);
        Ok(Self {
            model,
            tokenizer,
            options,
            ledger,
            workspace: Workspace::default(),
            last: 0,
            waiting: VecDeque::new(),
            reading: None,
            answers: Vec::new(),
            sequences: Vec::new(),
            ids: Vec::new(),
        })
    }

    /// The model.
    pub const fn model(&self) -> &'m Model {
        self.model
    }

    /// Takes a request.
    ///
    /// # Errors
    /// As [`Engine::check`].
    pub fn submit(&mut self, mut request: Request) -> Result<RequestId> {
        self.check(&request)?;
        self.last += 1;
        let id = RequestId(self.last);
        let behind = request.behind.take();
        let mut prompt: Vec<u32> = behind.iter().filter_map(|kept| kept.unread).collect();
        prompt.append(&mut request.prompt);
        let answer = Answer::new(id, request, self.tokenizer, behind.as_ref())?;
        self.waiting.push_back((answer, prompt, behind));
        Ok(id)
    }

    /// Says what is wrong with a request.
    ///
    /// # Errors
    /// For an empty prompt, tokens outside the vocabulary, sampling options that make no sense, and contexts that the model or this
    /// machine has no room for.
    pub fn check(&self, request: &Request) -> Result<()> {
        let behind = request.behind.as_ref();
        let tokens = behind.map_or(0, Kept::len) + request.prompt.len();
        if request.prompt.is_empty() && behind.is_none_or(|kept| kept.unread.is_none()) {
            return Err(Error::Usage("the prompt is empty; give at least one token".to_owned()));
        }
        request.sampling.validate()?;
        self.model.check_ids(&request.prompt)?;
        check_context(&self.model.spec, tokens)?;
        self.ledger.promise(self.need(self.tokens(tokens, request.max_new_tokens), behind))?;
        Ok(())
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.reading.is_none() && self.answers.is_empty()
    }

    /// Requests that are not finished.
    pub fn requests(&self) -> usize {
        self.waiting.len() + usize::from(self.reading.is_some()) + self.answers.len()
    }

    /// Ends a request at once; its end is told.
    pub fn cancel(&mut self, request: RequestId, tell: &mut dyn FnMut(Event)) {
        let waiting = self.waiting.iter().position(|(answer, ..)| answer.id == request);
        if let Some((mut answer, _, behind)) = waiting.and_then(|place| self.waiting.remove(place)) {
            match self.place(behind) {
                Ok((sequence, promises, shared)) => {
                    answer.begin(promises, shared);
                    end(answer, sequence, Ok(Next::End(Stop::Interrupted, None)), tell);
                }
                Err(error) => tell(Event::Failed { request, error }),
            }
        } else if let Some(reading) = self.reading.take_if(|reading| reading.answer.id == request) {
            let Reading { answer, sequence, .. } = reading;
            end(answer, sequence, Ok(Next::End(Stop::Interrupted, None)), tell);
        } else if let Some(place) = self.answers.iter().position(|answer| answer.id == request) {
            let (answer, sequence, id) = self.take(place);
            end(answer, sequence, Ok(Next::End(Stop::Interrupted, Some(id))), tell);
        }
    }

    /// One pass over the weights: a token for every sequence, a chunk for the prompt that is read. `keep_on` is asked after each layer;
    /// if it breaks off, the step has not taken place. What goes wrong with a request is told as its event, and the others go on.
    pub fn step(
        &mut self,
        tell: &mut dyn FnMut(Event),
        keep_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.admit(tell);
        self.advance(Who { steps: 0..self.sequences.len(), reads: self.reading.is_some() }, tell, keep_on)
    }

    /// Begins with requests for which there is place and memory.
    fn admit(&mut self, tell: &mut dyn FnMut(Event)) {
        while self.reading.is_none() && self.answers.len() < self.options.batch {
            let Some((answer, prompt, behind)) = self.waiting.front() else { return };
            let before = behind.as_ref().map_or(0, |kept| kept.sequence.len());
            let tokens = self.tokens(before + prompt.len(), answer.max_new_tokens());
            let promise = self.ledger.promise(self.need(tokens, behind.as_ref()));
            if matches!(promise, Ok(None)) && !self.answers.is_empty() {
                return;
            }
            let Some((mut answer, prompt, behind)) = self.waiting.pop_front() else { return };
            let begun = promise.and_then(|promise| {
                let promise = promise.ok_or_else(no_memory)?;
                let (sequence, mut promises, shared) = self.place(behind)?;
                promises.push(promise);
                answer.begin(promises, shared);
                Ok(sequence)
            });
            match begun {
                Ok(sequence) => self.reading = Some(Reading { answer, sequence, prompt, done: 0 }),
                Err(error) => tell(Event::Failed { request: answer.id, error }),
            }
        }
    }

    /// The sequence that a request goes on with, what that was promised, and what it shares.
    fn place(&self, behind: Option<Kept>) -> Result<(Sequence, Vec<Promise>, usize)> {
        if let Some(Kept { sequence, promises, shared, .. }) = behind {
            return Ok((sequence, promises, shared));
        }
        let Options { codebooks, attention, kv_dtype, .. } = &self.options;
        let spec = &self.model.spec;
        let capacity = longest_context(spec);
        let sequence = Sequence::new(spec, codebooks.clone(), *attention, *kv_dtype, capacity)?;
        Ok((sequence, Vec::new(), 0))
    }

    /// Tokens that a context comes to at most.
    fn tokens(&self, prompt: usize, max_new_tokens: usize) -> usize {
        prompt.saturating_add(max_new_tokens).min(longest_context(&self.model.spec))
    }

    fn need(&self, tokens: usize, behind: Option<&Kept>) -> Need<'_> {
        let Options { codebooks, attention, kv_dtype, .. } = &self.options;
        let codebooks = codebooks.as_deref().filter(|_| attention.sparsity().is_some());
        let shared = behind.map_or(0, |kept| kept.sequence.len());
        Need { spec: &self.model.spec, codebooks, dtype: *kv_dtype, tokens, shared }
    }
}

fn no_memory() -> Error {
    Error::TooLarge(
        "the memory is taken by contexts that are kept; shorten them, or use --kv-dtype bf16".to_owned(),
    )
}
