//! k-means on a CUDA GPU, for the codebooks of A2ATS: the other implementation of [`a2ats_kernel::clustering::Clusterer`].
//!
//! With feature `cuda`, `CudaClusterer` does what the CPU's clusterer does, with the same progress and results: k-means++,
//! then Lloyd's iterations against those centroids only that moved. It builds without anything of CUDA; the driver is looked for
//! when the program runs. Without the feature there is only what can be reckoned without a GPU: [`layout`].
//!
//! The kernels are CUDA C++, in `kernels/`; `ptx/` is what a pinned compiler makes of them, for compute capability 8.0 and later, and the
//! driver compiles that for the card.

pub mod error;
pub mod layout;

#[cfg(feature = "cuda")]
mod card;
#[cfg(feature = "cuda")]
mod clusterer;
#[cfg(feature = "cuda")]
pub mod driver;
#[cfg(feature = "cuda")]
mod job;
#[cfg(feature = "cuda")]
mod kernels;
#[cfg(feature = "cuda")]
mod measure;
#[cfg(feature = "cuda")]
mod workspace;

#[cfg(feature = "cuda")]
pub use clusterer::CudaClusterer;
pub use error::DeviceError;
