//! The wall of memory: how fast it is read, in a stream and in rows here and there, by whatever way is fastest.

use memmap2::{Advice, MmapMut, MmapOptions};
use rayon::prelude::*;
use std::{hint::black_box, ops::Range, time::Instant};

/// More than the caches of any machine this is for; a power of two.
const STREAM_BYTES: usize = 1 << 30;

/// Words of eight cache lines: what is read at a time, and a row of what is gathered.
const ROW: usize = 64;

/// Rows of a head, and how many of them are gathered one after the other.
const HEAD: usize = 1 << 17;
const RUN: usize = 1 << 13;

/// All of them.
const ROWS: usize = STREAM_BYTES / (8 * ROW);

/// Memory to read: pages touched, huge where the system has them.
pub struct Stream {
    memory: MmapMut,
    /// The fastest way of each reading and pool so far, by number of threads.
    fastest: Vec<(Reading, usize, Way)>,
    /// Rows that were gathered so far.
    gathered: usize,
}

/// Reads some rows of words and adds them up.
type Way = fn(&[u64], Range<usize>) -> u64;

/// How memory is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// All of it, in order.
    Streaming,
    /// An eighth of it, in rows of 512 bytes at pseudo-random places.
    Gathering,
}

impl Stream {
    pub fn new() -> Self {
        let mut memory =
            MmapOptions::new().len(STREAM_BYTES).map_anon().expect("a GiB of memory to stream from");
        #[cfg(target_os = "linux")]
        let _ = memory.advise(Advice::HugePage);
        memory.fill(1);
        Self { memory, fastest: Vec::new(), gathered: 0 }
    }

    /// Bytes per second on the threads of `pool`: the best of `passes` by each way.
    ///
    /// Which way is the fastest differs from one machine to the next. On one Granite Rapids core loads alone read 13.5 GB/s,
    /// 15 with lines asked for ahead, and 19.5 with some arithmetic between the requests: a loop that asks for more than there
    /// are buffers for reads less.
    pub fn read_bandwidth(&mut self, reading: Reading, pool: &rayon::ThreadPool, passes: usize) -> f64 {
        let threads = pool.current_num_threads();
        let known = self.fastest.iter().find(|(of, by, _)| (*of, *by) == (reading, threads));
        let known = known.map(|(.., way)| *way);
        let ways: Vec<Way> = match (known, reading) {
            (Some(way), _) => vec![way],
            (None, Reading::Streaming) => vec![ways::plain, ways::near, ways::paced, ways::more_paced],
            (None, Reading::Gathering) => vec![ways::gathered, ways::gathered_further],
        };
        let best_of = |way: Way| {
            let best = (0..passes).map(|_| self.pass(reading, pool, way)).fold(0.0, f64::max);
            (best, way)
        };
        let best = ways.into_iter().map(best_of).max_by(|a, b| a.0.total_cmp(&b.0));
        let (best, way) = best.expect("there is a way to read");
        if known.is_none() {
            self.fastest.push((reading, threads, way));
        }
        best
    }

    /// Bytes per second of one pass.
    fn pass(&mut self, reading: Reading, pool: &rayon::ThreadPool, way: Way) -> f64 {
        let (first, rows) = match reading {
            Reading::Streaming => (0, ROWS),
            Reading::Gathering => (self.gathered, ROWS / 8),
        };
        // Others next time: an eighth of a GiB stays in a large L3.
        self.gathered += if reading == Reading::Gathering { rows } else { 0 };
        let words: &[u64] = bytemuck::cast_slice(&self.memory);
        let part = rows.div_ceil(pool.current_num_threads());
        let sum_of = |at: usize| way(words, first + at..first + rows.min(at + part));
        let start = Instant::now();
        black_box(
            pool.install(|| {
                (0..rows).into_par_iter().step_by(part).map(sum_of).reduce(|| 0, u64::wrapping_add)
            }),
        );
        (rows * 8 * ROW) as f64 / start.elapsed().as_secs_f64()
    }
}

/// Ways to read rows. Each adds up what it reads.
mod ways {
    use super::{HEAD, ROW, ROWS, RUN};
    use std::ops::Range;

    /// How rows are read.
    struct Plan {
        /// The place of each row.
        place: fn(usize) -> usize,
        /// How far ahead lines are asked for, in rows, into the first cache and into the second; 0 for not at all.
        near: usize,
        far: usize,
        /// Further operations on what is read.
        rounds: usize,
    }

    fn row(words: &[u64], place: usize) -> &[u64; ROW] {
        &words.as_chunks().0[place % ROWS]
    }

    /// Whatever the compiler makes of it.
    #[inline(always)]
    fn sum_portably(words: &[u64], rows: Range<usize>, plan: &Plan) -> u64 {
        let mut lanes = [0_u64; ROW];
        for number in rows {
            for (lane, word) in lanes.iter_mut().zip(row(words, (plan.place)(number))) {
                *lane = lane.wrapping_add(*word);
            }
        }
        lanes.into_iter().fold(0, u64::wrapping_add)
    }

    /// With the widest loads there are, written out: left to the compiler, the sums left the registers in one build and
    /// stayed there in the next.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "intrinsics, which are found at run time")]
    mod vectors {
        use super::{Plan, ROW, Range, row};
        use std::arch::x86_64::*;

        macro_rules! sum {
            ($name:ident, $features:literal, $vector:ty, $load:ident, $add:ident, $xor:ident, $zero:ident) => {
                #[target_feature(enable = $features)]
                pub fn $name(words: &[u64], rows: Range<usize>, plan: &Plan) -> u64 {
                    const STEP: usize = size_of::<$vector>() / 8;
                    let mut sums = [$zero(); ROW / STEP];
                    for number in rows {
                        let at = |on| row(words, (plan.place)(number + on)).as_ptr();
                        let (here, near, far) = (at(0), at(plan.near), at(plan.far));
                        for (i, sum) in sums.iter_mut().enumerate() {
                            // One line after the other: requests in a row read less.
                            if (i * STEP).is_multiple_of(8) {
                                if plan.far > 0 {
                                    _mm_prefetch::<_MM_HINT_T1>(far.wrapping_add(i * STEP).cast());
                                }
                                if plan.near > 0 {
                                    _mm_prefetch::<_MM_HINT_T0>(near.wrapping_add(i * STEP).cast());
                                }
                            }
                            // SAFETY: a row has so many words.
                            let word = unsafe { $load(here.add(i * STEP).cast()) };
                            *sum = $add(*sum, word);
                            for _ in 0..plan.rounds {
                                *sum = $add($xor(*sum, word), word);
                            }
                        }
                    }
                    // SAFETY: vectors of u64 are as many u64.
                    let lanes: [u64; ROW] = unsafe { std::mem::transmute(sums) };
                    lanes.into_iter().fold(0, u64::wrapping_add)
                }
            };
        }

        sum!(
            of_512,
            "avx512f",
            __m512i,
            _mm512_loadu_si512,
            _mm512_add_epi64,
            _mm512_xor_si512,
            _mm512_setzero_si512
        );
        sum!(
            of_256,
            "avx2",
            __m256i,
            _mm256_loadu_si256,
            _mm256_add_epi64,
            _mm256_xor_si256,
            _mm256_setzero_si256
        );
    }

    #[inline(always)]
    #[cfg_attr(
        target_arch = "x86_64",
        allow(unsafe_code, reason = "intrinsics, which are found at run time")
    )]
    fn sum(words: &[u64], rows: Range<usize>, plan: &Plan) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has AVX-512.
            return unsafe { vectors::of_512(words, rows, plan) };
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has AVX2.
            return unsafe { vectors::of_256(words, rows, plan) };
        }
        sum_portably(words, rows, plan)
    }

    fn in_order(row: usize) -> usize {
        row
    }

    /// Somewhere else for each row, as selective attention reads them: [`RUN`] rows of one head, which are a sixteenth of its
    /// context, then those of another. (Rows anywhere in a GiB are read at four fifths of that speed.)
    fn scattered(row: usize) -> usize {
        let within = row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        row / RUN * HEAD + within % HEAD
    }

    /// Defines a way to read.
    macro_rules! way {
        ($name:ident, $place:ident, $near:literal, $far:literal, $rounds:literal) => {
            pub fn $name(words: &[u64], rows: Range<usize>) -> u64 {
                sum(words, rows, &Plan { place: $place, near: $near, far: $far, rounds: $rounds })
            }
        };
    }

    way!(plain, in_order, 0, 0, 0);
    way!(near, in_order, 2, 0, 0);
    way!(paced, in_order, 0, 16, 2);
    way!(more_paced, in_order, 0, 16, 5);
    way!(gathered, scattered, 0, 64, 0);
    way!(gathered_further, scattered, 16, 128, 0);
}

/// What the processor calls itself.
pub fn cpu_name() -> String {
    let description = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = description.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    named.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
