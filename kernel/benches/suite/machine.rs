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
#[inline(always)]
fn sum_with(words: &[u64], prefetch: impl Fn(&[u64])) -> u64 {
    const LANES: usize = 64;
    let mut lanes = [0_u64; LANES];
    for words in words.chunks_exact(LANES) {
        prefetch(words);
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}

#[cfg(not(target_arch = "x86_64"))]
fn sum(words: &[u64]) -> u64 {
    sum_with(words, |_| ())
}

/// With the widest loads there are, and asking for lines ahead: 16-byte loads without that read a third less on one Sapphire
/// Rapids core.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the widest vectors that this CPU has, found at run time")]
fn sum(words: &[u64]) -> u64 {
    use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

    #[inline(always)]
    fn ask(words: &[u64]) {
        let start = words.as_ptr().cast::<i8>();
        for line in 0..words.len() / 8 {
            // SAFETY: prefetching is a hint and never faults, whatever the address.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(16384 + 64 * line));
                _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(1024 + 64 * line));
            }
        }
    }
    #[target_feature(enable = "avx512f")]
    fn sum_512(words: &[u64]) -> u64 {
        sum_with(words, ask)
    }
    #[target_feature(enable = "avx2")]
    fn sum_256(words: &[u64]) -> u64 {
        sum_with(words, ask)
    }

    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has AVX-512.
        unsafe { sum_512(words) }
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2.
        unsafe { sum_256(words) }
    } else {
        sum_with(words, ask)
    }
}

/// What the processor calls itself.
pub fn cpu_name() -> String {
    let description = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = description.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    named.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
