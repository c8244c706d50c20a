//! One sequence: its cache, its tokens, prefill and decode.

use crate::{
    cache::{Attention, Cache, index_bytes, kv_bytes, sum_bytes},
    codebooks::Codebooks,
    engine::memory,
    error::{Error, Result},
    layer::Observer,
    model::{Manner, Model},
    step::{ReadCount, Scratch},
};
use a2ats_kernel::Dtype;
use std::ops::ControlFlow;

/// Tokens of one chunk of prefill. Within a chunk keys and values are attended as computed, before the cache rounds
/// them, so codes and logits of prompts up to this long do not depend on the cache's storage type. An 8B model's
/// activations for it take 130 MB.
pub const PREFILL_CHUNK: usize = 2048;

/// A sequence being read and written.
#[derive(Debug)]
pub struct Session<'m> {
    model: &'m Model,
    codebooks: Option<&'m Codebooks>,
    cache: Cache,
    ids: Vec<u32>,
    scratch: Scratch,
    read: ReadCount,
    /// Tokens that memory was found to be there for.
    room: usize,
    /// Whether an error came out of the middle of a pass: layers may then hold different tokens.
    broken: bool,
}

impl<'m> Session<'m> {
    /// An empty sequence with room for `tokens` tokens.
    ///
    /// # Errors
    /// If a2ats attention is asked for without codebooks, the context is longer than the model's, or the memory is
    /// not there.
    pub fn new(
        model: &'m Model,
        codebooks: Option<&'m Codebooks>,
        attention: Attention,
        dtype: Dtype,
        tokens: usize,
    ) -> Result<Self> {
        let codebooks = match attention {
            Attention::Dense => None,
            Attention::A2ats(_) if codebooks.is_none() => {
                return Err(Error::Usage(
                    "a2ats attention needs the model's codebooks: give --codebooks FILE, or --attention dense".to_owned(),
                ));
            }
            Attention::A2ats(_) => codebooks,
        };
        if codebooks.is_some_and(|books| !books.fit(&model.spec)) {
            return Err(Error::Usage("the codebooks were opened for a model of another shape".to_owned()));
        }
        check_context(model, tokens)?;
        check_memory(model, dtype, tokens, codebooks)?;
        let codes = codebooks.map(Codebooks::codes).unwrap_or_default();
        // Address space for all that may come; memory is checked as it does.
        let cache = Cache::new(&model.spec, attention, &codes, dtype, longest_context(model))?;
        let scratch = Scratch::new(model.spec.num_key_value_heads, model.spec.head_dim)?;
        let read = ReadCount::default();
        Ok(Self { model, codebooks, cache, ids: Vec::new(), scratch, read, room: tokens, broken: false })
    }

    /// The tokens in the cache.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The cache.
    pub const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What decode steps have read so far.
    pub const fn read(&self) -> &ReadCount {
        &self.read
    }

    /// Reads tokens densely, in chunks, and gives the logits of the last one. `progress` is told every now and then how
    /// many tokens' worth of work is done, and may break off: then there are no logits, and the session holds the
    /// chunks that were finished.
    ///
    /// # Errors
    /// For an empty prompt, ids outside the vocabulary, too long a context, and as [`Session::decode`].
    pub fn prefill(
        &mut self,
        ids: &[u32],
        progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<f32>>> {
        self.prefill_observed(ids, None, progress)
    }

    /// The same while somebody looks on.
    ///
    /// # Errors
    /// As [`Session::prefill`], and whatever the observer says.
    pub fn prefill_observed(
        &mut self,
        ids: &[u32],
        observer: Option<&dyn Observer>,
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<f32>>> {
        if ids.is_empty() {
            return Err(Error::Usage("the prompt is empty; give at least one token".to_owned()));
        }
        self.check(ids)?;
        let layers = self.model.layers.len();
        let mut logits = None;
        for (number, chunk) in ids.chunks(PREFILL_CHUNK).enumerate() {
            let before = number * PREFILL_CHUNK;
            let manner = Manner { codebooks: self.codebooks, observer, decode: false };
            let outcome =
                self.forward(chunk, &manner, |layer| progress(before + chunk.len() * layer / layers))?;
            let Some((of_chunk, _)) = outcome else { return Ok(None) };
            logits = Some(of_chunk);
        }
        let sorted = self.cache.sort(self.model.kernels);
        self.ends_with(sorted)?;
        Ok(logits)
    }

    /// One decode step: takes the token just made and gives the logits of the next one.
    ///
    /// # Errors
    /// For an id outside the vocabulary and a context that is full, both before anything changes; for memory that runs
    /// out and output that is not a number, after which the session is of no more use.
    pub fn decode(&mut self, id: u32) -> Result<Vec<f32>> {
        self.check(&[id])?;
        let manner = Manner { codebooks: self.codebooks, observer: None, decode: true };
        let outcome = self.forward(&[id], &manner, |_| ControlFlow::Continue(()))?;
        let (logits, read) = outcome.unwrap_or_default();
        self.read.absorb(&read);
        let sorted = self.cache.sort_some(self.model.kernels, read.attended as usize);
        self.ends_with(sorted)?;
        Ok(logits)
    }

    /// Forgets the tokens from position `tokens` on.
    ///
    /// # Errors
    /// If memory runs out, after which the session is of no more use.
    pub fn rewind(&mut self, tokens: usize) -> Result<()> {
        if tokens < self.ids.len() {
            let cut = self.cache.truncate(self.model.kernels, tokens);
            self.ends_with(cut)?;
            self.ids.truncate(tokens);
        }
        Ok(())
    }

    /// Refuses tokens before anything changes: those that are none, and more of them than model or memory allow.
    fn check(&mut self, ids: &[u32]) -> Result<()> {
        if self.broken {
            return Err(Error::Usage("this session ended with an error; start a new one".to_owned()));
        }
        self.model.check_ids(ids)?;
        let tokens = self.ids.len() + ids.len();
        check_context(self.model, tokens)?;
        if tokens > self.room {
            let room = tokens.max(self.room + self.room / 2).min(longest_context(self.model));
            check_memory(self.model, self.cache.dtype(), room - self.ids.len(), self.codebooks)?;
            self.room = room;
        }
        Ok(())
    }

    /// An error in the middle of the work ends the session: whoever tried once more would append a token twice, or find the layers
    /// of different lengths.
    fn ends_with<T>(&mut self, outcome: Result<T>) -> Result<T> {
        self.broken |= outcome.is_err();
        outcome
    }

    fn forward(
        &mut self,
        ids: &[u32],
        manner: &Manner<'_>,
        keep_on: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<(Vec<f32>, ReadCount)>> {
        let (cache, scratch) = (&mut self.cache, &mut self.scratch);
        let outcome = self.model.forward(ids, cache, manner, scratch, keep_on);
        let outcome = self.ends_with(outcome)?;
        if outcome.is_some() {
            self.ids.extend_from_slice(ids);
        }
        Ok(outcome)
    }
}

/// The longest context that a model can be used with here.
pub fn longest_context(model: &Model) -> usize {
    let spec = &model.spec;
    spec.sliding_window.unwrap_or(usize::MAX).min(spec.max_position_embeddings)
}

/// Refuses contexts that the model was not made for.
fn check_context(model: &Model, tokens: usize) -> Result<()> {
    let spec = &model.spec;
    if let Some(window) = spec.sliding_window.filter(|&window| tokens > window) {
        return Err(Error::TooLarge(format!(
            "a context of {tokens} tokens is longer than the model's sliding window of {window}, which is not \
             supported; shorten the prompt or --max-new-tokens"
        )));
    }
    if tokens > spec.max_position_embeddings {
        return Err(Error::TooLarge(format!(
            "a context of {tokens} tokens is longer than the model's {} positions; shorten the prompt or \
             --max-new-tokens",
            spec.max_position_embeddings
        )));
    }
    Ok(())
}

/// Refuses contexts whose cache would not fit the memory that is free now beside the weights, where the system says how much that is.
fn check_memory(model: &Model, dtype: Dtype, tokens: usize, codebooks: Option<&Codebooks>) -> Result<()> {
    let index = |books: &Codebooks| {
        let codes = books.most_codes();
        index_bytes(&model.spec, codes, tokens) + sum_bytes(&model.spec, dtype, codes, tokens)
    };
    let need = kv_bytes(&model.spec, dtype, tokens) + codebooks.map_or(0, index);
    // Mapped weights count as free, but each token reads all of them.
    let weights = model.tensors().bytes() as u64;
    match memory::available() {
        Some(free) if need > u128::from(free.saturating_sub(weights)) => Err(Error::TooLarge(format!(
            "{tokens} tokens of context take {:.1} GiB of KV cache in {dtype}; {:.1} GiB of memory are free, of which the weights \
             take {:.1}; shorten the prompt or --max-new-tokens, or use --kv-dtype bf16",
            gib(need),
            gib(u128::from(free)),
            gib(u128::from(weights))
        ))),
        _ => Ok(()),
    }
}

fn gib(bytes: u128) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
