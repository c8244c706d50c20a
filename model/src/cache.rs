//! What a sequence leaves behind in every layer: KV rows, and the codes of its keys.

use crate::{error::Result, spec::Spec};
use a2ats_kernel::{
    Dtype, Kernels,
    decode::Sparsity,
    rows::row_bytes,
    store::{Layout, Store},
};
use rayon::prelude::*;

/// How decode steps attend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attention {
    /// To every token.
    Dense,
    /// To the retrieved tokens, the window and the sinks.
    A2ats(Sparsity),
}

impl Attention {
    /// Whether what is not attended is estimated.
    pub const fn has_estimate(&self) -> bool {
        matches!(self, Self::A2ats(sparsity) if sparsity.estimate.is_on())
    }

    /// What a kv head keeps of its tokens, with a codebook of so many codewords.
    pub(crate) const fn layout(&self, dtype: Dtype, head_dim: usize, codes: usize) -> Layout {
        match self {
            Self::Dense => Layout { dtype, head_dim, codes: 0, window: 1, sinks: 0 },
            Self::A2ats(sparsity) => sparsity.layout(dtype, head_dim, codes),
        }
    }

    /// The name that command lines and reports use.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::A2ats(_) => "a2ats",
        }
    }
}

/// The cache of one sequence.
#[derive(Debug)]
pub struct Cache {
    /// `[layers][kv_heads]`
    pub(crate) layers: Vec<Vec<Store>>,
    pub(crate) tokens: usize,
    dtype: Dtype,
    sparsity: Option<Sparsity>,
    /// The store whose turn it is to be sorted, of all layers.
    sorted_next: usize,
}

/// One row is sorted for so many that a step attends to, ...
const ATTENDED_PER_SORTED: usize = 48;

/// ... but no more than so many for each store, which about keeps up: a store takes a token in each step, and wants to be sorted when
/// its log has 1/64 of its base. One store is sorted at a time, so that with many of them, or few rows attended, logs grow longer.
const SORTED_PER_STORE: usize = 72;

impl Cache {
    /// An empty cache with address space for `tokens` tokens. `codes` is the number of codewords of each layer's
    /// codebooks; it is used where attention is not dense.
    ///
    /// # Errors
    /// If the operating system refuses the address space or the sparsity makes no sense.
    pub(crate) fn new(
        spec: &Spec,
        attention: Attention,
        codes: &[usize],
        dtype: Dtype,
        tokens: usize,
    ) -> Result<Self> {
        let sparsity = match attention {
            Attention::Dense => None,
            Attention::A2ats(sparsity) => Some(sparsity),
        };
        if let Some(sparsity) = sparsity {
            sparsity.check()?;
        }
        let store = |layer: usize| {
            let codes = codes.get(layer).copied().unwrap_or_default();
            Ok(Store::new(attention.layout(dtype, spec.head_dim, codes), tokens)?)
        };
        let layer = |layer| (0..spec.num_key_value_heads).map(|_| store(layer)).collect();
        let layers = (0..spec.num_hidden_layers).map(layer).collect::<Result<_>>()?;
        Ok(Self { layers, tokens: 0, dtype, sparsity, sorted_next: 0 })
    }

    /// Forgets the tokens from position `tokens` on, those a pass has added to some of the layers among them.
    ///
    /// # Errors
    /// If memory runs out.
    pub(crate) fn truncate(&mut self, kernels: &dyn Kernels, tokens: usize) -> Result<()> {
        self.layers.par_iter_mut().flatten().try_for_each(|store| store.truncate(kernels, tokens))?;
        self.tokens = tokens;
        Ok(())
    }

    /// Lays out by code what has left the window, wherever that has become much: at the end of prefill.
    ///
    /// # Errors
    /// If memory runs out.
    pub(crate) fn sort(&mut self, kernels: &dyn Kernels) -> Result<()> {
        let stores = self.layers.par_iter_mut().flatten();
        stores.filter(|store| store.wants_sorting()).try_for_each(|store| store.sort(kernels))?;
        Ok(())
    }

    /// Goes on with it between decode steps, one store at a time: a little for a step that attended to so many rows.
    ///
    /// # Errors
    /// If memory runs out.
    pub(crate) fn sort_some(&mut self, kernels: &dyn Kernels, attended: usize) -> Result<()> {
        let heads = self.layers.first().map_or(0, Vec::len);
        let all = heads * self.layers.len();
        for number in (self.sorted_next..self.sorted_next + all).map(|number| number % all) {
            let store = &mut self.layers[number / heads][number % heads];
            if store.wants_sorting() {
                let rows = (attended / ATTENDED_PER_SORTED).min(SORTED_PER_STORE * all);
                let is_done = store.sort_some(kernels, 64 + rows)?;
                self.sorted_next = number + usize::from(is_done);
                break;
            }
        }
        Ok(())
    }

    /// How many tokens it holds.
    pub const fn tokens(&self) -> usize {
        self.tokens
    }

    /// Storage type of the KV rows.
    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// What is attended; nothing where attention is dense.
    pub(crate) const fn sparsity(&self) -> Option<Sparsity> {
        self.sparsity
    }

    /// The codes of the keys of one layer and kv head, by position; none where attention is dense.
    pub fn codes(&self, layer: usize, kv_head: usize) -> Vec<u16> {
        self.layers[layer][kv_head].codes()
    }
}

/// Bytes of KV rows that a context of `tokens` takes, in all layers.
pub fn kv_bytes(spec: &Spec, dtype: Dtype, tokens: usize) -> u128 {
    heads(spec) * row_bytes(dtype, spec.head_dim) as u128 * tokens as u128
}

/// Bytes of codes and positions that a context of `tokens` takes, in all layers: a position and now and then a code, and where each code's rows
/// begin.
pub fn index_bytes(spec: &Spec, codes: usize, tokens: usize) -> u128 {
    heads(spec) * (6 * tokens as u128 + 6 * codes as u128)
}

/// Bytes of sums of values that a context of `tokens` takes, in all layers: one for each code that has tokens.
pub fn sum_bytes(spec: &Spec, dtype: Dtype, codes: usize, tokens: usize) -> u128 {
    let layout = Layout { dtype, head_dim: spec.head_dim, codes, window: 1, sinks: 0 };
    heads(spec) * codes.min(tokens) as u128 * layout.sum_bytes() as u128
}

fn heads(spec: &Spec) -> u128 {
    (spec.num_hidden_layers * spec.num_key_value_heads) as u128
}
