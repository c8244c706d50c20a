//! Runs kernels.

mod block;
mod copies;
mod launch;
mod memory;
mod mma;
mod order;
mod random;
mod shared;
mod spaces;
mod thread;
mod warp;

pub use launch::Statistics;
pub(crate) use launch::{Launch, launch};
pub use memory::Memory;

/// Lanes of a warp.
const LANES: usize = 32;
