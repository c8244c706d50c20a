//! Kernels on an emulated device.

mod bench;
mod copies;
mod instructions;
mod meetings;
mod memory;
mod refusals;
mod tiles;
