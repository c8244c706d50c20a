//! NEON with FEAT_BF16 (Graviton 3, Neoverse V1 and N2, Apple M2 and later): dot products of bf16 rows without widening
//! them. Rust has no stable intrinsics for it; the instructions go through `asm!`.

use crate::{
    arch::neon::{neon_methods, register_methods},
    simd::Simd,
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
    /// Adds the two products of each lane's pairs to `sum`.
    #[inline(always)]
    fn dot_pairs(self, sum: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
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

    /// Rounds (even places, odd places) to bf16 pairs as memory has them, and gives what the rounding left over.
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
}

impl Simd for NeonBf16 {
    const NAME: &'static str = "neonbf16";
    const TILE_QUERIES: usize = 5;
    const MULTIPLIES_BF16: bool = true;
    neon_methods!();

    // The same as in `avx512bf16.rs`, where the why is told: queries are the sum of two bf16 numbers, values are weighed
    // two rows at a time with weights rounded to bf16.

    #[inline(always)]
    fn load_bf16_operand(self, from: &[bf16]) -> [float32x4_t; 2] {
        let from = &from[..8];
        // SAFETY: eight bf16, which are u16 in memory, were just checked to be there; the token proves NEON.
        [unsafe { vreinterpretq_f32_u16(vld1q_u16(from.as_ptr().cast())) }, self.splat(0.0)]
    }

    #[inline(always)]
    fn bf16_query_operand(self, even_odd: [float32x4_t; 2]) -> [float32x4_t; 2] {
        let (rounded, rest) = self.split(even_odd);
        let (second, _) = self.split(rest);
        [rounded, second]
    }

    #[inline(always)]
    fn dot_bf16<const FULL: bool>(
        self,
        sum: float32x4_t,
        row: [float32x4_t; 2],
        query: [float32x4_t; 2],
    ) -> float32x4_t {
        let sum = self.dot_pairs(sum, row[0], query[0]);
        if FULL { self.dot_pairs(sum, row[0], query[1]) } else { sum }
    }

    #[inline(always)]
    fn interleave_bf16(self, first: &[bf16], second: &[bf16]) -> [float32x4_t; 2] {
        let (first, second) = (&first[..8], &second[..8]);
        // SAFETY: eight bf16, which are u16 in memory, were just checked to be in each; the token proves NEON.
        unsafe {
            let (first, second) = (vld1q_u16(first.as_ptr().cast()), vld1q_u16(second.as_ptr().cast()));
            let (low, high) = (vzip1q_u16(first, second), vzip2q_u16(first, second));
            [vreinterpretq_f32_u16(low), vreinterpretq_f32_u16(high)]
        }
    }

    #[inline(always)]
    fn put_bf16_weights(
        self,
        total: float32x4_t,
        weights: [float32x4_t; 2],
        scores: &mut [f32],
        at: usize,
    ) -> float32x4_t {
        // SAFETY: register arithmetic only; the token proves NEON.
        let packed = unsafe { vreinterpretq_f32_u16(self.round(weights[0], weights[1])) };
        self.store(packed, &mut scores[at / 2..]);
        self.dot_pairs(total, packed, self.splat(f32::from_bits(0x3f80_3f80)))
    }

    #[inline(always)]
    fn bf16_value_place(natural: usize) -> usize {
        natural
    }

    #[inline(always)]
    fn broadcast_bf16_pair(self, pair: &[bf16]) -> float32x4_t {
        self.splat(bytemuck::pod_read_unaligned(bytemuck::cast_slice(&pair[..2])))
    }

    #[inline(always)]
    fn multiply_bf16_pairs(self, sum: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.dot_pairs(sum, a, b)
    }
}
