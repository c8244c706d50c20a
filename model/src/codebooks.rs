//! The codebooks of a model: one safetensors file, made once per model by calibration.
//!
//! # The native format, version 2
//!
//! | tensor | shape | dtype | what |
//! |---|---|---|---|
//! | `layers.N.codewords` | `[kv_heads, codewords, head_dim]` | f32, f16 or bf16 | codewords ĉ in key space |
//! | `layers.N.cholesky` | `[kv_heads, head_dim, head_dim]` | f32 | L_H, lower triangular: the factor of the queries' second moment |
//!
//! for N from 0 to the number of layers less one, and in `__metadata__` (all strings):
//!
//! | key | what |
//! |---|---|
//! | `format` | `a2ats-codebooks` |
//! | `format_version` | `2` |
//! | `layers`, `kv_heads`, `head_dim` | the model's shape; must match |
//! | `rope_theta` | a number; must match |
//! | `rope_scaling` | `none`, `linear FACTOR`, or `llama3 FACTOR LOW HIGH ORIGINAL_POSITIONS`; must match |
//! | `model_identity` | the model's [`Identity`]; must match |
//! | `relative_position` | the fixed position that queries are rotated to for scoring, 2048 as a rule |
//! | `calibration` | JSON, free: how the file was made |
//!
//! # The reference form
//!
//! Also read: what the published code's pair of files amounts to, per layer `layers.N.codebook`
//! `[kv_heads, codewords, head_dim]` in the factor's space, `layers.N.cholesky` and `layers.N.inv_cholesky`
//! `[kv_heads, head_dim, head_dim]`, all f32; `relative_position` in the metadata or 2048. It says nothing about the
//! model but its shape.

pub mod import;
mod pickle;
mod pytorch;
pub(crate) mod solve;
pub mod write;

use crate::{
    error::{Error, Result},
    files::{identity::Identity, safetensors::Tensors},
    rope::RopeScaling,
    spec::Spec,
};
use a2ats_kernel::{Codebook, Dtype};
use rayon::prelude::*;
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

/// The value of `format` in the native format.
pub const FORMAT: &str = "a2ats-codebooks";

/// The value of `format_version` that this program reads.
pub const FORMAT_VERSION: &str = "2";

/// The key of the model's identity.
const IDENTITY: &str = "model_identity";

/// Where queries are rotated to for scoring if a file does not say (paper, section 4).
pub const DEFAULT_RELATIVE_POSITION: usize = 2048;

const REMEDY: &str = "make codebooks for this model";

/// The codebooks of all kv heads of all layers.
#[derive(Debug)]
pub struct Codebooks {
    label: PathBuf,
    relative_position: usize,
    metadata: HashMap<String, String>,
    /// `[layers][kv_heads]`
    books: Vec<Vec<Codebook>>,
}

/// The model that codebooks are for.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'m> {
    /// Its shape.
    pub spec: &'m Spec,
    /// What tells it from others of that shape.
    pub identity: &'m Identity,
}

impl Codebooks {
    /// Reads a codebook file in either form and keeps the codewords in `dtype`.
    ///
    /// # Errors
    /// If the file is unreadable, damaged, of another version, or made for another model.
    pub fn open(path: &Path, owner: Owner<'_>, dtype: Dtype) -> Result<Self> {
        Self::from_tensors(Tensors::open(path)?, owner, dtype)
    }

    /// Takes codebooks from an open file; see [`Codebooks::open`].
    ///
    /// # Errors
    /// As [`Codebooks::open`].
    pub fn from_tensors(tensors: Tensors, owner: Owner<'_>, dtype: Dtype) -> Result<Self> {
        let label = tensors.label().to_owned();
        let metadata = tensors.metadata().clone();
        let native = metadata.get("format").is_some_and(|format| format == FORMAT);
        if native {
            check_native(&label, &metadata, owner)?;
        } else if !tensors.contains("layers.0.codebook") {
            let problem = "is not a codebook file: neither the native format nor layers.0.codebook";
            return Err(Error::file(&label, problem, REMEDY));
        }
        check_layers(&tensors, &label, owner.spec, native)?;
        let read = if native { read_native } else { read_reference };
        let books = (0..owner.spec.num_hidden_layers)
            .map(|layer| {
                let parts = read(&tensors, owner.spec, layer)?;
                let heads = parts.into_par_iter().enumerate();
                let book = |(head, (codewords, cholesky)): (usize, (Vec<f32>, Vec<f32>))| {
                    Codebook::new(&codewords, &cholesky, owner.spec.head_dim, dtype).map_err(|error| {
                        Error::file(&label, format!("layer {layer}, kv head {head}: {error}"), REMEDY)
                    })
                };
                let mut books = heads.map(book).collect::<Result<Vec<_>>>()?;
                Codebook::gather(&mut books)?;
                Ok(books)
            })
            .collect::<Result<_>>()?;
        let relative_position = relative_position(&label, &metadata)?;
        Ok(Self { label, relative_position, metadata, books })
    }

    /// The file.
    pub fn label(&self) -> &Path {
        &self.label
    }

    /// Where queries are rotated to for scoring.
    pub const fn relative_position(&self) -> usize {
        self.relative_position
    }

    /// The strings of the file's metadata.
    pub const fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Codewords per kv head, of each layer.
    pub fn codes(&self) -> Vec<usize> {
        self.books.iter().map(|heads| heads[0].codes()).collect()
    }

    /// Most codewords of a kv head in any layer.
    pub fn most_codes(&self) -> usize {
        self.codes().into_iter().max().unwrap_or(0)
    }

    /// Storage type of the codewords in memory.
    pub fn dtype(&self) -> Dtype {
        self.books[0][0].dtype()
    }

    /// Bytes of codewords in memory, which one decode step reads.
    pub fn bytes(&self) -> usize {
        self.books.iter().flatten().map(Codebook::table_bytes).sum()
    }

    /// Whether these are codebooks for a model of that shape.
    pub(crate) fn fit(&self, spec: &Spec) -> bool {
        let heads = |heads: &Vec<Codebook>| {
            heads.len() == spec.num_key_value_heads
                && heads.iter().all(|book| book.head_dim() == spec.head_dim)
        };
        self.books.len() == spec.num_hidden_layers && self.books.iter().all(heads)
    }

    /// The codebook of one kv head.
    pub fn of_head(&self, layer: usize, kv_head: usize) -> &Codebook {
        &self.books[layer][kv_head]
    }
}

/// How `rope_scaling` is written in the metadata.
pub fn rope_scaling_name(spec: &Spec) -> String {
    match spec.rope_scaling {
        RopeScaling::Default => "none".to_owned(),
        RopeScaling::Linear { factor } => format!("linear {factor}"),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            format!("llama3 {factor} {low_freq_factor} {high_freq_factor} {original_max_position_embeddings}")
        }
    }
}

/// The facts about a model that its codebooks must state.
fn facts(owner: Owner<'_>) -> [(&'static str, String); 5] {
    let spec = owner.spec;
    [
        ("layers", spec.num_hidden_layers.to_string()),
        ("kv_heads", spec.num_key_value_heads.to_string()),
        ("head_dim", spec.head_dim.to_string()),
        ("rope_scaling", rope_scaling_name(spec)),
        (IDENTITY, owner.identity.as_str().to_owned()),
    ]
}

/// The metadata of a file in the native format.
pub(crate) fn native_metadata(
    owner: Owner<'_>,
    relative_position: usize,
    calibration: String,
) -> BTreeMap<String, String> {
    let stated = [
        ("format", FORMAT.to_owned()),
        ("format_version", FORMAT_VERSION.to_owned()),
        ("rope_theta", owner.spec.rope_theta.to_string()),
        ("relative_position", relative_position.to_string()),
        ("calibration", calibration),
    ];
    stated.into_iter().chain(facts(owner)).map(|(key, value)| (key.to_owned(), value)).collect()
}

fn check_native(label: &Path, metadata: &HashMap<String, String>, owner: Owner<'_>) -> Result<()> {
    let spec = owner.spec;
    let stated = |key: &str| metadata.get(key).map(String::as_str);
    if stated("format_version") != Some(FORMAT_VERSION) {
        let version = shown(stated("format_version"));
        let problem = format!("has format version {version}, this program reads {FORMAT_VERSION}");
        return Err(Error::file(label, problem, "use the program's version that made it, or make it again"));
    }
    for (key, want) in facts(owner) {
        let got = stated(key);
        let is_right = match key {
            IDENTITY => got.is_some_and(|got| owner.identity.accepts(got)),
            _ => got == Some(&want),
        };
        if !is_right {
            let got = shown(got);
            let problem = format!("was made for another model: its {key} is {got}, the model's is {want}");
            return Err(Error::file(label, problem, REMEDY));
        }
    }
    let theta = stated("rope_theta");
    if theta.and_then(|theta| theta.parse().ok()) != Some(spec.rope_theta) {
        let (theta, want) = (shown(theta), spec.rope_theta);
        let problem = format!("was made for another model: its rope_theta is {theta}, the model's is {want}");
        return Err(Error::file(label, problem, REMEDY));
    }
    Ok(())
}

/// What a file states, fit for one line of a terminal: the file may be anyone's.
fn shown(stated: Option<&str>) -> String {
    const LONGEST: usize = 80;
    let Some(text) = stated else { return "not stated".to_owned() };
    let short: String = text.chars().take(LONGEST).collect();
    format!("{short:?}{}", if short.len() < text.len() { "…" } else { "" })
}

/// Refuses a file for more layers than the model has; fewer are found missing when they are read.
fn check_layers(tensors: &Tensors, label: &Path, spec: &Spec, native: bool) -> Result<()> {
    let table = if native { "codewords" } else { "codebook" };
    if tensors.contains(&format!("layers.{}.{table}", spec.num_hidden_layers)) {
        let problem = format!("has more layers than the model's {}", spec.num_hidden_layers);
        return Err(Error::file(label, problem, REMEDY));
    }
    Ok(())
}

fn relative_position(label: &Path, metadata: &HashMap<String, String>) -> Result<usize> {
    let Some(text) = metadata.get("relative_position") else { return Ok(DEFAULT_RELATIVE_POSITION) };
    match text.parse() {
        Ok(position) if position < 1 << 32 => Ok(position),
        _ => Err(Error::file(label, format!("has relative_position {}", shown(Some(text))), REMEDY)),
    }
}

/// Shape of a layer's table, `[kv_heads, codewords, head_dim]`; the number of codewords is the file's to say.
fn table_shape(tensors: &Tensors, name: &str, spec: &Spec) -> Result<[usize; 3]> {
    match tensors.shape(name) {
        Some(&[heads, codes, d]) if heads == spec.num_key_value_heads && d == spec.head_dim && codes > 0 => {
            Ok([heads, codes, d])
        }
        Some(other) => {
            let (heads, d) = (spec.num_key_value_heads, spec.head_dim);
            let problem =
                format!("{name} has shape {other:?} where the model needs [{heads}, codewords, {d}]");
            Err(Error::file(tensors.label(), problem, REMEDY))
        }
        None => Err(Error::file(tensors.label(), format!("has no tensor {name}"), REMEDY)),
    }
}

/// Codewords in key space and Cholesky factor of each kv head.
type HeadParts = Vec<(Vec<f32>, Vec<f32>)>;

fn read_native(tensors: &Tensors, spec: &Spec, layer: usize) -> Result<HeadParts> {
    let name = format!("layers.{layer}.codewords");
    let shape = table_shape(tensors, &name, spec)?;
    let codewords = tensors.stored(&name, &shape)?.elements().to_f32();
    let d = spec.head_dim;
    let factors = tensors.stored(&format!("layers.{layer}.cholesky"), &[shape[0], d, d])?.elements().to_f32();
    let heads = codewords.chunks_exact(shape[1] * d).zip(factors.chunks_exact(d * d));
    Ok(heads.map(|(codewords, factor)| (codewords.to_vec(), factor.to_vec())).collect())
}

fn read_reference(tensors: &Tensors, spec: &Spec, layer: usize) -> Result<HeadParts> {
    let name = format!("layers.{layer}.codebook");
    let shape = table_shape(tensors, &name, spec)?;
    let d = spec.head_dim;
    let centroids = tensors.stored(&name, &shape)?.elements().to_f32();
    let factors = tensors.stored(&format!("layers.{layer}.cholesky"), &[shape[0], d, d])?.elements().to_f32();
    let inverses =
        tensors.stored(&format!("layers.{layer}.inv_cholesky"), &[shape[0], d, d])?.elements().to_f32();
    let heads = centroids.par_chunks_exact(shape[1] * d).zip(inverses.par_chunks_exact(d * d));
    let codewords: Vec<Vec<f32>> =
        heads.map(|(centroids, inverse)| to_key_space(centroids, inverse, d)).collect();
    Ok(codewords.into_iter().zip(factors.chunks_exact(d * d).map(<[f32]>::to_vec)).collect())
}

/// ĉ = c·L_H⁻¹ for each row c, in f64.
fn to_key_space(centroids: &[f32], inverse: &[f32], head_dim: usize) -> Vec<f32> {
    let mut codewords = Vec::with_capacity(centroids.len());
    let mut sum = vec![0.0_f64; head_dim];
    for centroid in centroids.chunks_exact(head_dim) {
        sum.fill(0.0);
        for (&x, row) in centroid.iter().zip(inverse.chunks_exact(head_dim)) {
            for (sum, &y) in sum.iter_mut().zip(row) {
                *sum += f64::from(x) * f64::from(y);
            }
        }
        codewords.extend(sum.iter().map(|&x| x as f32));
    }
    codewords
}
