//! Writing safetensors files: the same bytes every time, and never half a file.

use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

/// A tensor to write, its elements in several places.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    parts: Vec<&'a [u8]>,
}

impl<'a> Tensor<'a> {
    /// Of f32.
    pub fn f32(name: impl Into<String>, shape: Vec<usize>, parts: Vec<&'a [f32]>) -> Self {
        Self {
            name: name.into(),
            dtype: "F32",
            shape,
            parts: parts.into_iter().map(bytemuck::cast_slice).collect(),
        }
    }

    /// Of f64.
    pub fn f64(name: impl Into<String>, shape: Vec<usize>, parts: Vec<&'a [f64]>) -> Self {
        Self {
            name: name.into(),
            dtype: "F64",
            shape,
            parts: parts.into_iter().map(bytemuck::cast_slice).collect(),
        }
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }
}

/// Writes a safetensors file: under another name first, which is its own when it is whole and on the disk. (The library
/// for these files writes its metadata in the order of a hash map, which is another one each time.)
///
/// # Errors
/// If the file cannot be written. What was there before is left alone then.
pub fn write(path: &Path, metadata: &BTreeMap<String, String>, tensors: &[Tensor<'_>]) -> Result<()> {
    whole(path, |file| {
        let header = header(metadata, tensors);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        tensors.iter().flat_map(|tensor| &tensor.parts).try_for_each(|part| file.write_all(part))
    })
}

/// Makes a file by `fill`, under another name until it is whole and on the disk.
///
/// # Errors
/// If it cannot be written.
pub fn whole(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let written = File::create(&part).and_then(|file| {
        let mut file = BufWriter::new(file);
        fill(&mut file)?;
        file.into_inner().map_err(|error| error.into_error())?.sync_all()?;
        std::fs::rename(&part, path)
    });
    written.map_err(|error| {
        // The error is what counts, not whether the rest of the file could be removed.
        let _ = std::fs::remove_file(&part);
        Error::io(path)(error)
    })
}

/// What stands in front of the data, padded to whole multiples of eight bytes with spaces, as the format asks for.
fn header(metadata: &BTreeMap<String, String>, tensors: &[Tensor<'_>]) -> String {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!(metadata));
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.bytes();
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        entries.insert(tensor.name.clone(), entry);
        start = end;
    }
    let mut header = Value::Object(entries).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    header
}

#[cfg(test)]
mod tests {
    use super::{Tensor, write};
    use std::collections::BTreeMap;

    fn metadata() -> BTreeMap<String, String> {
        ["b", "a", "c"].map(|key| (key.to_owned(), format!("value of {key}"))).into()
    }

    #[test]
    fn files_are_lawful_and_hold_what_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.safetensors");
        let tensors = [
            Tensor::f32("x", vec![2, 2], vec![&[1.0, 2.0], &[3.0, 4.0]]),
            Tensor::f64("y", vec![1], vec![&[0.1]]),
        ];
        write(&path, &metadata(), &tensors).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let x = read.tensor("x").unwrap();
        assert_eq!((x.shape(), x.dtype()), (&[2, 2][..], safetensors::Dtype::F32));
        assert_eq!(x.data(), bytemuck::bytes_of(&[1.0_f32, 2.0, 3.0, 4.0]));
        assert_eq!(read.tensor("y").unwrap().data(), bytemuck::bytes_of(&0.1_f64));
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().clone().unwrap()["b"], "value of b");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("occupied");
        std::fs::create_dir_all(path.join("by a folder")).unwrap();
        let error = write(&path, &metadata(), &[]).unwrap_err().to_string();
        assert!(error.contains("occupied"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
