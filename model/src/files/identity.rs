//! What tells one model from another: files that belong to a model carry it.

use super::safetensors::Tensors;

/// Places of each tensor that are looked at, and bytes at each of them.
const SAMPLES: usize = 4;
const SAMPLE_BYTES: usize = 256;

/// Key of a checkpoint's metadata under which a copy, quantized for instance, names the model that it was made of.
const SOURCE_KEY: &str = "source_model_identity";

/// The identity of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    own: String,
    source: Option<String>,
}

impl Identity {
    /// Of open files: a 64-bit hash in hexadecimal over names, element types and shapes of all tensors, and some bytes of every one.
    pub fn of(tensors: &Tensors) -> Self {
        let mut hash = Fnv::default();
        for tensor in tensors.iter() {
            hash.add(tensor.name.as_bytes());
            hash.add(tensor.dtype.as_bytes());
            for &size in tensor.shape {
                hash.add(&(size as u64).to_le_bytes());
            }
            let room = tensor.bytes.len().saturating_sub(SAMPLE_BYTES);
            for sample in 0..SAMPLES {
                let start = room * sample / (SAMPLES - 1);
                hash.add(&tensor.bytes[start..tensor.bytes.len().min(start + SAMPLE_BYTES)]);
            }
        }
        let source = tensors.metadata().get(SOURCE_KEY).cloned();
        Self { own: hash.to_string(), source }
    }

    /// The checkpoint's own.
    pub fn as_str(&self) -> &str {
        &self.own
    }

    /// Whether a file that carries `identity` belongs to this model, or to the one that this is a copy of.
    pub fn accepts(&self, identity: &str) -> bool {
        self.own == identity || self.source.as_deref() == Some(identity)
    }
}

/// 64-bit FNV-1a.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl std::fmt::Display for Fnv {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}
