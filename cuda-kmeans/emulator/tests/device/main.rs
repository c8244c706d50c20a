//! Kernels on an emulated device.

mod bench;
mod checks;
mod conversions;
mod floats;
mod integers;
mod kernels;
mod meetings;
mod surroundings;
mod table;
mod tiles;
