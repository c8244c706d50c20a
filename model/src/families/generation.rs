//! `generation_config.json`: where text begins and ends.

use super::config_json;
use crate::{
    error::{Error, Result},
    spec::Spec,
};
use std::path::Path;

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
    /// such file, is taken from `spec`.
    ///
    /// # Errors
    /// [`Error::Io`] where the file exists but cannot be read, [`Error::File`] where it is not valid or a
    /// token id lies outside the vocabulary.
    pub fn load(folder: &Path, spec: &Spec) -> Result<Self> {
        let path = folder.join("generation_config.json");
        let tokens = match std::fs::read(&path) {
            Ok(bytes) => config_json::parse_tokens(&bytes, &path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => config_json::Tokens::default(),
            Err(error) => return Err(Error::io(&path)(error)),
        };
        let config_path = folder.join("config.json");
        let (eos_token_ids, eos_file) = match tokens.eos() {
            Some(ids) => (ids, &path),
            None => (spec.eos_token_ids.clone(), &config_path),
        };
        let (bos_token_id, bos_file) = match tokens.bos() {
            Some(id) => (Some(id), &path),
            None => (spec.bos_token_id, &config_path),
        };
        for &id in &eos_token_ids {
            check_token(id, "eos_token_id", spec.vocab_size, eos_file)?;
        }
        if let Some(id) = bos_token_id {
            check_token(id, "bos_token_id", spec.vocab_size, bos_file)?;
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
