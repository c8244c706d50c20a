//! The functions of the CUDA driver.
//!
//! Streams and events do everything at once, in the order of the calls, under one lock.

#![allow(unsafe_code, reason = "functions of a C library")]

mod code;
mod context;
mod event;
mod general;
mod host;
mod launch;
mod memory;
mod module;
mod settings;
mod state;
mod stream;
