//! Llamas from Hugging Face folders on a CPU, with dense prefill and retrieval-based sparse decoding.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod attention;
mod batch;
mod block;
pub mod codebooks;
pub mod demo;
pub mod engine;
mod error;
pub mod families;
pub mod files;
pub mod lab;
mod linear;
mod model;
mod observer;
pub mod rope;
pub mod sequence;
pub mod spec;
pub mod text;
pub mod weight;

pub use attention::PREFILL_CHUNK;
pub use batch::{Batch, Chunk, Wanted, Workspace};
pub use codebooks::Codebooks;
pub use error::{Error, Result};
pub use model::Model;
pub use observer::Observer;
pub use sequence::{Attention, Sequence};
pub use spec::Spec;
