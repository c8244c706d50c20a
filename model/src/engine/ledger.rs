//! Memory that is promised to sequences before they begin.

use super::memory;
use crate::{
    attention::PREFILL_CHUNK,
    codebooks::Codebooks,
    error::{Error, Result},
    sequence::{index_bytes, kv_bytes, sum_bytes},
    spec::Spec,
};
use a2ats_kernel::Dtype;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What there is for sequences, and what they have been promised.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Bytes that were free at the beginning.
    free: Option<u64>,
    /// Bytes of weights, which count as free while they are mapped, but are read for each token.
    weights: u64,
    /// Working memory.
    scratch: u64,
    promised: Arc<AtomicU64>,
}

/// A promise, taken back when it is dropped.
#[derive(Debug)]
pub(super) struct Promise {
    bytes: u64,
    promised: Arc<AtomicU64>,
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.promised.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The size of a context.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need<'a> {
    pub(super) spec: &'a Spec,
    pub(super) codebooks: Option<&'a Codebooks>,
    pub(super) dtype: Dtype,
    /// Tokens in all.
    pub(super) tokens: usize,
    /// Those of them that somebody else was promised memory for.
    pub(super) shared: usize,
}

impl Need<'_> {
    fn bytes(&self) -> u128 {
        let of = |tokens: usize| {
            let index = |books: &Codebooks| {
                let codes = books.most_codes();
                index_bytes(self.spec, codes, tokens) + sum_bytes(self.spec, self.dtype, codes, tokens)
            };
            kv_bytes(self.spec, self.dtype, tokens) + self.codebooks.map_or(0, index)
        };
        of(self.tokens).saturating_sub(of(self.shared))
    }
}

impl Ledger {
    /// The memory that there is now, for a model of that shape with so many bytes of weights.
    pub(super) fn new(spec: &Spec, weights: u64) -> Self {
        let (free, promised) = (memory::available(), Arc::default());
        Self { free, weights, scratch: scratch_bytes(spec), promised }
    }

    /// Promises memory to a sequence; none if it has to wait for others to end.
    ///
    /// # Errors
    /// If there is not so much, whoever ends.
    pub(super) fn promise(&self, need: Need<'_>) -> Result<Option<Promise>> {
        let bytes = need.bytes();
        let Some(free) = self.free else { return Ok(Some(self.record(0))) };
        let left = free.saturating_sub(self.weights).saturating_sub(self.scratch);
        if bytes > u128::from(left) {
            let (tokens, dtype) = (need.tokens, need.dtype);
            return Err(Error::TooLarge(format!(
                "{tokens} tokens of context take {:.1} GiB of KV cache in {dtype}; {:.1} GiB of memory are free, of which the \
                 weights take {:.1}; shorten the prompt or --max-new-tokens, or use --kv-dtype bf16",
                gib(bytes),
                gib(u128::from(free)),
                gib(u128::from(self.weights))
            )));
        }
        let promised = u128::from(self.promised.load(Ordering::Relaxed));
        Ok((promised + bytes <= u128::from(left)).then(|| self.record(bytes as u64)))
    }

    fn record(&self, bytes: u64) -> Promise {
        self.promised.fetch_add(bytes, Ordering::Relaxed);
        Promise { bytes, promised: Arc::clone(&self.promised) }
    }
}

/// Working memory of a pass, about: a chunk's projections, its rows in f32, and what goes from layer to layer.
fn scratch_bytes(spec: &Spec) -> u64 {
    let heads = spec.num_attention_heads + 2 * spec.num_key_value_heads;
    let of_token = 2 * spec.hidden_size + 2 * (heads + spec.num_attention_heads) * spec.head_dim;
    (PREFILL_CHUNK * of_token * size_of::<f32>()) as u64
}

fn gib(bytes: u128) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::{Ledger, Need};
    use crate::{demo, error::Error};
    use a2ats_kernel::Dtype;

    #[test]
    fn promises_are_kept_apart_and_taken_back() {
        let model = demo::model(a2ats_kernel::available()[0]).unwrap();
        let spec = model.spec();
        let need = |tokens, shared| Need { spec, codebooks: None, dtype: Dtype::F32, tokens, shared };
        let mut ledger = Ledger::new(spec, 1000);
        // Room for a thousand tokens beside weights and working memory.
        ledger.free = Some(1000 + ledger.scratch + need(1000, 0).bytes() as u64);
        let first = ledger.promise(need(600, 0)).unwrap();
        assert!(first.is_some());
        assert!(ledger.promise(need(401, 0)).unwrap().is_none(), "it waits");
        assert!(ledger.promise(need(700, 400)).unwrap().is_some(), "what is shared counts once");
        assert!(ledger.promise(need(400, 0)).unwrap().is_some());
        drop(first);
        assert!(ledger.promise(need(1000, 0)).unwrap().is_some());
        assert!(matches!(ledger.promise(need(1001, 0)), Err(Error::TooLarge(_))));
        ledger.free = None;
        assert!(ledger.promise(need(1 << 40, 0)).unwrap().is_some(), "nobody says how much there is");
    }
}
