//! `config.json` as it is written, and the checks that turn it into a [`Spec`].

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    rope::RopeScaling,
    spec::Spec,
};

/// Largest width, head count or vocabulary: the product of two, times four bytes, stays below 2^50.
const LARGEST_SIZE: usize = 1 << 24;
const LARGEST_CONTEXT: usize = 1 << 30;
const LARGEST_LAYER_COUNT: usize = 1024;
const LARGEST_GROUP: usize = 16;
const HEAD_DIMS: std::ops::RangeInclusive<usize> = 16..=256;
const CORRECT: &str = "correct it, or download the file again";
const SUPPORTED: &str = "use a model whose model_type is \"llama\" or \"mistral\"";

/// The window of a Mistral whose file does not mention one; null means none.
fn mistral_window() -> Option<usize> {
    Some(4096)
}

/// The families that can be read.
#[derive(Debug, Clone, Copy)]
enum Family {
    /// `"llama"`.
    Llama,
    /// `"mistral"`: Llama's layers, with an optional sliding attention window.
    Mistral,
}

/// The keys of `config.json` that matter; every one optional, so that the error can say what is missing.
#[derive(Deserialize)]
#[serde(expecting = "a configuration object")]
struct RawConfig {
    model_type: Option<String>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    partial_rotary_factor: Option<f64>,
    max_position_embeddings: Option<usize>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    #[serde(default = "mistral_window")]
    sliding_window: Option<usize>,
    quantization_config: Option<Value>,
}

/// `rope_scaling`, or the `rope_parameters` that newer files have in its place.
#[derive(Deserialize)]
#[serde(expecting = "an object with a rope_type")]
struct RawRope {
    rope_type: Option<String>,
    r#type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f64>,
}

/// The token ids that both configuration files may name.
#[derive(Deserialize, Default)]
pub(super) struct Tokens {
    eos_token_id: Option<OneOrMany>,
    bos_token_id: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "eos_token_id is neither a token id nor a list of token ids")]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl Tokens {
    /// The end-of-text tokens, if the file names any.
    pub(super) fn eos(&self) -> Option<Vec<u32>> {
        match self.eos_token_id.as_ref()? {
            OneOrMany::One(id) => Some(vec![*id]),
            OneOrMany::Many(ids) => Some(ids.clone()).filter(|ids| !ids.is_empty()),
        }
    }

    /// The begin-of-text token, if the file names one.
    pub(super) fn bos(&self) -> Option<u32> {
        self.bos_token_id
    }
}

/// Reads the token ids of either file.
pub(super) fn parse_tokens(bytes: &[u8], label: &Path) -> Result<Tokens> {
    parse_json(bytes, label)
}

/// Reads and checks a `config.json`.
pub(super) fn parse(bytes: &[u8], label: &Path) -> Result<Spec> {
    Reader { raw: parse_json(bytes, label)?, label }.spec(bytes)
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8], label: &Path) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::file(label, error.to_string(), CORRECT))
}

struct Reader<'a> {
    raw: RawConfig,
    label: &'a Path,
}

impl Reader<'_> {
    fn spec(&self, bytes: &[u8]) -> Result<Spec> {
        let raw = &self.raw;
        let family = self.family()?;
        self.refuse_what_is_not_computed()?;
        let hidden_size = self.size("hidden_size", raw.hidden_size)?;
        let num_attention_heads = self.size("num_attention_heads", raw.num_attention_heads)?;
        let num_key_value_heads = raw.num_key_value_heads.unwrap_or(num_attention_heads);
        self.check_group(num_attention_heads, num_key_value_heads)?;
        let longest = raw.max_position_embeddings;
        let max_position_embeddings = self.at_most("max_position_embeddings", longest, LARGEST_CONTEXT)?;
        let tokens = parse_tokens(bytes, self.label)?;
        let layers = self.at_most("num_hidden_layers", raw.num_hidden_layers, LARGEST_LAYER_COUNT)?;
        Ok(Spec {
            hidden_size,
            intermediate_size: self.size("intermediate_size", raw.intermediate_size)?,
            num_hidden_layers: layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim: self.head_dim(hidden_size, num_attention_heads)?,
            vocab_size: self.size("vocab_size", raw.vocab_size)?,
            rms_norm_eps: self.positive("rms_norm_eps", raw.rms_norm_eps)?,
            rope_theta: self.rope_theta()?,
            rope_scaling: self.rope_scaling()?,
            max_position_embeddings,
            tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
            attention_bias: raw.attention_bias.unwrap_or(false),
            mlp_bias: raw.mlp_bias.unwrap_or(false),
            bos_token_id: tokens.bos(),
            eos_token_ids: tokens.eos().unwrap_or_default(),
            sliding_window: self.sliding_window(family, max_position_embeddings)?,
        })
    }

    fn family(&self) -> Result<Family> {
        match self.raw.model_type.as_deref() {
            Some("llama") => Ok(Family::Llama),
            Some("mistral") => Ok(Family::Mistral),
            Some(other) => self.refuse(format!("model_type {other:?} is not supported"), SUPPORTED),
            None => self.refuse("model_type is missing", SUPPORTED),
        }
    }

    /// Features that change the arithmetic and would go unnoticed otherwise.
    fn refuse_what_is_not_computed(&self) -> Result<()> {
        let raw = &self.raw;
        if let Some(quantization) = &raw.quantization_config {
            let method = quantization.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
            let problem = format!("quantization_config asks for the method {method:?}");
            return self.refuse(problem, "use the model's unquantized bfloat16, float16 or float32 version");
        }
        for (key, activation) in
            [("hidden_act", &raw.hidden_act), ("hidden_activation", &raw.hidden_activation)]
        {
            if let Some(activation) = activation.as_deref().filter(|&name| name != "silu") {
                return self
                    .refuse(format!("{key} {activation:?} is not supported"), "use a model with \"silu\"");
            }
        }
        let nested = raw.rope_parameters.as_ref().and_then(|rope| rope.partial_rotary_factor);
        match [raw.partial_rotary_factor, nested].into_iter().flatten().find(|&part| part != 1.0) {
            Some(part) => self.refuse(
                format!("partial_rotary_factor {part} is not supported"),
                "use a model that rotates whole heads",
            ),
            None => Ok(()),
        }
    }

    fn check_group(&self, heads: usize, key_value_heads: usize) -> Result<()> {
        self.size("num_key_value_heads", Some(key_value_heads))?;
        if !heads.is_multiple_of(key_value_heads) {
            let problem = format!(
                "num_attention_heads {heads} is not a multiple of num_key_value_heads {key_value_heads}"
            );
            return self.refuse(problem, CORRECT);
        }
        if heads / key_value_heads > LARGEST_GROUP {
            let problem =
                format!("num_attention_heads {heads} over num_key_value_heads {key_value_heads} is too many");
            return self.refuse(
                problem,
                format!("use a model with at most {LARGEST_GROUP} query heads per key head"),
            );
        }
        Ok(())
    }

    fn head_dim(&self, hidden_size: usize, heads: usize) -> Result<usize> {
        let head_dim = match self.raw.head_dim {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                let problem =
                    format!("hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}");
                return self.refuse(problem, "add the key head_dim, or download the file again");
            }
        };
        if !HEAD_DIMS.contains(&head_dim) || !head_dim.is_multiple_of(2) {
            return self.refuse(
                format!("head_dim is {head_dim}"),
                format!("use a model where it is even, from {} to {}", HEAD_DIMS.start(), HEAD_DIMS.end()),
            );
        }
        if head_dim * heads > LARGEST_SIZE {
            return self.refuse(format!("head_dim {head_dim} times {heads} heads is too large"), CORRECT);
        }
        Ok(head_dim)
    }

    fn rope_theta(&self) -> Result<f64> {
        let nested = self.raw.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        self.positive("rope_theta", Some(nested.or(self.raw.rope_theta).unwrap_or(10000.0)))
    }

    fn rope_scaling(&self) -> Result<RopeScaling> {
        let (rope, unnamed) = match (&self.raw.rope_parameters, &self.raw.rope_scaling) {
            (Some(_), Some(_)) => return self.refuse("has both rope_parameters and rope_scaling", CORRECT),
            (Some(rope), None) => (rope, Some("default")),
            (None, Some(rope)) => (rope, None),
            (None, None) => return Ok(RopeScaling::Default),
        };
        match rope.rope_type.as_deref().or(rope.r#type.as_deref()).or(unnamed) {
            Some("default") => Ok(RopeScaling::Default),
            Some("linear") => Ok(RopeScaling::Linear { factor: self.rope_factor(rope)? }),
            Some("llama3") => self.llama3(rope),
            Some(other) => self.refuse(
                format!("rope type {other:?} is not supported"),
                "use a model with \"default\", \"linear\" or \"llama3\"",
            ),
            None => self.refuse("rope_scaling has no rope_type", CORRECT),
        }
    }

    fn llama3(&self, rope: &RawRope) -> Result<RopeScaling> {
        let low_freq_factor = self.positive("low_freq_factor", rope.low_freq_factor)?;
        let high_freq_factor = self.positive("high_freq_factor", rope.high_freq_factor)?;
        if low_freq_factor >= high_freq_factor {
            let problem = format!("low_freq_factor {low_freq_factor} is not below high_freq_factor");
            return self.refuse(format!("{problem} {high_freq_factor}"), CORRECT);
        }
        let original = ("original_max_position_embeddings", rope.original_max_position_embeddings);
        Ok(RopeScaling::Llama3 {
            factor: self.rope_factor(rope)?,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: self.at_most(original.0, original.1, LARGEST_CONTEXT)?,
        })
    }

    fn rope_factor(&self, rope: &RawRope) -> Result<f64> {
        let factor = self.positive("the rope factor", rope.factor)?;
        if factor < 1.0 {
            return self.refuse(format!("the rope factor is {factor}, below 1"), CORRECT);
        }
        Ok(factor)
    }

    /// The window, where it is shorter than the context; Llama has none whatever the file says.
    fn sliding_window(&self, family: Family, longest: usize) -> Result<Option<usize>> {
        match (family, self.raw.sliding_window) {
            (Family::Mistral, Some(0)) => self.refuse("sliding_window is 0", CORRECT),
            (Family::Mistral, window) => Ok(window.filter(|&tokens| tokens < longest)),
            (Family::Llama, _) => Ok(None),
        }
    }

    fn size(&self, key: &str, value: Option<usize>) -> Result<usize> {
        self.at_most(key, value, LARGEST_SIZE)
    }

    fn at_most(&self, key: &str, value: Option<usize>, largest: usize) -> Result<usize> {
        match value {
            Some(value) if (1..=largest).contains(&value) => Ok(value),
            Some(value) => {
                self.refuse(format!("{key} is {value}, outside the range 1 to {largest}"), CORRECT)
            }
            None => self.refuse(format!("{key} is missing"), CORRECT),
        }
    }

    fn positive(&self, key: &str, value: Option<f64>) -> Result<f64> {
        match value {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            Some(value) => self.refuse(format!("{key} is {value}, not a positive number"), CORRECT),
            None => self.refuse(format!("{key} is missing"), CORRECT),
        }
    }

    fn refuse<T>(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Result<T> {
        Err(Error::file(self.label, problem, remedy))
    }
}
