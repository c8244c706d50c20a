//! The wall of arithmetic: how fast a backend's multiply-add instruction runs with everything in registers.
#![allow(unsafe_code, reason = "the instructions themselves, without anything of the kernels around them")]

use super::results::Peak;
use rayon::prelude::*;
use std::{hint::black_box, time::Instant};

/// Runs of the loop per sample.
const ROUNDS: usize = 1 << 21;
/// Independent sums: more than latency times throughput of any CPU, few enough for sixteen registers.
const SUMS: usize = 12;
/// Operands that are multiplied, two at a time: with the sums they fit sixteen registers.
const OPERANDS: usize = 3;

/// A loop of `ROUNDS` times [`SUMS`] instructions, for CPUs that have them.
struct Loop {
    instruction: &'static str,
    flops_per_instruction: usize,
    run: fn(),
}

/// Numbers to multiply, in every lane others: matrix products of zeros, which toggle nothing, took a fifth less on a Granite
/// Rapids core. (This loop took as long.) As pairs of bf16 they are numbers of the same size.
fn numbers() -> [[f32; 16]; OPERANDS] {
    let number = |i: u32| f32::from_bits(0x3f80_3f80 | (i.wrapping_mul(0x9e37_79b9) & 0x807f_807f));
    std::array::from_fn(|operand| std::array::from_fn(|lane| number((operand * 16 + lane) as u32)))
}

/// Defines a function that keeps [`SUMS`] sums going, by an instruction of sum and two operands.
macro_rules! multiply_loop {
    ($name:ident, $features:literal, $register:ty, $class:ident, $instruction:literal) => {
        #[target_feature(enable = $features)]
        fn $name() {
            let operands = super::numbers().map(|lanes| {
                // SAFETY: plain numbers, of which a register takes the first ones.
                unsafe { std::ptr::read_unaligned(lanes.as_ptr().cast::<$register>()) }
            });
            let mut sums = [operands[0]; SUMS];
            for _ in 0..ROUNDS {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let (a, b) = (operands[i % OPERANDS], operands[(i + 1) % OPERANDS]);
                    // SAFETY: arithmetic on registers; the caller has checked for the instruction.
                    unsafe {
                        asm!($instruction, inout($class) *sum, in($class) a, in($class) b, options(pure, nomem, nostack));
                    }
                }
            }
            black_box(sums);
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod loops {
    use super::{Loop, OPERANDS, ROUNDS, SUMS, black_box};
    use std::arch::{asm, x86_64::*};

    multiply_loop!(fma_256, "avx,fma", __m256, ymm_reg, "vfmadd231ps {0}, {1}, {2}");
    multiply_loop!(fma_512, "avx512f", __m512, zmm_reg, "vfmadd231ps {0}, {1}, {2}");
    multiply_loop!(dot_bf16_512, "avx512f,avx512bf16", __m512, zmm_reg, "vdpbf16ps {0}, {1}, {2}");
    multiply_loop!(baseline, "sse2", __m128, xmm_reg, "mulps {0}, {1}\naddps {0}, {2}");

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
    use super::{Loop, OPERANDS, ROUNDS, SUMS, black_box};
    use std::arch::{aarch64::*, asm};

    multiply_loop!(fmla, "neon", float32x4_t, vreg, "fmla {0:v}.4s, {1:v}.4s, {2:v}.4s");
    multiply_loop!(
        bfdot,
        "neon",
        float32x4_t,
        vreg,
        ".arch_extension bf16\nbfdot {0:v}.4s, {1:v}.8h, {2:v}.8h"
    );

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
