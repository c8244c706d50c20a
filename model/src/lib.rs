//! Llamas from Hugging Face folders on a CPU, with dense prefill and retrieval-based sparse decoding.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod cache;
pub mod calibrate;
pub mod codebooks;
pub mod config;
pub mod demo;
mod error;
pub mod generate;
mod layer;
mod linear;
pub mod memory;
mod model;
pub mod sample;
pub mod session;
pub mod step;
pub mod template;
pub mod tokenizer;
pub mod weights;

pub use cache::Attention;
pub use codebooks::Codebooks;
pub use config::Config;
pub use error::{Error, Result};
pub use layer::Observer;
pub use model::Llama;
pub use session::Session;
