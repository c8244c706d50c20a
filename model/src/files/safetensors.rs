//! Tensors of a checkpoint, memory-mapped and used where they lie.

use super::mapped::{Bytes, Loading};
use crate::error::{Error, Result};
use a2ats_kernel::{Dtype, Elements};
use safetensors::{SafeTensors, tensor::Metadata};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// Where a tensor is.
#[derive(Debug, Clone)]
struct Tensor {
    file: usize,
    bytes: Range<usize>,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
}

/// The tensors of one or more safetensors files, by name.
#[derive(Debug)]
pub struct Tensors {
    files: Vec<(PathBuf, Arc<Bytes>)>,
    tensors: HashMap<String, Tensor>,
    metadata: HashMap<String, String>,
}

/// A tensor as it is stored.
pub(super) struct Raw<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: String,
    pub(super) shape: &'a [usize],
    pub(super) bytes: &'a [u8],
}

/// A tensor of f32, f16 or bf16, used where it lies; holds on to its file.
#[derive(Debug, Clone)]
pub struct Stored {
    file: Arc<Bytes>,
    bytes: Range<usize>,
    dtype: Dtype,
}

impl Stored {
    /// The elements.
    pub fn elements(&self) -> Elements<'_> {
        Elements::from_bytes(self.dtype, &self.file[self.bytes.clone()])
            .expect("length and alignment were checked when the tensor was located")
    }
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Tensors {
    /// The checkpoint of a model folder: model.safetensors, or the shards that model.safetensors.index.json names.
    ///
    /// # Errors
    /// If there is neither, or a file is not a whole and lawful safetensors file.
    pub fn open_model(folder: &Path, mut loading: Loading<'_>) -> Result<Self> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        if single.exists() || !index.exists() {
            if !single.exists() {
                let problem = "holds neither model.safetensors nor model.safetensors.index.json";
                return Err(Error::file(
                    folder,
                    problem,
                    "give a model folder as downloaded from Hugging Face",
                ));
            }
            let mut whole = Self::empty();
            whole.add(&single, Bytes::load(&single, &mut loading)?)?;
            return Ok(whole);
        }
        let mut whole = Self::empty();
        for shard in shard_names(&index)? {
            let path = folder.join(&shard);
            whole.add(&path, Bytes::load(&path, &mut loading)?)?;
        }
        Ok(whole)
    }

    /// A single safetensors file.
    ///
    /// # Errors
    /// If it cannot be read or is not a whole and lawful safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        let mut whole = Self::empty();
        whole.add(path, Bytes::load(path, &mut Loading::Map)?)?;
        Ok(whole)
    }

    /// A safetensors file that is part of the program; `label` stands for its name in errors.
    ///
    /// # Errors
    /// If it is not a whole and lawful safetensors file.
    pub fn embedded(bytes: &'static [u8], label: &Path) -> Result<Self> {
        let mut whole = Self::empty();
        whole.add(label, Bytes::Embedded(bytes))?;
        Ok(whole)
    }

    fn empty() -> Self {
        Self { files: Vec::new(), tensors: HashMap::new(), metadata: HashMap::new() }
    }

    fn add(&mut self, path: &Path, bytes: Bytes) -> Result<()> {
        let (header, metadata) = read_header(&bytes).map_err(|problem| {
            Error::file(path, format!("not a whole safetensors file ({problem})"), "download it again")
        })?;
        let file = self.files.len();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let bytes = header + start..header + end;
            let tensor = Tensor { file, bytes, dtype: info.dtype, shape: info.shape.clone() };
            self.tensors.insert(name, tensor);
        }
        self.metadata.extend(metadata.metadata().clone().unwrap_or_default());
        self.files.push((path.to_owned(), Arc::new(bytes)));
        Ok(())
    }

    /// The strings of the files' `__metadata__`.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| &tensor.shape[..])
    }

    /// All tensors, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = Raw<'_>> {
        let mut names: Vec<&String> = self.tensors.keys().collect();
        names.sort();
        names.into_iter().map(|name| {
            let Tensor { file, bytes, dtype, shape } = &self.tensors[name];
            let bytes = &self.files[*file].1[bytes.clone()];
            Raw { name, dtype: format!("{dtype:?}"), shape, bytes }
        })
    }

    /// Bytes of all the files.
    pub fn bytes(&self) -> usize {
        self.files.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Bytes of those that are mapped, which count as free memory while they are read again and again.
    pub fn mapped_bytes(&self) -> usize {
        let mapped = self.files.iter().filter(|(_, bytes)| bytes.is_mapped());
        mapped.map(|(_, bytes)| bytes.len()).sum()
    }

    /// The file that errors about this checkpoint should name.
    pub fn label(&self) -> &Path {
        self.files.first().map_or(Path::new("checkpoint"), |(path, _)| path)
    }

    /// The element type of a tensor, as a word for reports.
    pub fn dtype_name(&self, name: &str) -> Option<String> {
        self.tensors.get(name).map(|tensor| format!("{:?}", tensor.dtype).to_lowercase())
    }

    /// A tensor of exactly this shape, to be used in place.
    ///
    /// # Errors
    /// If it is missing, or has another shape or an element type other than f32, f16 and bf16.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored> {
        let (tensor, dtype) = self.locate(name, shape)?;
        let (path, file) = &self.files[tensor.file];
        let bytes = &file[tensor.bytes.clone()];
        if Elements::from_bytes(dtype, bytes).is_some() {
            return Ok(Stored { file: Arc::clone(file), bytes: tensor.bytes.clone(), dtype });
        }
        let len = bytes.len();
        Ok(Stored { file: Arc::new(Bytes::copied(bytes, path)?), bytes: 0..len, dtype })
    }

    /// A vector, widened to f32; a number that is not finite is refused.
    ///
    /// # Errors
    /// As [`Tensors::stored`], and for NaN and infinities.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let values = self.stored(name, &[len])?.elements().to_f32();
        match values.iter().find(|x| !x.is_finite()) {
            None => Ok(values),
            Some(bad) => {
                let path = self.path_of(name);
                Err(Error::file(path, format!("tensor {name} contains {bad}"), "use an undamaged checkpoint"))
            }
        }
    }

    fn path_of(&self, name: &str) -> &Path {
        self.tensors.get(name).map_or(self.label(), |tensor| &self.files[tensor.file].0)
    }

    /// Finds a tensor and checks it against what is expected.
    fn locate(&self, name: &str, shape: &[usize]) -> Result<(&Tensor, Dtype)> {
        let Some(tensor) = self.tensors.get(name) else {
            let problem = format!("has no tensor {name}");
            return Err(Error::file(
                self.label(),
                problem,
                "config.json and weights must be of the same Llama model",
            ));
        };
        let path = &self.files[tensor.file].0;
        let dtype = match tensor.dtype {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            other => {
                let problem = format!("tensor {name} has elements of type {other:?}");
                return Err(Error::file(
                    path,
                    problem,
                    "use a checkpoint in f32, f16 or bf16 (not a quantized one)",
                ));
            }
        };
        if tensor.shape != shape {
            let problem =
                format!("tensor {name} has shape {:?} where the model needs {shape:?}", tensor.shape);
            return Err(Error::file(path, problem, "config.json and weights must be of the same model"));
        }
        Ok((tensor, dtype))
    }
}

/// The length of the header, and what it says, checked against the length of the file.
fn read_header(bytes: &[u8]) -> Result<(usize, Metadata), String> {
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| format!("{error:?}"))?;
    Ok((header + 8, metadata))
}

/// The files that an index names: plain names only, each once.
fn shard_names(index: &Path) -> Result<Vec<String>> {
    let text = std::fs::read(index).map_err(Error::io(index))?;
    let parsed: ShardIndex = serde_json::from_slice(&text)
        .map_err(|error| Error::file(index, format!("not a shard index ({error})"), "download it again"))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    let plain = |name: &String| {
        let mut parts = Path::new(name).components();
        matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none()
    };
    match names.iter().find(|name| !plain(name)) {
        Some(bad) => {
            Err(Error::file(index, format!("names a shard outside its folder: {bad:?}"), "download it again"))
        }
        None if names.is_empty() => Err(Error::file(index, "names no shard", "download it again")),
        None => Ok(names),
    }
}
