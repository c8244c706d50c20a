//! What clusters: the CPU, or a GPU if the program was built with feature `cuda`.

use super::output::say;
use a2ats_kernel::clustering::{Clusterer, CpuClusterer};
use a2ats_model::{Model, Result};
use clap::ValueEnum;

/// `--device`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Device {
    /// A GPU, if the program was built with feature `cuda` and there is one that can be used; else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU or nothing. CUDA_VISIBLE_DEVICES says which, where there are several.
    Cuda,
}

impl Device {
    /// The clusterer for heads of so many tokens.
    pub(super) fn clusterer(
        self,
        model: &Model,
        tokens: usize,
        codewords: usize,
    ) -> Result<Box<dyn Clusterer>> {
        let cpu = || Box::new(CpuClusterer { kernels: model.kernels() });
        if self == Self::Cpu {
            return Ok(cpu());
        }
        match gpu(model, tokens, codewords) {
            Ok((gpu, name)) => {
                say(&format!("clustering on {name}"));
                Ok(gpu)
            }
            Err(reason) if self == Self::Cuda => {
                Err(a2ats_kernel::Error::Device { device: "--device cuda".to_owned(), reason }.into())
            }
            Err(reason) => {
                if cfg!(feature = "cuda") {
                    say(&format!("clustering on the CPU: {reason}"));
                }
                Ok(cpu())
            }
        }
    }
}

/// A GPU and its name, or why there is none.
#[cfg(feature = "cuda")]
fn gpu(model: &Model, tokens: usize, codewords: usize) -> Result<(Box<dyn Clusterer>, String), String> {
    use a2ats_cuda_kmeans::{CudaClusterer, DeviceError, layout::Shape};
    let open = || {
        let gpu = CudaClusterer::new(0)?;
        let dim = model.spec().head_dim;
        gpu.check(&Shape { count: tokens, dim, clusters: codewords, weighted: false })?;
        Ok(gpu)
    };
    let gpu = open().map_err(|error: DeviceError| error.to_string())?;
    let name = gpu.name().to_owned();
    Ok((Box::new(gpu), name))
}

#[cfg(not(feature = "cuda"))]
fn gpu(_: &Model, _: usize, _: usize) -> Result<(Box<dyn Clusterer>, String), String> {
    Err("this a2ats was built without CUDA; build it with --features cuda, or use the CPU".to_owned())
}
