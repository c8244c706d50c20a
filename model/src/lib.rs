//! Llamas from Hugging Face folders on a CPU, with dense prefill and retrieval-based sparse decoding.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod cache;
pub mod codebooks;
pub mod demo;
pub mod engine;
mod error;
pub mod families;
pub mod files;
pub mod generate;
pub mod lab;
mod layer;
mod linear;
mod model;
pub mod rope;
pub mod session;
pub mod spec;
pub mod step;
pub mod text;

pub use cache::Attention;
pub use codebooks::Codebooks;
pub use error::{Error, Result};
pub use layer::Observer;
pub use model::Model;
pub use session::Session;
pub use spec::Spec;
