//! Memory for what kernels read most: KV rows and codewords.

use crate::error::{Error, Result};
use memmap2::{MmapMut, MmapOptions};

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
