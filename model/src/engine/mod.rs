//! Many sequences: requests in, events out.

pub mod memory;
pub mod sampling;
