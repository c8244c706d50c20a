//! What the kernels and the model are held to: an f64 reference that shares no code with them, replays of recorded
//! runs of the published code, and inputs that are made to be awkward.
#![forbid(unsafe_code)]

#[cfg(feature = "figures")]
pub mod attention_error;
pub mod backends;
pub mod calls;
pub mod clustering;
#[cfg(feature = "codegen")]
pub mod codegen;
#[cfg(feature = "model")]
pub mod golden;
pub mod inputs;
#[cfg(feature = "model")]
pub mod reader;
pub mod reference;
#[cfg(feature = "model")]
pub mod replay;
