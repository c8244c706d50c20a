//! Shares of a calibration, each of some layers, put together.

use super::{Report, Settings};
use crate::{
    codebooks::{
        self,
        write::{Tensor, write},
    },
    error::{Error, Result},
    files::safetensors::{Stored, Tensors},
};
use a2ats_kernel::Elements;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A share.
struct Share {
    tensors: Tensors,
    metadata: BTreeMap<String, String>,
    report: Report,
    /// Of its tensors: name, shape, elements.
    handles: Vec<(String, Vec<usize>, Stored)>,
}

/// What a codebook file of the native format says about how it was made.
///
/// # Errors
/// If it is not one, or was not made by calibration here.
pub fn read_report(path: &Path) -> Result<Report> {
    let tensors = Tensors::open(path)?;
    let stated = |key: &str| tensors.metadata().get(key);
    if stated("format").is_none_or(|format| format != codebooks::FORMAT) {
        return Err(Error::file(
            path,
            "is not a codebook file in the native format",
            "make it with a2ats calibrate",
        ));
    }
    let report = stated("calibration").and_then(|text| serde_json::from_str(text).ok());
    report.ok_or_else(|| {
        Error::file(path, "does not say how it was calibrated", "make it with a2ats calibrate")
    })
}

/// Puts files together that hold the codebooks of different layers of one model, made in the same way.
///
/// # Errors
/// If a file cannot be read, is for another model or was made in another way, if layers are missing or there twice, and if
/// the output cannot be written.
pub fn merge(paths: &[PathBuf], out: &Path) -> Result<Report> {
    let mut shares = paths.iter().map(|path| Share::open(path)).collect::<Result<Vec<_>>>()?;
    shares.sort_by_key(|share| share.report.settings.layers.start);
    let Some(first) = shares.first() else {
        return Err(Error::Usage("nothing to merge: give at least one codebook file".to_owned()));
    };
    let mut report = first.report.clone();
    report.heads.clear();
    report.settings.layers.end = report.settings.layers.start;
    for share in &shares {
        share.check(first, &report)?;
        report.settings.layers.end = share.report.settings.layers.end;
        report.heads.extend_from_slice(&share.report.heads);
    }
    let mut tensors = Vec::new();
    for share in &shares {
        for (name, shape, handle) in &share.handles {
            let Elements::F32(values) = handle.elements() else {
                return Err(Error::file(share.tensors.label(), format!("{name} is not f32"), REMEDY));
            };
            tensors.push(Tensor::f32(name, shape.clone(), vec![values]));
        }
    }
    let mut metadata = first.metadata.clone();
    let calibration = serde_json::to_string(&report).map_err(|error| Error::io(out)(error.into()))?;
    metadata.insert("calibration".to_owned(), calibration);
    write(out, &metadata, &tensors)?;
    Ok(report)
}

const REMEDY: &str = "merge what a2ats calibrate --layers made from the same model, text and settings";

impl Share {
    fn open(path: &Path) -> Result<Self> {
        let report = read_report(path)?;
        let tensors = Tensors::open(path)?;
        let mut handles = Vec::new();
        for layer in report.settings.layers.clone() {
            for part in ["codewords", "cholesky"] {
                let name = format!("layers.{layer}.{part}");
                let Some(&[heads, rows, d]) = tensors.shape(&name) else {
                    return Err(Error::file(path, format!("has no tensor {name}"), REMEDY));
                };
                let handle = tensors.stored(&name, &[heads, rows, d])?;
                handles.push((name, vec![heads, rows, d], handle));
            }
        }
        let mut metadata: BTreeMap<String, String> = tensors.metadata().clone().into_iter().collect();
        metadata.remove("calibration");
        Ok(Self { tensors, metadata, report, handles })
    }

    /// Refuses a share that does not go on where those before it end.
    fn check(&self, first: &Self, before: &Report) -> Result<()> {
        let refuse = |problem: String| Err(Error::file(self.tensors.label(), problem, REMEDY));
        let layers = &self.report.settings.layers;
        let alike = |report: &Report| Settings { layers: 0..0, ..report.settings.clone() };
        let tokens = |report: &Report| (report.tokens, report.held_out);
        if self.metadata != first.metadata {
            return refuse(format!("is for another model than {}", first.tensors.label().display()));
        }
        if (alike(&self.report), tokens(&self.report)) != (alike(&first.report), tokens(&first.report)) {
            return refuse(format!("was made in another way than {}", first.tensors.label().display()));
        }
        match layers.start.cmp(&before.settings.layers.end) {
            std::cmp::Ordering::Less => refuse(format!("has layer {} once more", layers.start)),
            std::cmp::Ordering::Greater => refuse(format!(
                "begins with layer {}: layer {} is missing",
                layers.start, before.settings.layers.end
            )),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }
}
