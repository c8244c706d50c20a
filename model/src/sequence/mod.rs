//! A sequence: its tokens, and what every kv head of every layer keeps of them.

mod attention;
mod head;
mod read_count;
mod sizes;

pub use attention::Attention;
pub(crate) use head::Head;
pub use read_count::ReadCount;
pub use sizes::{index_bytes, kv_bytes, sum_bytes};

use crate::{
    codebooks::Codebooks,
    error::{Error, Result},
    spec::Spec,
};
use a2ats_kernel::{Dtype, Kernels, store::Store};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One row is sorted for so many that a step attends to, ...
const ATTENDED_PER_SORTED: usize = 48;

/// ... but no more than so many for each store, which about keeps up: a store takes a token in each step, and wants to be sorted when
/// its log has 1/64 of its base. One store is sorted at a time, so that with many of them, or few rows attended, logs grow longer.
const SORTED_PER_STORE: usize = 72;

/// A sequence that is being read and written.
#[derive(Debug)]
pub struct Sequence {
    /// `[layers][kv_heads]`. Only one task at a time works on a head; the locks make that known to the compiler.
    heads: Vec<Vec<Mutex<Head>>>,
    ids: Vec<u32>,
    attention: Attention,
    codebooks: Option<Arc<Codebooks>>,
    dtype: Dtype,
    capacity: usize,
    read: ReadCount,
    /// Rows that had been attended when sorting went on last.
    attended_before: u64,
    /// The store whose turn it is to be sorted, of all layers.
    sorted_next: usize,
}

impl Sequence {
    /// An empty sequence with address space for `capacity` tokens, which take memory as they come. Rows are stored in `dtype`.
    ///
    /// # Errors
    /// If a2ats attention is asked for without codebooks for such a model, the context is longer than the model's, the sparsity
    /// makes no sense, or the operating system refuses the address space.
    pub fn new(
        spec: &Spec,
        codebooks: Option<Arc<Codebooks>>,
        attention: Attention,
        dtype: Dtype,
        capacity: usize,
    ) -> Result<Self> {
        let codebooks = codebooks_for(spec, codebooks, attention)?;
        check_context(spec, capacity)?;
        if let Some(sparsity) = attention.sparsity() {
            sparsity.check()?;
        }
        let codes = codebooks.as_ref().map(|books| books.codes()).unwrap_or_default();
        let head = |layer: usize| {
            let codes = codes.get(layer).copied().unwrap_or_default();
            let store = Store::new(attention.layout(dtype, spec.head_dim, codes), capacity)?;
            Ok(Mutex::new(Head::new(store)))
        };
        let layer = |layer| (0..spec.num_key_value_heads).map(|_| head(layer)).collect();
        let heads = (0..spec.num_hidden_layers).map(layer).collect::<Result<_>>()?;
        let (ids, read) = (Vec::with_capacity(capacity), ReadCount::default());
        let (attended_before, sorted_next) = (0, 0);
        Ok(Self { heads, ids, attention, codebooks, dtype, capacity, read, attended_before, sorted_next })
    }

    /// The tokens.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many tokens there are.
    pub const fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Most tokens that it can hold.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How decode steps attend.
    pub const fn attention(&self) -> Attention {
        self.attention
    }

    /// Storage type of the KV rows.
    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The codebooks that keys are encoded by.
    pub const fn codebooks(&self) -> Option<&Arc<Codebooks>> {
        self.codebooks.as_ref()
    }

    /// What decode steps have read so far.
    pub const fn read(&self) -> &ReadCount {
        &self.read
    }

    /// The codes of the keys of one layer and kv head, by position; none where attention is dense. Those of the newest tokens are 0
    /// as long as they have not been looked up, which dense steps of [`Attention::Auto`] put off.
    pub fn codes(&self, layer: usize, kv_head: usize) -> Vec<u16> {
        self.head(layer, kv_head).store.codes()
    }

    /// What one kv head keeps.
    pub(crate) fn head(&self, layer: usize, kv_head: usize) -> MutexGuard<'_, Head> {
        self.heads[layer][kv_head].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The heads of a layer.
    pub(crate) fn layer_mut(&mut self, layer: usize) -> &mut [Mutex<Head>] {
        &mut self.heads[layer]
    }

    /// Counts what a decode step read.
    pub(crate) fn count(&mut self, read: &ReadCount) {
        self.read.absorb(read);
    }

    /// Says that all layers hold these tokens, too.
    pub(crate) fn push(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
    }

    /// Refuses more tokens than there is room for.
    pub(crate) fn check_room(&self, spec: &Spec, tokens: usize) -> Result<()> {
        let all = self.len().saturating_add(tokens);
        check_context(spec, all)?;
        if all > self.capacity {
            let capacity = self.capacity;
            return Err(Error::TooLarge(format!("a sequence made for {capacity} tokens cannot take {all}")));
        }
        Ok(())
    }

    /// Forgets the tokens from position `tokens` on, also those that some layers hold and others not.
    ///
    /// # Errors
    /// If memory runs out; the sequence is of no more use then.
    pub fn rewind(&mut self, kernels: &dyn Kernels, tokens: usize) -> Result<()> {
        let tokens = tokens.min(self.len());
        self.all_heads().try_for_each(|head| inner(head).truncate(kernels, tokens))?;
        self.ids.truncate(tokens);
        Ok(())
    }

    /// A sequence with the same tokens that goes its own way from here on: what has been sorted is shared, the rest is copied.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn fork(&self) -> Result<Self> {
        let fork = |(layer, heads): (usize, &Vec<Mutex<Head>>)| {
            (0..heads.len()).map(|head| Ok(Mutex::new(self.head(layer, head).fork()?))).collect()
        };
        Ok(Self {
            heads: self.heads.par_iter().enumerate().map(fork).collect::<Result<_>>()?,
            ids: {
                let mut ids = Vec::with_capacity(self.capacity);
                ids.extend_from_slice(&self.ids);
                ids
            },
            codebooks: self.codebooks.clone(),
            read: ReadCount::default(),
            attended_before: 0,
            ..*self
        })
    }

    /// Lays out by code what has left the window, wherever that has become much: at the end of prefill.
    ///
    /// # Errors
    /// If memory runs out; the sequence is as before then.
    pub fn sort(&mut self, kernels: &dyn Kernels) -> Result<()> {
        let stores =
            self.all_heads().map(|head| &mut inner(head).store).filter(|store| store.wants_sorting());
        Ok(stores.try_for_each(|store| store.sort(kernels))?)
    }

    /// Goes on with it after decode steps, one store at a time: a little for the rows that they attended to.
    ///
    /// # Errors
    /// If memory runs out; the sequence is as before then.
    pub fn sort_some(&mut self, kernels: &dyn Kernels) -> Result<()> {
        let attended = (self.read.attended - self.attended_before) as usize;
        self.attended_before = self.read.attended;
        let heads = self.heads.first().map_or(0, Vec::len);
        let all = heads * self.heads.len();
        for number in (self.sorted_next..self.sorted_next + all).map(|number| number % all) {
            let store = &mut inner(&mut self.heads[number / heads][number % heads]).store;
            if store.wants_sorting() {
                let rows = (attended / ATTENDED_PER_SORTED).min(SORTED_PER_STORE * all);
                let is_done = store.sort_some(kernels, 64 + rows)?;
                self.sorted_next = number + usize::from(is_done);
                break;
            }
        }
        Ok(())
    }

    fn all_heads(&mut self) -> impl ParallelIterator<Item = &mut Mutex<Head>> {
        self.heads.par_iter_mut().flatten()
    }
}

/// A head that nobody else can reach now.
pub(crate) fn inner(head: &mut Mutex<Head>) -> &mut Head {
    head.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// The codebooks that an attention uses, if any; they must fit.
fn codebooks_for(
    spec: &Spec,
    codebooks: Option<Arc<Codebooks>>,
    attention: Attention,
) -> Result<Option<Arc<Codebooks>>> {
    match (attention, codebooks) {
        (Attention::Dense, _) => Ok(None),
        (_, None) => Err(Error::Usage(
            "a2ats attention needs the model's codebooks: give --codebooks FILE, or --attention dense"
                .to_owned(),
        )),
        (_, Some(books)) if !books.fit(spec) => {
            Err(Error::Usage("the codebooks were opened for a model of another shape".to_owned()))
        }
        (_, books) => Ok(books),
    }
}

/// The longest context that a model can be used with here.
pub fn longest_context(spec: &Spec) -> usize {
    spec.sliding_window.unwrap_or(usize::MAX).min(spec.max_position_embeddings)
}

/// Refuses contexts that the model was not made for.
pub(crate) fn check_context(spec: &Spec, tokens: usize) -> Result<()> {
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
