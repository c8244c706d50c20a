//! The folder in which a calibration is kept until its output is whole.

use super::{Settings, folder::Folder, keys::Keys};
use crate::{
    codebooks::write::whole,
    error::{Error, Result},
    files::{
        identity::Fnv,
        safetensors::{Stored, Tensors},
    },
    model::Model,
};
use a2ats_kernel::Elements;
use serde::{Deserialize, Serialize};
use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

const PLAN: &str = "plan.json";
const KEYS: &str = "keys";
const READING: &str = "reading.safetensors";

/// Whether a calibration makes files of that name.
fn is_ours(name: &str) -> bool {
    let numbers = name.strip_prefix("layer-").and_then(|name| name.strip_suffix(".safetensors"));
    let number = |text: &str| text.parse::<usize>().is_ok();
    let is_head = numbers
        .and_then(|numbers| numbers.split_once("-head-"))
        .is_some_and(|(layer, head)| number(layer) && number(head));
    is_head || [PLAN, KEYS, READING].contains(&name)
}

/// What a calibration in a folder is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Plan {
    model_identity: String,
    /// Of the token ids.
    text_fingerprint: String,
    tokens: usize,
    settings: Settings,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Work {
    folder: Folder,
    pub(super) keys: Keys,
    codewords: usize,
    head_dim: usize,
}

/// The folder that is kept beside an output until it is whole.
pub fn work_folder(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".calibration");
    out.with_file_name(name)
}

impl Work {
    /// Makes the folder for an output, or goes on with what is in it.
    pub(super) fn open(
        out: &Path,
        model: &Model,
        documents: &[Vec<u32>],
        settings: &Settings,
    ) -> Result<Self> {
        let folder = Folder::open(work_folder(out), PLAN, is_ours)?;
        let tokens = documents.iter().map(Vec::len).sum();
        let plan = Plan {
            model_identity: model.identity().as_str().to_owned(),
            text_fingerprint: text_fingerprint(documents),
            tokens,
            settings: settings.clone(),
        };
        keep_plan(&folder, &plan)?;
        let heads = settings.layers.len() * model.spec.num_key_value_heads;
        let head_dim = model.spec.head_dim;
        let keys = Keys::open(&folder.file(KEYS), heads, tokens, head_dim)?;
        Ok(Self { folder, keys, codewords: settings.codewords, head_dim })
    }

    /// Where the sums of what was read are kept.
    pub(super) fn reading(&self) -> PathBuf {
        self.folder.file(READING)
    }

    /// Where a finished head is kept.
    pub(super) fn head_file(&self, layer: usize, kv_head: usize) -> PathBuf {
        self.folder.file(format!("layer-{layer}-head-{kv_head}.safetensors"))
    }

    /// A finished head.
    pub(super) fn head(&self, layer: usize, kv_head: usize) -> Result<HeadFile> {
        let tensors = Tensors::open(&self.head_file(layer, kv_head))?;
        let codewords = tensors.stored("codewords", &[self.codewords, self.head_dim])?;
        let cholesky = tensors.stored("cholesky", &[self.head_dim, self.head_dim])?;
        Ok(HeadFile { tensors, codewords, cholesky })
    }

    /// Removes the folder with all files of the calibration, when the output is whole.
    pub(super) fn remove(self) -> Result<()> {
        self.folder.remove()
    }
}

/// Writes the plan down, or finds the same one there.
fn keep_plan(folder: &Folder, plan: &Plan) -> Result<()> {
    let path = folder.file(PLAN);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let found = serde_json::from_slice::<Plan>(&bytes).ok();
            if found.as_ref() == Some(plan) {
                return Ok(());
            }
            let what = found.map_or("is damaged", |found| difference(&found, plan));
            Err(Error::file(
                path,
                what,
                "repeat the command as it was begun, or remove the folder to begin anew",
            ))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = serde_json::to_vec_pretty(plan).map_err(|error| Error::io(&path)(error.into()))?;
            whole(&path, |file| file.write_all(&text))
        }
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// What an unfinished calibration was begun with.
fn difference(found: &Plan, plan: &Plan) -> &'static str {
    if found.model_identity != plan.model_identity {
        "was begun for another model"
    } else if (&found.text_fingerprint, found.tokens) != (&plan.text_fingerprint, plan.tokens) {
        "was begun with another text, or with more or less of it"
    } else {
        "was begun with other settings"
    }
}

/// 64-bit FNV-1a over the token ids and the documents' lengths.
fn text_fingerprint(documents: &[Vec<u32>]) -> String {
    let lengths = documents.iter().map(|document| document.len() as u64);
    let words = lengths.chain(documents.iter().flatten().map(|&id| u64::from(id)));
    let mut hash = Fnv::default();
    words.for_each(|word| hash.add(&word.to_le_bytes()));
    hash.to_string()
}

/// A finished head's file.
pub(super) struct HeadFile {
    tensors: Tensors,
    codewords: Stored,
    cholesky: Stored,
}

impl HeadFile {
    /// Its `codewords` or its `cholesky` factor.
    pub(super) fn f32(&self, name: &str) -> Result<&[f32]> {
        let handle = if name == "codewords" { &self.codewords } else { &self.cholesky };
        match handle.elements() {
            Elements::F32(values) => Ok(values),
            _ => Err(Error::file(self.tensors.label(), format!("{name} is not f32"), REMEDY)),
        }
    }

    /// What is written about it.
    pub(super) fn report(&self) -> Result<super::HeadReport> {
        let text = self.tensors.metadata().get("report").map_or("", String::as_str);
        serde_json::from_str(text).map_err(|error| {
            Error::file(self.tensors.label(), format!("its report is damaged ({error})"), REMEDY)
        })
    }
}

const REMEDY: &str = "remove the file: it is made again";
