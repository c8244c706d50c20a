//! The bytes of a file, mapped and used in place.

use crate::error::{Error, Result};
use memmap2::{Mmap, MmapMut};
use std::{fs::File, ops::Deref, path::Path};

/// The bytes of a file, or a part of one.
#[derive(Debug)]
pub(crate) enum Bytes {
    Mapped(Mmap),
    Embedded(&'static [u8]),
    /// A tensor that its file does not align for its element type: rare, but lawful.
    Realigned(MmapMut),
}

impl Bytes {
    pub(super) fn map(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        #[expect(unsafe_code, reason = "the one place where files become memory")]
        // SAFETY: the mapping is read-only and private to this process. Rust's rule that the bytes do not change
        // while borrowed can be broken by another process writing to the file, as with every mmapped checkpoint;
        // what is read are plain numbers, for which any bit pattern is valid.
        let mapped = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Self::Mapped(mapped))
    }

    /// A copy at the start of a page of its own.
    pub(super) fn copied(bytes: &[u8], path: &Path) -> Result<Self> {
        let mut copy = MmapMut::map_anon(bytes.len().max(1)).map_err(Error::io(path))?;
        copy[..bytes.len()].copy_from_slice(bytes);
        Ok(Self::Realigned(copy))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Embedded(bytes) => bytes,
            Self::Realigned(bytes) => bytes,
        }
    }
}
