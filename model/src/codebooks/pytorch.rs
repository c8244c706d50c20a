//! Lists of tensors as `torch.save` writes them: a zip archive of a pickle and the numbers.

use super::pickle::{self, Tensor, Value};
use crate::error::{Error, Result};
use half::{bf16, f16};
use std::{
    borrow::Cow,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};
use zip::ZipArchive;

/// A tensor in f32.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Numbers {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// Largest pickle: one of a list of tensors has some two hundred bytes for each.
const LARGEST_PICKLE: u64 = 16 << 20;

const REMEDY: &str = "give a file that torch.save made of a list of tensors";

/// The tensors of a file.
///
/// # Errors
/// If it cannot be read, or is something else.
pub(super) fn read(path: &Path) -> Result<Vec<Numbers>> {
    let file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let refuse = |problem: String| Error::file(path, problem, REMEDY);
    let mut archive =
        ZipArchive::new(file).map_err(|error| refuse(format!("is not a PyTorch archive ({error})")))?;
    let pickle = archive.file_names().flatten().map(Cow::into_owned).find(|name| name.ends_with("/data.pkl"));
    let pickle = pickle.ok_or_else(|| refuse("is not a PyTorch archive: it holds no data.pkl".to_owned()))?;
    let root = pickle.trim_end_matches("data.pkl").to_owned();
    let program = entry(&mut archive, &pickle, LARGEST_PICKLE).map_err(refuse)?;
    if archive.index_for_name(&format!("{root}byteorder")).is_some() {
        let order = entry(&mut archive, &format!("{root}byteorder"), 16).map_err(refuse)?;
        if order != b"little" {
            return Err(refuse("its numbers are not little-endian".to_owned()));
        }
    }
    let value = pickle::read(&program)
        .map_err(|problem| refuse(format!("its pickle is not of tensors: {problem}")))?;
    let (Value::List(items) | Value::Tuple(items)) = value else {
        return Err(refuse("holds no list of tensors".to_owned()));
    };
    let tensor = |item| match item {
        Value::Tensor(tensor) => numbers(&mut archive, &root, &tensor).map_err(refuse),
        _ => Err(refuse("holds a list of something else than tensors".to_owned())),
    };
    items.into_iter().map(tensor).collect()
}

/// An entry of the archive, no longer than it may be.
fn entry(archive: &mut ZipArchive<BufReader<File>>, name: &str, longest: u64) -> Result<Vec<u8>, String> {
    let wrong = |problem: String| format!("its entry {name:?} {problem}");
    let entry = archive.by_name(name).map_err(|error| wrong(format!("cannot be read ({error})")))?;
    let mut bytes = Vec::new();
    entry
        .take(longest + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| wrong(format!("cannot be read ({error})")))?;
    if bytes.len() as u64 > longest {
        return Err(wrong(format!("has more than {longest} bytes")));
    }
    Ok(bytes)
}

/// A tensor's numbers, in the order of its shape.
fn numbers(
    archive: &mut ZipArchive<BufReader<File>>,
    root: &str,
    tensor: &Tensor,
) -> Result<Numbers, String> {
    let storage = &tensor.storage;
    let (size, widen): (usize, fn(&[u8]) -> f32) = match storage.class.as_str() {
        "torch FloatStorage" => (4, |x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])),
        "torch HalfStorage" => (2, |x| f16::from_le_bytes([x[0], x[1]]).to_f32()),
        "torch BFloat16Storage" => (2, |x| bf16::from_le_bytes([x[0], x[1]]).to_f32()),
        "torch DoubleStorage" => {
            (8, |x| f64::from_le_bytes([x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]]) as f32)
        }
        other => return Err(format!("its numbers are of {other:?}, not of f32, f16, bf16 or f64")),
    };
    let bytes = entry(
        archive,
        &format!("{root}data/{}", storage.key),
        (storage.len as u64).saturating_mul(size as u64),
    )?;
    let count = tensor.shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    let outside = || "a tensor reaches outside its numbers".to_owned();
    let count = count.filter(|&count| count <= bytes.len() / size).ok_or_else(outside)?;
    if tensor.shape.len() != tensor.strides.len() {
        return Err("a tensor has another number of strides than of dimensions".to_owned());
    }
    let mut values = Vec::with_capacity(count);
    let mut index = vec![0; tensor.shape.len()];
    for _ in 0..count {
        let mut steps = index.iter().zip(&tensor.strides);
        let at = steps.try_fold(tensor.offset, |sum, (&at, &stride): (&usize, _)| {
            sum.checked_add(at.checked_mul(stride)?)
        });
        let bytes = at.and_then(|at| bytes.get(at.checked_mul(size)?..)?.get(..size)).ok_or_else(outside)?;
        values.push(widen(bytes));
        for (at, &size) in index.iter_mut().zip(&tensor.shape).rev() {
            *at += 1;
            if *at < size {
                break;
            }
            *at = 0;
        }
    }
    Ok(Numbers { shape: tensor.shape.clone(), values })
}
