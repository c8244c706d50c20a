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

/// Bytes of a huge page, where systems have them.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed memory that lies on huge pages from half of one on, where the system has them: for tables that are gone through as a whole. Of
/// a table of 1 MiB on small pages, some 110 µs of reading took 85.
#[derive(Debug)]
pub(crate) struct Table {
    memory: MmapMut,
    /// Bytes before the first huge page.
    start: usize,
    len: usize,
}

impl Table {
    /// So many zeroed bytes.
    pub(crate) fn zeros(len: usize) -> Result<Self> {
        let is_large = len >= HUGE_PAGE / 2;
        let memory = reserve(if is_large { len.saturating_add(HUGE_PAGE) } else { len })?;
        let start = if is_large { memory.as_ptr().align_offset(HUGE_PAGE) } else { 0 };
        #[cfg(target_os = "linux")]
        if is_large {
            let _ = memory.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { memory, start, len })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl Clone for Table {
    /// # Panics
    /// If memory runs out, as other collections.
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len).expect("memory for a copy");
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }
}

/// Zeros on memory of their own: for a lot of them, which lie on huge pages then, and where loops that ask memory for
/// something are not compiled once more for it (with both kinds behind one type dense decode took 51 ms instead of 41).
#[derive(Debug)]
pub(crate) struct Pages {
    memory: MmapMut,
    len: usize,
}

impl Pages {
    pub(crate) fn zeros(len: usize) -> Result<Self> {
        Ok(Self { memory: reserve(len * size_of::<f32>())?, len })
    }
}

impl Deref for Pages {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.memory)[..self.len]
    }
}

impl DerefMut for Pages {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.memory)[..self.len]
    }
}

/// A cache line of numbers.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct CacheLine([f32; 16]);

/// Numbers that begin with a cache line. Where the allocator puts them, which is at sixteen bytes as a rule, every load of a
/// register as wide as a line would touch two: matrix products and dense decode took a tenth longer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aligned {
    lines: Vec<CacheLine>,
    len: usize,
}

impl Aligned {
    /// So many zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        Self { lines: vec![CacheLine([0.0; 16]); len.div_ceil(16)], len }
    }

    /// Makes it so many numbers, whatever they are.
    pub(crate) fn resize(&mut self, len: usize) {
        self.lines.resize(len.div_ceil(16), CacheLine([0.0; 16]));
        self.len = len;
    }
}

impl Deref for Aligned {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for Aligned {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}
