//! Codebooks from elsewhere, brought into the native format.

use super::{
    Owner, check_layers, native_metadata, pytorch, read_reference,
    solve::solve_rows,
    write::{Tensor, write},
};
use crate::{
    error::{Error, Result},
    files::safetensors::Tensors,
    spec::Spec,
};
use a2ats_kernel::{Codebook, Dtype};
use serde_json::json;
use std::path::{Path, PathBuf};

/// What is brought in.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file in the reference form.
    Reference(PathBuf),
    /// The published code's pair: lists, by layer, of centroids `[kv_heads, codewords, head_dim]` in the factor's space, and of
    /// factors `[kv_heads, head_dim, head_dim]`.
    PyTorch {
        /// `*-codebooks.pt`
        codebooks: PathBuf,
        /// `*-cholesky_factors.pt`
        factors: PathBuf,
    },
}

impl Source {
    /// By the files' names: one `.safetensors`, or two `.pt` of which one is named after the Cholesky factors.
    ///
    /// # Errors
    /// If they are something else.
    pub fn from_names(files: &[PathBuf]) -> Result<Self> {
        let of_factors =
            |file: &Path| file.file_name().is_some_and(|name| name.to_string_lossy().contains("cholesky"));
        match files {
            [file] if file.extension().is_some_and(|extension| extension == "safetensors") => {
                Ok(Self::Reference(file.clone()))
            }
            [a, b] if of_factors(a) != of_factors(b) => {
                let (codebooks, factors) = if of_factors(b) { (a, b) } else { (b, a) };
                Ok(Self::PyTorch { codebooks: codebooks.clone(), factors: factors.clone() })
            }
            _ => Err(Error::Usage(
                "give one .safetensors file in the reference form, or two: …-codebooks.pt and …-cholesky_factors.pt"
                    .to_owned(),
            )),
        }
    }

    fn files(&self) -> Vec<&Path> {
        match self {
            Self::Reference(file) => vec![file],
            Self::PyTorch { codebooks, factors } => vec![codebooks, factors],
        }
    }
}

/// Codewords of all kv heads of a layer in key space, their factors, and how many codewords each head has.
struct LayerParts {
    codewords: Vec<f32>,
    factors: Vec<f32>,
    codes: usize,
}

/// Writes codebooks from elsewhere to `out` in the native format, as those of `model`.
///
/// # Errors
/// If a file cannot be read or does not fit the model, and if the output cannot be written.
pub fn import(owner: Owner<'_>, source: &Source, relative_position: usize, out: &Path) -> Result<()> {
    let spec = owner.spec;
    let (heads, d) = (spec.num_key_value_heads, spec.head_dim);
    let layers = match source {
        Source::Reference(file) => of_reference(spec, file)?,
        Source::PyTorch { codebooks, factors } => of_pytorch(spec, codebooks, factors)?,
    };
    for (layer, parts) in layers.iter().enumerate() {
        let each = parts.codewords.chunks_exact(parts.codes * d).zip(parts.factors.chunks_exact(d * d));
        for (head, (codewords, factor)) in each.enumerate() {
            Codebook::new(codewords, factor, d, Dtype::F32).map_err(|error| {
                Error::file(source.files()[0], format!("layer {layer}, kv head {head}: {error}"), REMEDY)
            })?;
        }
    }
    let tensors: Vec<Tensor<'_>> = layers
        .iter()
        .enumerate()
        .flat_map(|(layer, parts)| {
            let name = |part: &str| format!("layers.{layer}.{part}");
            [
                Tensor::f32(name("codewords"), vec![heads, parts.codes, d], vec![&parts.codewords]),
                Tensor::f32(name("cholesky"), vec![heads, d, d], vec![&parts.factors]),
            ]
        })
        .collect();
    let names: Vec<_> =
        source.files().into_iter().filter_map(Path::file_name).map(|name| name.to_string_lossy()).collect();
    let calibration = json!({ "imported_from": names }).to_string();
    write(out, &native_metadata(owner, relative_position, calibration), &tensors)
}

const REMEDY: &str = "import what was made for this model";

fn of_reference(spec: &Spec, file: &Path) -> Result<Vec<LayerParts>> {
    let tensors = Tensors::open(file)?;
    check_layers(&tensors, file, spec, false)?;
    let layer = |layer| {
        let parts = read_reference(&tensors, spec, layer)?;
        let codes = parts[0].0.len() / spec.head_dim;
        let (codewords, factors): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Ok(LayerParts { codewords: codewords.concat(), factors: factors.concat(), codes })
    };
    (0..spec.num_hidden_layers).map(layer).collect()
}

fn of_pytorch(spec: &Spec, codebooks: &Path, factors: &Path) -> Result<Vec<LayerParts>> {
    let (heads, d) = (spec.num_key_value_heads, spec.head_dim);
    let layers = spec.num_hidden_layers;
    let (of_codebooks, of_factors) = (pytorch::read(codebooks)?, pytorch::read(factors)?);
    for (file, tensors) in [(codebooks, &of_codebooks), (factors, &of_factors)] {
        if tensors.len() != layers {
            let problem = format!("holds {} tensors where the model has {layers} layers", tensors.len());
            return Err(Error::file(file, problem, REMEDY));
        }
    }
    let of_layer = |(layer, (centroids, of_factors)): (usize, (pytorch::Numbers, pytorch::Numbers))| {
        let wrong = |file: &Path, shape: &[usize], want: &str| {
            Error::file(
                file,
                format!("layer {layer} has shape {shape:?} where the model needs {want}"),
                REMEDY,
            )
        };
        let codes = match centroids.shape[..] {
            [h, codes, dim] if (h, dim) == (heads, d) && codes > 0 => codes,
            _ => return Err(wrong(codebooks, &centroids.shape, &format!("[{heads}, codewords, {d}]"))),
        };
        if of_factors.shape != [heads, d, d] {
            return Err(wrong(factors, &of_factors.shape, &format!("[{heads}, {d}, {d}]")));
        }
        let each = centroids.values.chunks_exact(codes * d).zip(of_factors.values.chunks_exact(d * d));
        let solved = each.flat_map(|(centroids, factor)| {
            let factor: Vec<f64> = factor.iter().map(|&x| f64::from(x)).collect();
            solve_rows(&factor, d, centroids)
        });
        Ok(LayerParts { codewords: solved.collect(), factors: of_factors.values, codes })
    };
    of_codebooks.into_iter().zip(of_factors).enumerate().map(of_layer).collect()
}
