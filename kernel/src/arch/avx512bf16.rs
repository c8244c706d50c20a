//! AVX-512 with BF16: dot products of bf16 rows without widening them.

use crate::{arch::avx512::avx512_methods, simd::Simd};
use bytemuck::cast;
use half::bf16;
use std::arch::x86_64::{
    __m256i, __m512, __m512i, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps,
    _mm512_loadu_si512,
};

pulp::simd_type! {
    /// Proof that the CPU has AVX-512 F, BW, DQ, VL and BF16.
    pub(crate) struct Avx512Bf16 {
        pub(crate) avx: "avx",
        pub(crate) avx2: "avx2",
        pub(crate) fma: "fma",
        pub(crate) f16c: "f16c",
        pub(crate) avx512f: "avx512f",
        pub(crate) avx512bw: "avx512bw",
        pub(crate) avx512dq: "avx512dq",
        pub(crate) avx512vl: "avx512vl",
        pub(crate) avx512bf16: "avx512bf16",
    }
}

impl Avx512Bf16 {
    /// Rounds to bf16, one number in the low half of each 32-bit lane.
    #[inline(always)]
    fn round(self, x: __m512) -> __m512i {
        // SAFETY: register arithmetic only; the token proves AVX-512 BF16.
        let rounded: __m256i = cast(unsafe { _mm512_cvtneps_pbh(x) });
        self.avx512f._mm512_cvtepu16_epi32(rounded)
    }

    /// Rounds (even places, odd places) to bf16 pairs as memory has them, and gives what the rounding left over.
    #[inline(always)]
    fn split(self, [even, odd]: [__m512; 2]) -> (__m512, [__m512; 2]) {
        let f = self.avx512f;
        let low = self.round(even);
        let high = f._mm512_slli_epi32::<16>(self.round(odd));
        let widened = f._mm512_castsi512_ps(f._mm512_slli_epi32::<16>(low));
        let rest = [f._mm512_sub_ps(even, widened), f._mm512_sub_ps(odd, f._mm512_castsi512_ps(high))];
        (f._mm512_castsi512_ps(f._mm512_or_si512(low, high)), rest)
    }
}

/// Whether pair products are faster than multiply-adds of f32. On AMD they are: Zen 4 multiplies 465 GFLOP/s with them and
/// 233 without, on two cores. On Intel they are not: Emerald Rapids starts a `vdpbf16ps` every other cycle, 180 GFLOP/s against
/// 350, and dense decode reads a fifth less than with [`super::avx512`].
pub(crate) fn is_faster() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}

impl Simd for Avx512Bf16 {
    const NAME: &'static str = "avx512bf16";
    const MULTIPLIES_BF16: bool = true;
    avx512_methods!();

    // Row blocks stay bf16 pairs in one register; the second register of the pair that the generic code passes
    // around is not used. A query is the sum of two bf16 numbers, so its dot products keep 16 significant bits of
    // it for one more instruction; rounding it to one bf16 instead costs 2^-9 of every score.

    #[inline(always)]
    fn load_bf16_operand(self, from: &[bf16]) -> [__m512; 2] {
        let from = &from[..32];
        // SAFETY: thirty-two bf16 (64 bytes) were just checked to be there; the token proves AVX-512 F.
        [unsafe { _mm512_loadu_ps(from.as_ptr().cast()) }, self.avx512f._mm512_setzero_ps()]
    }

    #[inline(always)]
    fn bf16_query_operand(self, even_odd: [__m512; 2]) -> [__m512; 2] {
        let (rounded, rest) = self.split(even_odd);
        let (second, _) = self.split(rest);
        [rounded, second]
    }

    #[inline(always)]
    fn dot_bf16<const FULL: bool>(self, sum: __m512, row: [__m512; 2], query: [__m512; 2]) -> __m512 {
        // SAFETY: register arithmetic only; the token proves AVX-512 BF16.
        unsafe {
            let sum = _mm512_dpbf16_ps(sum, cast(row[0]), cast(query[0]));
            if FULL { _mm512_dpbf16_ps(sum, cast(row[0]), cast(query[1])) } else { sum }
        }
    }

    // Values are weighed two rows at a time: their elements interleaved, weights as pairs of bf16. The weights' sum is
    // that of the rounded ones, so that what rounding does to an output is 2^-9 of how far its values lie apart, as
    // much as rounding the values to bf16 did before.

    #[inline(always)]
    fn interleave_bf16(self, first: &[bf16], second: &[bf16]) -> [__m512; 2] {
        let (first, second) = (&first[..32], &second[..32]);
        // SAFETY: thirty-two bf16 (64 bytes) were just checked to be in each; the token proves AVX-512 F.
        let (first, second) = unsafe {
            (_mm512_loadu_si512(first.as_ptr().cast()), _mm512_loadu_si512(second.as_ptr().cast()))
        };
        let low = self.avx512bw._mm512_unpacklo_epi16(first, second);
        let high = self.avx512bw._mm512_unpackhi_epi16(first, second);
        [self.avx512f._mm512_castsi512_ps(low), self.avx512f._mm512_castsi512_ps(high)]
    }

    #[inline(always)]
    fn put_bf16_weights(self, total: __m512, weights: [__m512; 2], scores: &mut [f32], at: usize) -> __m512 {
        // SAFETY: register arithmetic only; the token proves AVX-512 BF16.
        let packed: __m512 = cast(unsafe { _mm512_cvtne2ps_pbh(weights[1], weights[0]) });
        self.store(packed, &mut scores[at / 2..]);
        let ones = self.avx512f._mm512_castsi512_ps(self.avx512f._mm512_set1_epi32(0x3f80_3f80));
        // SAFETY: as above.
        unsafe { _mm512_dpbf16_ps(total, cast(packed), cast(ones)) }
    }

    #[inline(always)]
    fn bf16_value_place(natural: usize) -> usize {
        // Unpacking works in quarters of eight elements: their first four go to one register, their last four to the other.
        let (quarter, within) = (natural / 8, natural % 8);
        quarter * 4 + within % 4 + 16 * (within / 4)
    }

    #[inline(always)]
    fn broadcast_bf16_pair(self, pair: &[bf16]) -> __m512 {
        let pair = bytemuck::pod_read_unaligned(bytemuck::cast_slice(&pair[..2]));
        self.avx512f._mm512_castsi512_ps(self.avx512f._mm512_set1_epi32(pair))
    }

    #[inline(always)]
    fn multiply_bf16_pairs(self, sum: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: register arithmetic only; the token proves AVX-512 BF16.
        unsafe { _mm512_dpbf16_ps(sum, cast(a), cast(b)) }
    }
}
