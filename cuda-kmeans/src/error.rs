//! Why a GPU cannot be used.

/// What is wrong with the driver, the card, or the memory on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is no driver library, or one that lacks functions.
    #[error("no CUDA driver: {reason}; install NVIDIA's driver, or use the CPU")]
    NoDriver {
        /// What the system's loader said.
        reason: String,
    },
    /// The driver finds no GPU.
    #[error(
        "no CUDA device: the driver says '{reason}'; see what nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves, or use the CPU"
    )]
    NoDevice {
        /// What the driver said.
        reason: String,
    },
    /// There are fewer GPUs than that.
    #[error("no CUDA device {ordinal}: there are {devices}, counted from 0")]
    NoSuchDevice {
        /// The number asked for.
        ordinal: u32,
        /// How many there are.
        devices: u32,
    },
    /// The GPU is of a generation without TF32 tensor cores.
    #[error("{name} has compute capability {major}.{minor}; it takes 8.0 (Ampere) or later, or the CPU")]
    TooOld {
        /// The card.
        name: String,
        /// Its compute capability.
        major: i32,
        /// The number behind the point.
        minor: i32,
    },
    /// Not even a small batch of points fits beside the centroids.
    #[error(
        "{clusters} clusters of {count} points of dimension {dim} take at least {need} bytes of the card's memory, of which {have} \
         are free; end what else runs there, or use the CPU"
    )]
    TooLittleMemory {
        /// How many centroids.
        clusters: usize,
        /// How many points.
        count: usize,
        /// Numbers of a point.
        dim: usize,
        /// Bytes, at least.
        need: usize,
        /// Bytes that may be used.
        have: usize,
    },
    /// A call of the driver failed.
    #[error("{what}: the driver says '{reason}'")]
    Driver {
        /// What was to be done.
        what: &'static str,
        /// What the driver said.
        reason: String,
    },
    /// What is in the card's memory are no labels.
    #[error("the labels of points on the card make no sense: {reason}")]
    Labels {
        /// What is wrong with them.
        reason: String,
    },
}

#[cfg(feature = "cuda")]
impl DeviceError {
    /// A call failed.
    pub(crate) fn driver(what: &'static str, error: cust::error::CudaError) -> Self {
        Self::Driver { what, reason: error.to_string() }
    }
}
