//! The embedded demo: a tiny Llama that looks facts up in a ledger, its codebooks, and a ledger with a question.
//!
//! How it was made, and what it can do, is in mod../demo/README.md.

pub mod ledgers;

use crate::{
    codebooks::Codebooks, error::Result, families, files::safetensors::Tensors, model::Model,
    text::template::ChatTemplate, text::tokenizer::Tokenizer,
};
use a2ats_kernel::{Dtype, Kernels};
use std::path::Path;

/// Bytes aligned like a mapped file, so that tensors in them can be used in place.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! embed {
    ($file:literal) => {{
        static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!("../demo/", $file)));
        (&FILE.0, Path::new(concat!("demo/", $file)))
    }};
}

/// The built-in document: a ledger of 4086 tokens that ends in a question about one of its facts.
pub const DOCUMENT: &str = include_str!("../demo/ledger.txt");

/// What a user should know of the built-in document before the answer comes.
pub const QUESTION: &str = "what does the platypus guard?";

/// The demo model.
///
/// # Errors
/// None but those of a damaged program.
pub fn model(kernels: &'static dyn Kernels) -> Result<Model> {
    let (config, config_file) = embed!("config.json");
    let (weights, weights_file) = embed!("model.safetensors");
    Model::from_parts(
        families::from_json(config, config_file)?,
        Tensors::embedded(weights, weights_file)?,
        kernels,
    )
}

/// The demo model's codebooks.
///
/// # Errors
/// None but those of a damaged program.
pub fn codebooks(model: &Model, dtype: Dtype) -> Result<Codebooks> {
    let (bytes, file) = embed!("codebooks.safetensors");
    Codebooks::from_tensors(Tensors::embedded(bytes, file)?, model.owner(), dtype)
}

/// The demo model's tokenizer.
///
/// # Errors
/// None but those of a damaged program.
pub fn tokenizer() -> Result<Tokenizer> {
    let (bytes, file) = embed!("tokenizer.json");
    Tokenizer::from_bytes(bytes, file)
}

/// The demo model's chat template.
///
/// # Errors
/// None but those of a damaged program.
pub fn template() -> Result<Option<ChatTemplate>> {
    let (bytes, file) = embed!("tokenizer_config.json");
    ChatTemplate::from_tokenizer_config(bytes, file)
}
