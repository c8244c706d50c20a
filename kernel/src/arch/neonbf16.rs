//! NEON with FEAT_BF16 (Graviton 3, Neoverse V1 and N2, Apple M2 and later): dot products of bf16 rows without widening
//! them. Rust has no stable intrinsics for it; the instructions go through `asm!`.

use crate::{
    arch::neon::{neon_methods, register_methods},
    element::PairedBf16,
    simd::{MultiplyBf16Pairs, Simd},
};
use half::bf16;
use std::arch::{aarch64::*, asm};

pulp::simd_type! {
    /// Proof that the CPU has NEON and its BF16 instructions.
    pub(crate) struct NeonBf16 {
        pub(crate) neon: "neon",
        pub(crate) bf16: "bf16",
    }
}

impl NeonBf16 {
    /// Rounds eight numbers to bf16, in order.
    #[inline(always)]
    fn round(self, low: float32x4_t, high: float32x4_t) -> uint16x8_t {
        let rounded: uint16x8_t;
        // SAFETY: arithmetic on registers; the token proves BF16.
        unsafe {
            asm!(
                ".arch_extension bf16",
                "bfcvtn {rounded:v}.4h, {low:v}.4s",
                "bfcvtn2 {rounded:v}.8h, {high:v}.4s",
                rounded = out(vreg) rounded, low = in(vreg) low, high = in(vreg) high,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        rounded
    }
}

impl Simd for NeonBf16 {
    type Bf16 = PairedBf16;
    const NAME: &'static str = "neonbf16";
    const TILE_QUERIES: usize = 5;
    neon_methods!();
}

impl MultiplyBf16Pairs for NeonBf16 {
    #[inline(always)]
    fn load_pairs(self, from: &[bf16]) -> float32x4_t {
        let from = &from[..8];
        // SAFETY: eight bf16, which are u16 in memory, were just checked to be there; the token proves NEON.
        unsafe { vreinterpretq_f32_u16(vld1q_u16(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn pair_up(self, first: &[bf16], second: &[bf16]) -> float32x4_t {
        let (first, second) = (&first[..4], &second[..4]);
        // SAFETY: four bf16, which are u16 in memory, were just checked to be in each; the token proves NEON.
        unsafe {
            let (first, second) = (vld1_u16(first.as_ptr().cast()), vld1_u16(second.as_ptr().cast()));
            vreinterpretq_f32_u16(vcombine_u16(vzip1_u16(first, second), vzip2_u16(first, second)))
        }
    }

    #[inline(always)]
    fn broadcast_pair(self, pair: &[bf16]) -> float32x4_t {
        self.splat(bytemuck::pod_read_unaligned(bytemuck::cast_slice(&pair[..2])))
    }

    #[inline(always)]
    fn multiply_pairs(self, sum: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        let mut sum = sum;
        // SAFETY: arithmetic on registers; the token proves BF16.
        unsafe {
            asm!(
                ".arch_extension bf16",
                "bfdot {sum:v}.4s, {a:v}.8h, {b:v}.8h",
                sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }

    #[inline(always)]
    fn round_to_pairs(self, [low, high]: [float32x4_t; 2]) -> float32x4_t {
        // SAFETY: a register cast; the token proves NEON.
        unsafe { vreinterpretq_f32_u16(self.round(low, high)) }
    }

    #[inline(always)]
    fn split(self, [even, odd]: [float32x4_t; 2]) -> (float32x4_t, [float32x4_t; 2]) {
        let rounded = self.round(even, odd);
        // SAFETY: register arithmetic only; the token proves NEON.
        unsafe {
            let (low, high) = (vget_low_u16(rounded), vget_high_u16(rounded));
            let even_rounded = vreinterpretq_f32_u32(vshll_n_u16::<16>(low));
            let odd_rounded = vreinterpretq_f32_u32(vshll_n_u16::<16>(high));
            let pairs = vcombine_u16(vzip1_u16(low, high), vzip2_u16(low, high));
            (vreinterpretq_f32_u16(pairs), [vsubq_f32(even, even_rounded), vsubq_f32(odd, odd_rounded)])
        }
    }

    #[inline(always)]
    fn interleave(self, first: &[bf16], second: &[bf16]) -> [float32x4_t; 2] {
        let (first, second) = (&first[..8], &second[..8]);
        // SAFETY: eight bf16, which are u16 in memory, were just checked to be in each; the token proves NEON.
        unsafe {
            let (first, second) = (vld1q_u16(first.as_ptr().cast()), vld1q_u16(second.as_ptr().cast()));
            let (low, high) = (vzip1q_u16(first, second), vzip2q_u16(first, second));
            [vreinterpretq_f32_u16(low), vreinterpretq_f32_u16(high)]
        }
    }

    #[inline(always)]
    fn interleaved_place(natural: usize) -> usize {
        natural
    }
}
