//! The wall of arithmetic: how fast a backend's multiply-add instruction runs with everything in registers.
#![allow(unsafe_code, reason = "the instructions themselves, without anything of the kernels around them")]

use super::results::Peak;
use rayon::prelude::*;
use std::{hint::black_box, time::Instant};

/// Runs of the loop per sample.
const ROUNDS: usize = 1 << 21;
/// Independent sums: more than latency times throughput of any CPU, few enough for sixteen registers.
const SUMS: usize = 12;

/// A loop of `ROUNDS` times [`SUMS`] instructions, for CPUs that have them.
struct Loop {
    instruction: &'static str,
    flops_per_instruction: usize,
    run: fn(),
}

/// Defines a function that keeps [`SUMS`] sums of `$zero`'s type going.
macro_rules! multiply_loop {
    ($name:ident, $features:literal, $zero:expr, $step:expr) => {
        #[target_feature(enable = $features)]
        fn $name() {
            let mut sums = [$zero; SUMS];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = $step(*sum);
                }
            }
            black_box(sums);
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod loops {
    use super::{Loop, ROUNDS, SUMS, black_box};
    use std::arch::{asm, x86_64::*};

    // Through asm, or the compiler would find out that the sums are always zero.
    multiply_loop!(fma_256, "avx,fma", _mm256_setzero_ps(), |sum: __m256| {
        let mut sum = sum;
        // SAFETY: arithmetic on registers; the caller has checked for FMA.
        unsafe { asm!("vfmadd231ps {0}, {0}, {0}", inout(ymm_reg) sum, options(pure, nomem, nostack)) };
        sum
    });
    multiply_loop!(fma_512, "avx512f", _mm512_setzero_ps(), |sum: __m512| {
        let mut sum = sum;
        // SAFETY: arithmetic on registers; the caller has checked for AVX-512.
        unsafe { asm!("vfmadd231ps {0}, {0}, {0}", inout(zmm_reg) sum, options(pure, nomem, nostack)) };
        sum
    });
    multiply_loop!(dot_bf16_512, "avx512f,avx512bf16", _mm512_setzero_ps(), |sum: __m512| {
        let mut sum = sum;
        // SAFETY: arithmetic on registers; the caller has checked for AVX-512 BF16.
        unsafe { asm!("vdpbf16ps {0}, {0}, {0}", inout(zmm_reg) sum, options(pure, nomem, nostack)) };
        sum
    });
    #[target_feature(enable = "sse2")]
    fn baseline() {
        let mut sums = [_mm_setzero_ps(); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                // SAFETY: arithmetic on registers that every x86-64 CPU has.
                unsafe {
                    asm!(
                        "mulps {0}, {0}",
                        "addps {0}, {0}",
                        inout(xmm_reg) * sum,
                        options(pure, nomem, nostack)
                    );
                }
            }
        }
        black_box(sums);
    }

    pub(super) fn of_backend(backend: &str) -> Option<Loop> {
        let (instruction, flops_per_instruction, run): (_, _, fn()) = match backend {
            // SAFETY: the backend is available, so the CPU has its instructions.
            "avx512bf16" => ("vdpbf16ps zmm", 64, || unsafe { dot_bf16_512() }),
            // SAFETY: as above.
            "avx512" => ("vfmadd231ps zmm", 32, || unsafe { fma_512() }),
            // SAFETY: as above.
            "avx2" => ("vfmadd231ps ymm", 16, || unsafe { fma_256() }),
            // SAFETY: as above.
            "portable" => ("mulps + addps xmm", 8, || unsafe { baseline() }),
            _ => return None,
        };
        Some(Loop { instruction, flops_per_instruction, run })
    }
}

#[cfg(target_arch = "aarch64")]
mod loops {
    use super::{Loop, ROUNDS, SUMS, black_box};
    use std::arch::{aarch64::*, asm};

    multiply_loop!(fmla, "neon", vdupq_n_f32(0.0), |sum: float32x4_t| {
        let mut sum = sum;
        // SAFETY: arithmetic on registers that every AArch64 CPU has.
        unsafe { asm!("fmla {0:v}.4s, {0:v}.4s, {0:v}.4s", inout(vreg) sum, options(pure, nomem, nostack)) };
        sum
    });

    multiply_loop!(bfdot, "neon", vdupq_n_f32(0.0), |sum: float32x4_t| {
        let mut sum = sum;
        // SAFETY: arithmetic on registers; the caller has checked for BF16.
        unsafe {
            asm!(
                ".arch_extension bf16", "bfdot {0:v}.4s, {0:v}.8h, {0:v}.8h",
                inout(vreg) sum, options(pure, nomem, nostack),
            );
        }
        sum
    });

    pub(super) fn of_backend(backend: &str) -> Option<Loop> {
        let (instruction, flops_per_instruction, run): (_, _, fn()) = match backend {
            // SAFETY: the backend is available, so the CPU has its instructions.
            "neonbf16" => ("bfdot v.4s", 16, || unsafe { bfdot() }),
            // SAFETY: as above.
            "neon" | "portable" => ("fmla v.4s", 8, || unsafe { fmla() }),
            _ => return None,
        };
        Some(Loop { instruction, flops_per_instruction, run })
    }
}

/// The peak of a backend's instruction, the best of `samples`, on one thread and on those of `pool`.
pub fn measure(backend: &str, pool: &rayon::ThreadPool, samples: usize) -> Option<Peak> {
    let Loop { instruction, flops_per_instruction, run } = loops::of_backend(backend)?;
    let flops_per_second = |threads: usize| {
        let sample = |_| {
            let start = Instant::now();
            pool.install(|| (0..threads).into_par_iter().with_max_len(1).for_each(|_| run()));
            (threads * ROUNDS * SUMS * flops_per_instruction) as f64 / start.elapsed().as_secs_f64()
        };
        (0..samples).map(sample).fold(0.0, f64::max)
    };
    Some(Peak {
        backend: backend.to_owned(),
        instruction: instruction.to_owned(),
        flops_per_second_1: flops_per_second(1),
        flops_per_second_all: flops_per_second(pool.current_num_threads()),
    })
}
