//! What lies on disk, checked, and mapped in place.

pub mod safetensors;
