//! Memory for what kernels read most: KV rows and codewords, and what they go over again and again.

use crate::error::{Error, Result};
use memmap2::{MmapMut, MmapOptions};
use std::ops::{Deref, DerefMut};

/// Which pages memory is wanted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// The system's usual ones: where most of what is reserved is never touched.
    Small,
    /// Huge ones, where the system has them and a few of them are needed: rows gathered at random cost a page walk each
    /// otherwise.
    Huge,
}

/// Size from which on huge pages are wanted, in bytes: below, rounding up to 2 MiB would waste too much.
const HUGE_PAGES_FROM: usize = 8 << 20;

/// Zeroed bytes from the operating system. What is not touched costs address space, not memory.
#[derive(Debug)]
pub(crate) struct Reservation {
    memory: MmapMut,
    len: usize,
}

impl Reservation {
    /// So many bytes.
    pub(crate) fn new(bytes: usize, pages: Pages) -> Result<Self> {
        let refuse = |error: std::io::Error| Error::Memory { bytes, reason: error.to_string() };
        let mut options = MmapOptions::new();
        let memory = options.len(bytes.max(1)).no_reserve_swap().map_anon().map_err(refuse)?;
        let reservation = Self { memory, len: bytes };
        if pages == Pages::Huge && bytes >= HUGE_PAGES_FROM {
            reservation.use_huge_pages();
        }
        Ok(reservation)
    }

    /// Wants huge pages for what is touched from now on.
    pub(crate) fn use_huge_pages(&self) {
        // A wish: kernels without huge pages say no.
        #[cfg(target_os = "linux")]
        let _ = self.memory.advise(memmap2::Advice::HugePage);
    }

    /// So many rows of so many bytes.
    pub(crate) fn of_rows(rows: usize, row_bytes: usize, pages: Pages) -> Result<Self> {
        let reason =
            || Error::Memory { bytes: usize::MAX, reason: "more than an address can reach".to_owned() };
        Self::new(rows.checked_mul(row_bytes).ok_or_else(reason)?, pages)
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[..self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

/// Zeros on memory of their own: for a lot of them, which lie on huge pages then. They are another type than [`Aligned`] so that
/// loops with prefetches are not compiled once more for it (with both kinds behind one type dense decode took 51 ms instead of 41).
#[derive(Debug)]
pub(crate) struct PagedFloats {
    memory: Reservation,
}

impl PagedFloats {
    pub(crate) fn zeros(len: usize) -> Result<Self> {
        Ok(Self { memory: Reservation::of_rows(len, size_of::<f32>(), Pages::Huge)? })
    }
}

impl Deref for PagedFloats {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        bytemuck::cast_slice(self.memory.bytes())
    }
}

impl DerefMut for PagedFloats {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.memory.bytes_mut())
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

    /// The same, where the number is not known to be one that there is memory for.
    pub(crate) fn try_resize(&mut self, len: usize) -> Result<()> {
        let more = len.div_ceil(16).saturating_sub(self.lines.len());
        let refuse = |error: std::collections::TryReserveError| Error::Memory {
            bytes: len.saturating_mul(size_of::<f32>()),
            reason: error.to_string(),
        };
        self.lines.try_reserve_exact(more).map_err(refuse)?;
        self.resize(len);
        Ok(())
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
