//! Memory for what kernels read most: KV rows and codewords, and what they go over again and again.

use crate::error::{Error, Result};
use memmap2::{MmapMut, MmapOptions};
use std::ops::{Deref, DerefMut};

/// Size from which on memory is asked for in huge pages, in bytes: below, rounding up to 2 MiB would waste too much.
const HUGE_PAGES_FROM: usize = 8 << 20;

/// Zeroed bytes from the operating system. What is not touched costs address space, not memory.
pub(crate) fn reserve(bytes: usize) -> Result<MmapMut> {
    let refuse = |error: std::io::Error| Error::Memory { bytes, reason: error.to_string() };
    let memory = MmapOptions::new().len(bytes.max(1)).map_anon().map_err(refuse)?;
    #[cfg(target_os = "linux")]
    if bytes >= HUGE_PAGES_FROM {
        // A wish: rows gathered at random cost a page walk each otherwise. Kernels without huge pages say no.
        let _ = memory.advise(memmap2::Advice::HugePage);
    }
    Ok(memory)
}

/// A cache line of numbers.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct CacheLine([f32; 16]);

/// Numbers that begin with a cache line. Where the allocator puts them, which is at sixteen bytes as a rule, every load of a
/// register as wide as a line would touch two: matrix products and dense decode took a tenth longer. Many of them lie on
/// huge pages: matrix products took another tenth longer on small ones.
#[derive(Debug)]
pub(crate) struct Aligned {
    memory: Memory,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Lines(Vec<CacheLine>),
    Pages(MmapMut),
}

impl Aligned {
    /// So many zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let bytes = len * size_of::<f32>();
        let pages = if bytes >= HUGE_PAGES_FROM { reserve(bytes).ok() } else { None };
        let memory = pages.map_or_else(
            || Memory::Lines(vec![CacheLine([0.0; 16]); bytes.div_ceil(size_of::<CacheLine>())]),
            Memory::Pages,
        );
        Self { memory, len }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        match &self.memory {
            Memory::Lines(lines) => &bytemuck::cast_slice(lines)[..self.len],
            Memory::Pages(bytes) => &bytemuck::cast_slice(bytes)[..self.len],
        }
    }
}

impl DerefMut for Aligned {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            Memory::Lines(lines) => &mut bytemuck::cast_slice_mut(lines)[..self.len],
            Memory::Pages(bytes) => &mut bytemuck::cast_slice_mut(bytes)[..self.len],
        }
    }
}
