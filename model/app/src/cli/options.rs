//! Options that several commands share.

use a2ats_kernel::{
    Dtype,
    decode::{Estimate, Sparsity},
};
use a2ats_model::{
    Attention, Error, Result,
    engine::{Request, sampling::SamplingOptions},
};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Which model, and how it is computed.
#[derive(Args)]
pub(super) struct ModelOptions {
    /// Model folder as downloaded from Hugging Face (config.json, *.safetensors, tokenizer.json); without it, the
    /// embedded demo model.
    #[arg(long, short, value_name = "DIR")]
    pub(super) model: Option<PathBuf>,

    /// The model's codebooks; without it, codebooks.safetensors or codebooks_reference.safetensors in the model folder
    /// if there is one.
    #[arg(long, value_name = "FILE")]
    pub(super) codebooks: Option<PathBuf>,

    /// How decode steps attend: to all tokens, to the retrieved ones, or to all as long as that is the faster way here.
    /// Without codebooks, auto is dense.
    #[arg(long, value_enum, default_value_t = AttentionName::Auto)]
    attention: AttentionName,

    /// Tokens from which on --attention auto attends to the retrieved ones; without it, what a measurement says when the
    /// model is loaded, rounded to a power of two. `a2ats info` shows it.
    #[arg(long, value_name = "TOKENS")]
    pub(super) sparse_from: Option<usize>,

    /// Share of the context that each query head retrieves (the paper's top-k); 0 leaves window and sinks.
    #[arg(long, value_name = "SHARE", default_value_t = 0.03, allow_negative_numbers = true)]
    retrieve: f64,

    /// Last tokens that are always attended.
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    window: usize,

    /// First tokens that are always attended.
    #[arg(long, value_name = "TOKENS", default_value_t = 8)]
    sinks: usize,

    /// Estimate what is not attended from sums of values by code: attention comes closer to dense, on the demo model 1.7 to 3.3
    /// times, for a quarter more time at most. With it, --retrieve 0.01 is faster than 0.03 without, and closer too.
    #[arg(long, value_enum, default_value_t = EstimateName::On)]
    estimate: EstimateName,

    /// Storage type of the KV cache: bf16, f16 or f32.
    #[arg(long, value_name = "DTYPE", default_value = "bf16")]
    pub(super) kv_dtype: Dtype,

    /// Storage type of the codewords in memory: f16, bf16 or f32. f16 chooses the same tokens as f32 all but always;
    /// bf16 costs some of them.
    #[arg(long, value_name = "DTYPE", default_value = "f16")]
    pub(super) codeword_dtype: Dtype,

    /// How weights come into memory: mapped, as they are used, or copied first, so that the files may change meanwhile.
    #[arg(long, value_enum, default_value_t = Weights::Map)]
    pub(super) weights: Weights,

    /// Threads to compute with; without it, one per core. The numbers do not depend on it.
    #[arg(long, short, value_name = "N")]
    pub(super) threads: Option<usize>,
}

/// How weights come into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Weights {
    Map,
    Copy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AttentionName {
    Auto,
    A2ats,
    Dense,
}

#[derive(Clone, Copy, ValueEnum)]
enum EstimateName {
    /// With the scores that retrieval goes by.
    On,
    /// With scores averaged over the distances of the context: closer still, for about a tenth more time.
    Averaged,
    /// Not at all.
    Off,
}

impl ModelOptions {
    /// How to attend, given the codebooks if there are any. `measure` says from how many tokens on a sparse step pays.
    pub(super) fn attention(
        &self,
        has_codebooks: bool,
        measure: impl FnOnce(&Sparsity) -> Result<usize>,
    ) -> Result<Attention> {
        let estimate = match self.estimate {
            EstimateName::On => Estimate::Fixed,
            EstimateName::Averaged => Estimate::Averaged,
            EstimateName::Off => Estimate::Off,
        };
        let sparsity = Sparsity { retrieve: self.retrieve, window: self.window, sinks: self.sinks, estimate };
        if sparsity.check().is_err() {
            return Err(Error::Usage(format!(
                "--retrieve {} --window {}: give a share from 0 on and a window of at least 1",
                self.retrieve, self.window
            )));
        }
        match self.attention {
            AttentionName::Dense => Ok(Attention::Dense),
            AttentionName::A2ats => Ok(Attention::A2ats(sparsity)),
            AttentionName::Auto if has_codebooks => {
                let from = self.sparse_from.map_or_else(|| measure(&sparsity), Ok)?;
                Ok(Attention::Auto(sparsity, from))
            }
            AttentionName::Auto => Ok(Attention::Dense),
        }
    }

    /// Whether codebooks are of any use.
    pub(super) fn wants_codebooks(&self) -> bool {
        self.attention != AttentionName::Dense
    }

    /// Whether codebooks must be there.
    pub(super) fn needs_codebooks(&self) -> bool {
        self.attention == AttentionName::A2ats
    }
}

/// How the next token is chosen.
#[derive(Args)]
pub(super) struct SamplingArguments {
    /// Most tokens to make.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 256)]
    pub(super) max_new_tokens: usize,

    /// End the text in front of this string; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub(super) stop: Vec<String>,

    /// Divides the logits; 0 always takes the most probable token.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,

    /// Keeps the most probable tokens that add up to this probability.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,

    /// Keeps this many of the most probable tokens; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    top_k: usize,

    /// Keeps tokens at least this probable relative to the most probable one.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,

    /// Makes tokens that occurred before less probable; 1 does not.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    repetition_penalty: f32,

    /// Seed of the random numbers; matters with a temperature only.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SamplingArguments {
    /// A request with these options.
    pub(super) fn request(&self, prompt: Vec<u32>) -> Request {
        Request {
            prompt,
            sampling: self.options(),
            max_new_tokens: self.max_new_tokens,
            stop: self.stop.clone(),
            ..Request::default()
        }
    }

    pub(super) fn options(&self) -> SamplingOptions {
        SamplingOptions {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        }
    }
}
