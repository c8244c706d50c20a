//! The families of models that can be read, and how their files are read.

mod config_json;
mod generation;
#[cfg(test)]
mod tests;

pub use generation::GenerationConfig;

use crate::{
    error::{Error, Result},
    spec::Spec,
};
use std::path::Path;

/// Reads `config.json` in `folder`.
///
/// # Errors
/// [`Error::Io`] where the file cannot be read, and those of [`from_json`].
pub fn load(folder: &Path) -> Result<Spec> {
    let path = folder.join("config.json");
    from_json(&std::fs::read(&path).map_err(Error::io(&path))?, &path)
}

/// Reads the text of a `config.json`; `label` is the file name that errors give.
///
/// # Errors
/// [`Error::File`] naming the key and its value: not JSON, another model type, a quantized model, a
/// missing key, or a value that cannot be computed with.
pub fn from_json(bytes: &[u8], label: &Path) -> Result<Spec> {
    config_json::parse(bytes, label)
}
