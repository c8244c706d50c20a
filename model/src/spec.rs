//! The shape of a model, checked before anything is allocated.

use crate::rope::RopeScaling;

/// The shape of a Llama-style decoder, whatever file it was read from.
///
/// Every value has been checked: sizes are positive and at most 2^24, so that the product of any two fits
/// 64 bits with room to spare, and `num_attention_heads` is a multiple of `num_key_value_heads`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Spec {
    /// Length of the vector that travels from layer to layer.
    pub hidden_size: usize,
    /// Length of the gated vector inside a feed-forward block.
    pub intermediate_size: usize,
    /// Number of decoder layers, at most 1024.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides the number of query heads.
    pub num_key_value_heads: usize,
    /// Length of one head's vector: even, from 16 to 256.
    pub head_dim: usize,
    /// Number of rows of the embedding and of the output matrix; token ids are below it.
    pub vocab_size: usize,
    /// What is added to the mean square before its root is taken.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched for long contexts.
    pub rope_scaling: RopeScaling,
    /// Number of tokens that the model was made for.
    pub max_position_embeddings: usize,
    /// Whether the output matrix is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether the four projections of attention add a bias.
    pub attention_bias: bool,
    /// Whether the three projections of a feed-forward block add a bias.
    pub mlp_bias: bool,
    /// Begin-of-text token, as written: possibly outside the vocabulary (see [`GenerationConfig`](crate::families::GenerationConfig)).
    pub bos_token_id: Option<u32>,
    /// End-of-text tokens, as written: possibly outside the vocabulary (see [`GenerationConfig`](crate::families::GenerationConfig)).
    pub eos_token_ids: Vec<u32>,
    /// Longest context, in tokens, over which the model attends to everything, where it is shorter than
    /// `max_position_embeddings`: the caller must refuse contexts beyond it.
    pub sliding_window: Option<usize>,
}

impl Spec {
    /// Number of query heads that share a key and value head, from 1 to 16.
    pub fn group(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Angle per position of each rotated pair, in radians: `[head_dim / 2]`, the scaling applied.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        let pairs = self.head_dim / 2;
        let plain = |pair: usize| self.rope_theta.powf(-(pair as f64) / pairs as f64);
        (0..pairs).map(|pair| self.rope_scaling.apply(plain(pair))).collect()
    }
}
