//! What a sequence leaves behind in every layer: KV rows, and the codes of its keys.

use crate::{config::Config, error::Result};
use a2ats_kernel::{
    Dtype,
    decode::{HeadIndex, Sparsity},
    kv::{KvRows, row_bytes, row_width},
};

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
    pub const fn has_tail(&self) -> bool {
        matches!(self, Self::A2ats(sparsity) if sparsity.tail.is_on())
    }

    /// The name that command lines and reports use.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::A2ats(_) => "a2ats",
        }
    }
}

/// One kv head of one layer.
#[derive(Debug)]
pub(crate) struct HeadCache {
    pub(crate) rows: KvRows,
    /// Codes and posting lists; none where attention is dense.
    pub(crate) index: Option<HeadIndex>,
}

/// The cache of one sequence.
#[derive(Debug)]
pub struct Cache {
    /// `[layers][kv_heads]`
    pub(crate) layers: Vec<Vec<HeadCache>>,
    pub(crate) tokens: usize,
    dtype: Dtype,
}

impl Cache {
    /// An empty cache with address space for `tokens` tokens. `codes` is the number of codewords of each layer's
    /// codebooks; it is used where attention is not dense.
    ///
    /// # Errors
    /// If the operating system refuses the address space or the sparsity makes no sense.
    pub(crate) fn new(
        config: &Config,
        attention: Attention,
        codes: &[usize],
        dtype: Dtype,
        tokens: usize,
    ) -> Result<Self> {
        let head = |layer: usize| -> Result<HeadCache> {
            let rows = KvRows::new(dtype, config.head_dim, tokens)?;
            let index = match attention {
                Attention::Dense => None,
                Attention::A2ats(sparsity) => Some(HeadIndex::new(codes[layer], sparsity)?),
            };
            Ok(HeadCache { rows, index })
        };
        let layer = |layer| (0..config.num_key_value_heads).map(|_| head(layer)).collect();
        let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?;
        Ok(Self { layers, tokens: 0, dtype })
    }

    /// Forgets the tokens from position `tokens` on, those a pass has added to some of the layers among them. Only what
    /// prefill added since the last decode step can be forgotten.
    ///
    /// # Errors
    /// If a decode step has indexed some of them already.
    pub(crate) fn truncate(&mut self, tokens: usize) -> Result<()> {
        for head in self.layers.iter_mut().flatten() {
            if let Some(index) = &mut head.index {
                index.truncate(tokens)?;
            }
            head.rows.truncate(tokens);
        }
        self.tokens = tokens;
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
    pub(crate) fn sparsity(&self) -> Option<Sparsity> {
        self.layers.first()?.first()?.index.as_ref().map(HeadIndex::sparsity)
    }

    /// The codes of the keys of one layer and kv head; none where attention is dense.
    pub fn codes(&self, layer: usize, kv_head: usize) -> &[u16] {
        self.layers[layer][kv_head].index.as_ref().map_or(&[], HeadIndex::codes)
    }
}

/// Bytes of KV rows that a context of `tokens` takes, in all layers.
pub fn kv_bytes(config: &Config, dtype: Dtype, tokens: usize) -> u128 {
    let heads = (config.num_hidden_layers * config.num_key_value_heads) as u128;
    heads * row_bytes(dtype, config.head_dim) as u128 * tokens as u128
}

/// Bytes of codes and posting lists that a context of `tokens` takes, in all layers, about: two for the code, four for
/// the position, as many again for positions added one by one, and the lists' heads.
pub fn index_bytes(config: &Config, codes: usize, tokens: usize) -> u128 {
    let heads = (config.num_hidden_layers * config.num_key_value_heads) as u128;
    heads * (10 * tokens as u128 + 16 * codes as u128)
}

/// Bytes of sums of values that a context of `tokens` takes, in all layers, where what is not attended is estimated: the numbers
/// of each sum, two bytes each beside rows of 16 bits, its scale there, and what says which code it is of. Codes without tokens have none
/// until half of all have some.
pub fn tail_bytes(config: &Config, dtype: Dtype, codes: usize, tokens: usize) -> u128 {
    let heads = (config.num_hidden_layers * config.num_key_value_heads) as u128;
    let sums = if 2 * tokens > codes { codes } else { tokens } as u128;
    let width = row_width(config.head_dim) as u128;
    let sum = if dtype == Dtype::F32 { 4 * width } else { 2 * width + 4 };
    heads * (sums * (sum + 6) + 4 * codes as u128)
}
