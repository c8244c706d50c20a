//! A CUDA driver without a GPU: it runs PTX on the CPU, and checks what kernels do.
//!
//! The library has the functions of `libcuda.so.1` that hosts of plain kernels need, so that a program that loads it in place of
//! the driver runs as it would on a device. [`Device`] is the same for tests in Rust.
//!
//! Every access to memory is checked: for bounds and alignment, for bytes that were never written, for races of threads in shared
//! memory, and for copies that were not awaited. What is found ends the kernel with a message that names the thread and the line.

mod alu;
mod device;
mod driver;
mod error;
mod machine;
mod program;
mod ptx;

pub use device::{Device, Kernel, LaunchError, MOST_SHARED, MOST_THREADS, Module, Shape};
pub use error::{Fault, Refusal, Status};
pub use machine::{Memory, Statistics};
pub use program::Place;
