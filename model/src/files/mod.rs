//! What lies on disk, checked, and mapped in place.

pub mod identity;
pub(crate) mod mapped;
pub mod safetensors;

pub use mapped::Loading;
#[cfg(unix)]
pub use mapped::end_when_truncated;
