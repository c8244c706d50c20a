//! The wall of memory: how fast a streaming read is.

use memmap2::{Advice, MmapMut, MmapOptions};
use rayon::prelude::*;
use std::{hint::black_box, time::Instant};

/// More than the caches of any machine this is for.
const STREAM_BYTES: usize = 1 << 30;

/// Memory to stream from: pages touched, huge where the system has them.
pub struct Stream {
    memory: MmapMut,
}

impl Stream {
    pub fn new() -> Self {
        let mut memory =
            MmapOptions::new().len(STREAM_BYTES).map_anon().expect("a GiB of memory to stream from");
        #[cfg(target_os = "linux")]
        let _ = memory.advise(Advice::HugePage);
        memory.fill(1);
        Self { memory }
    }

    /// Bytes per second of reading all of it once, on the threads of `pool`; the best of `passes`.
    pub fn read_bandwidth(&self, pool: &rayon::ThreadPool, passes: usize) -> f64 {
        let words: &[u64] = bytemuck::cast_slice(&self.memory);
        let part = words.len() / pool.current_num_threads();
        let pass = |_| {
            let start = Instant::now();
            black_box(pool.install(|| words.par_chunks(part).map(sum).reduce(|| 0, u64::wrapping_add)));
            STREAM_BYTES as f64 / start.elapsed().as_secs_f64()
        };
        (0..passes).map(pass).fold(0.0, f64::max)
    }
}

/// Adds up words in many lanes at once, which compilers turn into vector loads and additions.
fn sum(words: &[u64]) -> u64 {
    const LANES: usize = 32;
    let mut lanes = [0_u64; LANES];
    for words in words.chunks_exact(LANES) {
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}

/// What the processor calls itself.
pub fn cpu_name() -> String {
    let description = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = description.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    named.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
