//! `config.json` and `generation_config.json`: the shape of a model, checked before anything is allocated.

mod raw;
#[cfg(test)]
mod tests;

use std::f64::consts::TAU;
use std::path::Path;

use crate::error::{Error, Result};

/// The shape of a Llama-style decoder, as `config.json` gives it.
///
/// Every value has been checked: sizes are positive and at most 2^24, so that the product of any two fits
/// 64 bits with room to spare, and `num_attention_heads` is a multiple of `num_key_value_heads`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The family the weights come from.
    pub model_type: ModelType,
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
    /// Begin-of-text token, as written: possibly outside the vocabulary (see [`GenerationConfig::load`]).
    pub bos_token_id: Option<u32>,
    /// End-of-text tokens, as written: possibly outside the vocabulary (see [`GenerationConfig::load`]).
    pub eos_token_ids: Vec<u32>,
    sliding_window: Option<usize>,
}

/// The model families that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelType {
    /// `"llama"`.
    Llama,
    /// `"mistral"`: Llama's layers, with an optional sliding attention window.
    Mistral,
}

/// How the rotary frequencies differ from `rope_theta^(-2i / head_dim)`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// They do not.
    Default,
    /// All divided by one factor.
    Linear {
        /// The divisor, at least 1.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are divided by the factor, short ones kept, those between interpolated.
    Llama3 {
        /// The divisor of the long wavelengths, at least 1.
        factor: f64,
        /// Wavelengths above the original context length divided by this are long.
        low_freq_factor: f64,
        /// Wavelengths below the original context length divided by this are short.
        high_freq_factor: f64,
        /// Context length, in tokens, before the stretching.
        original_max_position_embeddings: usize,
    },
}

impl Config {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read, and those of [`Config::from_json`].
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        Self::from_json(&std::fs::read(&path).map_err(Error::io(&path))?, &path)
    }

    /// Reads the text of a `config.json`; `label` is the file name that errors give.
    ///
    /// # Errors
    /// [`Error::File`] naming the key and its value: not JSON, another model type, a quantized model, a
    /// missing key, or a value that cannot be computed with.
    pub fn from_json(bytes: &[u8], label: &Path) -> Result<Self> {
        raw::parse(bytes, label)
    }

    /// Number of query heads that share a key and value head, from 1 to 16.
    pub fn group(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Longest context, in tokens, over which the model attends to everything, where it is shorter than
    /// `max_position_embeddings`: the caller must refuse contexts beyond it.
    pub fn sliding_window(&self) -> Option<usize> {
        self.sliding_window
    }

    /// Angle per position of each rotated pair, in radians: `[head_dim / 2]`, the scaling applied.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        let pairs = self.head_dim / 2;
        let plain = |pair: usize| self.rope_theta.powf(-(pair as f64) / pairs as f64);
        (0..pairs).map(|pair| self.rope_scaling.apply(plain(pair))).collect()
    }
}

impl RopeScaling {
    /// One frequency, in radians per position, after the scaling.
    fn apply(self, frequency: f64) -> f64 {
        match self {
            Self::Default => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let (length, wavelength) = (original_max_position_embeddings as f64, TAU / frequency);
                if wavelength > length / low_freq_factor {
                    frequency / factor
                } else if wavelength < length / high_freq_factor {
                    frequency
                } else {
                    let band = high_freq_factor - low_freq_factor;
                    let smooth = (length / wavelength - low_freq_factor) / band;
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

/// Where generation starts and stops.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Any of these ends the text; empty where neither file names one.
    pub eos_token_ids: Vec<u32>,
    /// The token that begins a text, if there is one.
    pub bos_token_id: Option<u32>,
}

impl GenerationConfig {
    /// Reads `generation_config.json` in `folder`. What it does not say, or everything where there is no
    /// such file, is taken from `config`.
    ///
    /// # Errors
    /// [`Error::Io`] where the file exists but cannot be read, [`Error::File`] where it is not valid or a
    /// token id lies outside the vocabulary.
    pub fn load(folder: &Path, config: &Config) -> Result<Self> {
        let path = folder.join("generation_config.json");
        let tokens = match std::fs::read(&path) {
            Ok(bytes) => raw::parse_tokens(&bytes, &path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => raw::Tokens::default(),
            Err(error) => return Err(Error::io(&path)(error)),
        };
        let config_path = folder.join("config.json");
        let (eos_token_ids, eos_file) = match tokens.eos() {
            Some(ids) => (ids, &path),
            None => (config.eos_token_ids.clone(), &config_path),
        };
        let (bos_token_id, bos_file) = match tokens.bos() {
            Some(id) => (Some(id), &path),
            None => (config.bos_token_id, &config_path),
        };
        for &id in &eos_token_ids {
            check_token(id, "eos_token_id", config.vocab_size, eos_file)?;
        }
        if let Some(id) = bos_token_id {
            check_token(id, "bos_token_id", config.vocab_size, bos_file)?;
        }
        Ok(Self { eos_token_ids, bos_token_id })
    }
}

/// Refuses a token id outside the vocabulary.
fn check_token(id: u32, key: &str, vocab_size: usize, file: &Path) -> Result<()> {
    if (id as usize) < vocab_size {
        return Ok(());
    }
    let problem = format!("{key} is {id}, outside the vocabulary of {vocab_size} tokens");
    Err(Error::file(file, problem, "correct it, or download the file again"))
}
