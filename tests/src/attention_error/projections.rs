//! What a text becomes on its way to attention.

use crate::reader::Reader;
use a2ats_kernel::Dtype;
use a2ats_model::{Attention, Model, Observer, Result};
use std::sync::Mutex;

/// One kv head's, of all tokens; not rotated.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    /// `[n, group, head_dim]`
    queries: Vec<f32>,
    /// `[n, head_dim]`
    pub(super) keys: Vec<f32>,
    /// `[n, head_dim]`
    pub(super) values: Vec<f32>,
}

impl Head {
    /// The queries, the key and the value of a token.
    pub(super) fn token(&self, position: usize, head_dim: usize) -> (Vec<f32>, &[f32], &[f32]) {
        let width = self.queries.len() / self.keys.len() * head_dim;
        let at = position * head_dim..(position + 1) * head_dim;
        let queries = self.queries[position * width..(position + 1) * width].to_vec();
        (queries, &self.keys[at.clone()], &self.values[at])
    }
}

/// Queries, keys and values of a text, in all layers.
#[derive(Debug)]
pub struct Projections {
    kv_heads: usize,
    tokens: usize,
    /// `[layers, kv_heads]`
    heads: Vec<Head>,
}

struct Recorder {
    kv_heads: usize,
    heads: Vec<Mutex<Head>>,
}

impl Observer for Recorder {
    fn projected(
        &self,
        layer: usize,
        kv_head: usize,
        queries: &[f32],
        keys: &[f32],
        values: &[f32],
    ) -> Result<()> {
        let head = self.heads[layer * self.kv_heads + kv_head].lock();
        let mut head = head.unwrap_or_else(std::sync::PoisonError::into_inner);
        head.queries.extend_from_slice(queries);
        head.keys.extend_from_slice(keys);
        head.values.extend_from_slice(values);
        Ok(())
    }
}

impl Projections {
    /// Reads tokens densely.
    ///
    /// # Errors
    /// As prefill.
    pub fn new(model: &Model, ids: &[u32]) -> Result<Self> {
        let config = model.spec();
        let (layers, kv_heads) = (config.num_hidden_layers, config.num_key_value_heads);
        let heads = (0..layers * kv_heads).map(|_| Mutex::default()).collect();
        let recorder = Recorder { kv_heads, heads };
        let mut reader = Reader::new(model, None, Attention::Dense, Dtype::Bf16, ids.len())?;
        reader.read_observed(ids, Some(&recorder))?;
        let heads = recorder.heads.into_iter();
        let heads = heads.map(|head| head.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
        Ok(Self { kv_heads, tokens: ids.len(), heads: heads.collect() })
    }

    /// How many tokens there are.
    pub const fn tokens(&self) -> usize {
        self.tokens
    }

    pub(super) fn of_head(&self, layer: usize, kv_head: usize) -> &Head {
        &self.heads[layer * self.kv_heads + kv_head]
    }
}
