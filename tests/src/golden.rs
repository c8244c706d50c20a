//! Recorded runs of the published code: a Hugging Face folder with codebooks and the figures it printed.

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The parameters of a recorded run, from its reference.json.
#[derive(Debug, Clone, Deserialize)]
pub struct Parameters {
    /// Share of the context that each query head retrieves.
    pub top_k: f64,
    /// Last positions that are always attended.
    pub window: usize,
    /// First positions that are always attended.
    pub sinks: usize,
    /// Mean squared error of the keys that the codebooks were made from, in the metric of the queries; by layer, then by kv
    /// head.
    pub kmeans_mean_sq_error_per_head: Vec<f64>,
}

impl Parameters {
    /// Reads the reference.json of a folder.
    ///
    /// # Errors
    /// A line that names the file and what is wrong with it.
    pub fn load(folder: &Path) -> Result<Self, String> {
        let file = folder.join("reference.json");
        let text = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))
    }
}

/// A recorded run.
#[derive(Debug, Clone)]
pub struct Golden {
    /// The folder of model, codebooks and figures.
    pub folder: PathBuf,
    /// How it was run.
    pub parameters: Parameters,
    /// Tokens that were read densely.
    pub prompt: Vec<u32>,
    /// Tokens that were made, one per row of `logits`.
    pub generated: Vec<u32>,
    /// `[generated, vocabulary]`: row 0 after the prompt, the others after sparse steps.
    pub logits: Vec<f32>,
    /// The same with dense attention.
    pub dense_logits: Vec<f32>,
    /// `[layers, kv_heads, prompt + generated − 1]`
    pub codes: Vec<i64>,
    /// Per sparse step the mean share of the context that retrieval picked.
    pub union_fraction: Vec<f32>,
    /// As `logits`, with what is not attended estimated.
    pub estimate_logits: Vec<f32>,
}

/// The cases in this crate.
pub const CASES: [&str; 4] = ["demo-ledger", "gqa4-d128-f16", "gqa4-d64", "mha-d32-tied"];

/// The folder of one of [`CASES`].
pub fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

impl Golden {
    /// Reads a folder in the golden format.
    ///
    /// # Errors
    /// A line that names the file and what is wrong with it.
    pub fn load(folder: &Path) -> Result<Self, String> {
        let parameters = Parameters::load(folder)?;
        let expected = Tensors::load(&folder.join("expected.safetensors"))?;
        let with_estimate = Tensors::load(&folder.join("expected_tail.safetensors"))?;
        let ids = |name: &str| -> Result<Vec<u32>, String> {
            let ids = expected.integers(name)?.into_iter().map(u32::try_from).collect::<Result<_, _>>();
            ids.map_err(|_| expected.wrong(format!("{name} has a negative id")))
        };
        Ok(Self {
            folder: folder.to_owned(),
            parameters,
            prompt: ids("prompt_ids")?,
            generated: ids("generated_ids")?,
            logits: expected.floats("logits")?,
            dense_logits: expected.floats("dense_logits")?,
            codes: expected.integers("codes")?,
            union_fraction: expected.floats("union_fraction")?,
            estimate_logits: with_estimate.floats("logits")?,
        })
    }
}

/// A file of figures.
struct Tensors {
    file: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    fn load(file: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Self { file: file.to_owned(), bytes })
    }

    fn wrong(&self, what: String) -> String {
        format!("{}: {what}", self.file.display())
    }

    /// A tensor's type and bytes.
    fn tensor(&self, name: &str) -> Result<(Dtype, &[u8]), String> {
        let tensors = SafeTensors::deserialize(&self.bytes).map_err(|error| self.wrong(error.to_string()))?;
        let tensor = tensors.tensor(name).map_err(|error| self.wrong(error.to_string()))?;
        Ok((tensor.dtype(), tensor.data()))
    }

    fn floats(&self, name: &str) -> Result<Vec<f32>, String> {
        match self.tensor(name)? {
            (Dtype::F32, data) => {
                Ok(data.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
            }
            (other, _) => Err(self.wrong(format!("{name} is {other:?}, not F32"))),
        }
    }

    fn integers(&self, name: &str) -> Result<Vec<i64>, String> {
        let (dtype, data) = self.tensor(name)?;
        match dtype {
            Dtype::I64 => Ok(data.as_chunks().0.iter().map(|word| i64::from_le_bytes(*word)).collect()),
            Dtype::I32 => {
                Ok(data.as_chunks().0.iter().map(|word| i32::from_le_bytes(*word).into()).collect())
            }
            Dtype::I16 => {
                Ok(data.as_chunks().0.iter().map(|word| i16::from_le_bytes(*word).into()).collect())
            }
            Dtype::U16 => {
                Ok(data.as_chunks().0.iter().map(|word| u16::from_le_bytes(*word).into()).collect())
            }
            other => Err(self.wrong(format!("{name} is {other:?}, not integers"))),
        }
    }
}
