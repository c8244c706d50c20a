//! CPU kernels for A2ATS decoding: attention over long contexts that reads a few percent of the KV cache.
//!
//! The method is *A2ATS: Retrieval-Based KV Cache Reduction via Windowed Rotary Position Embedding and Query-Aware
//! Vector Quantization* (He et al., Findings of ACL 2025, arXiv 2502.12665). This crate is the part that runs once
//! per token: what other engines link. It opens no files, starts no threads and knows no models.
//!
//! # The map of a decode step
//!
//! Per layer and kv head ([`decode`] is this list as code):
//!
//! 1. score all codewords for the group's queries and find the newest key's code, one pass ([`codebook`]);
//! 2. append the token's rotated key, its value and its code to what the kv head keeps ([`store`]);
//! 3. take each query head's best few percent of the tokens, by code, and unite them ([`retrieval`]);
//! 4. attend exactly those, the window and the sinks, reading each row once for the group ([`attention`]);
//! 5. if asked to, estimate what was left out from sums of values by code ([`estimate`]).
//!
//! Around it a transformer layer needs [`linear`] (weight products) and [`elementwise`] (RMSNorm, rotary embedding,
//! SiLU), and once per model the codewords are made by [`clustering`]. The instruction set is chosen once: [`select`] gives the [`Kernels`] to pass down; `A2ATS_ISA` overrides.
//!
//! # Example
//!
//! One kv head of head_dim 64 with two query heads, its codebook made up for the occasion:
//!
//! ```
//! use a2ats_kernel::decode::{Sparsity, StepInput, StepScratch, decode_step};
//! use a2ats_kernel::{Codebook, Dtype, elementwise::Rotation, store::Store};
//!
//! let (head_dim, group, codes) = (64, 2, 128);
//! let wave = |seed: usize, n: usize| -> Vec<f32> { (0..n).map(|i| ((i * 37 + seed * 101) as f32).sin()).collect() };
//! let identity: Vec<f32> = (0..64 * 64).map(|i| f32::from(u8::from(i / 64 == i % 64))).collect();
//! let frequencies: Vec<f64> = (0..32).map(|i| 500_000_f64.powf(-f64::from(i) / 32.0)).collect();
//!
//! let kernels = a2ats_kernel::select()?;
//! let book = Codebook::new(&wave(1, codes * head_dim), &identity, head_dim, Dtype::Bf16)?;
//! let sparsity = Sparsity::default();
//! let mut store = Store::new(sparsity.layout(Dtype::Bf16, head_dim, codes), 4096)?;
//! let mut scratch = StepScratch::default();
//! let mut out = vec![0.0; group * head_dim];
//!
//! let relative = Rotation::new(2048, &frequencies);
//! for position in 0..1000 {
//!     let (key, value, queries) = (wave(position, 64), wave(position + 7, 64), wave(position + 13, 128));
//!     let here = Rotation::new(position, &frequencies);
//!     let (mut rotated_key, mut rotated, mut windowed) = (key.clone(), queries.clone(), queries.clone());
//!     kernels.rotate(&mut rotated_key, &here)?;
//!     kernels.rotate(&mut rotated, &here)?;
//!     kernels.rotate(&mut windowed, &relative)?;
//!     let mut averaged = Vec::new();
//!     if let Some(average) = sparsity.averaged_rotation(position + 1, &frequencies) {
//!         averaged = queries;
//!         kernels.rotate(&mut averaged, &average)?;
//!     }
//!     let input = StepInput {
//!         queries: &rotated,
//!         windowed_queries: &windowed,
//!         averaged_queries: &averaged,
//!         key: &key,
//!         rotated_key: &rotated_key,
//!         value: &value,
//!     };
//!     let amount = decode_step(kernels, &book, &mut store, &sparsity, &input, 0.125, &mut scratch, &mut out)?;
//!     if store.wants_sorting() {
//!         store.sort_some(kernels, 64)?;
//!     }
//!     if position == 999 {
//!         assert_eq!(amount.tokens, 1000);
//!         assert!((64 + 8 + 30..=64 + 8 + 2 * 30).contains(&amount.attended)); // 30 per head, less what they share
//!     }
//! }
//! # Ok::<(), a2ats_kernel::Error>(())
//! ```
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod arch;
pub mod attention;
pub mod clustering;
pub mod codebook;
pub mod decode;
mod dispatch;
mod dtype;
mod element;
pub mod elementwise;
mod error;
pub mod estimate;
mod internals;
pub mod linear;
mod memory;
mod microkernel;
mod precision;
pub mod retrieval;
pub mod rows;
mod shape;
mod simd;
pub mod store;

pub use codebook::Codebook;
pub use dispatch::{ISA_VARIABLE, Kernels, available, by_name, select};
pub use dtype::{Dtype, Elements};
pub use error::{Error, Result};

#[cfg(target_endian = "big")]
compile_error!("weights, codewords and bf16 arithmetic here are little-endian");
