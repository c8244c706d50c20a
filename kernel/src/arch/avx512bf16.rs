//! AVX-512 with BF16: dot products of bf16 rows without widening them.

use crate::{
    arch::avx512::avx512_methods,
    element::PairedBf16,
    simd::{MultiplyBf16Pairs, Simd},
};
use bytemuck::cast;
use half::bf16;
use std::arch::x86_64::{
    __m256i, __m512, __m512i, _mm256_loadu_si256, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_dpbf16_ps,
    _mm512_loadu_ps, _mm512_loadu_si512,
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
}

/// Whether pair products are faster than multiply-adds of f32. On AMD they are: Zen 4 multiplies 465 GFLOP/s with them and
/// 233 without, on two cores. On Intel they are not: Emerald Rapids starts a `vdpbf16ps` every other cycle, 180 GFLOP/s against
/// 350, and dense decode reads a fifth less than with [`super::avx512`].
pub(crate) fn is_faster() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}

impl Simd for Avx512Bf16 {
    type Bf16 = PairedBf16;
    const NAME: &'static str = "avx512bf16";
    avx512_methods!();
}

impl MultiplyBf16Pairs for Avx512Bf16 {
    #[inline(always)]
    fn load_pairs(self, from: &[bf16]) -> __m512 {
        let from = &from[..32];
        // SAFETY: thirty-two bf16 (64 bytes) were just checked to be there; the token proves AVX-512 F.
        unsafe { _mm512_loadu_ps(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn pair_up(self, first: &[bf16], second: &[bf16]) -> __m512 {
        let (first, second) = (&first[..16], &second[..16]);
        // SAFETY: sixteen bf16 (32 bytes) were just checked to be in each; the token proves AVX.
        let (first, second) = unsafe {
            (_mm256_loadu_si256(first.as_ptr().cast()), _mm256_loadu_si256(second.as_ptr().cast()))
        };
        let f = self.avx512f;
        let high = f._mm512_slli_epi32::<16>(f._mm512_cvtepu16_epi32(second));
        f._mm512_castsi512_ps(f._mm512_or_si512(f._mm512_cvtepu16_epi32(first), high))
    }

    #[inline(always)]
    fn broadcast_pair(self, pair: &[bf16]) -> __m512 {
        let pair = bytemuck::pod_read_unaligned(bytemuck::cast_slice(&pair[..2]));
        self.avx512f._mm512_castsi512_ps(self.avx512f._mm512_set1_epi32(pair))
    }

    #[inline(always)]
    fn multiply_pairs(self, sum: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: register arithmetic only; the token proves AVX-512 BF16.
        unsafe { _mm512_dpbf16_ps(sum, cast(a), cast(b)) }
    }

    #[inline(always)]
    fn round_to_pairs(self, [low, high]: [__m512; 2]) -> __m512 {
        // SAFETY: register arithmetic only; the token proves AVX-512 BF16.
        cast(unsafe { _mm512_cvtne2ps_pbh(high, low) })
    }

    #[inline(always)]
    fn split(self, [even, odd]: [__m512; 2]) -> (__m512, [__m512; 2]) {
        let f = self.avx512f;
        let low = self.round(even);
        let high = f._mm512_slli_epi32::<16>(self.round(odd));
        let widened = f._mm512_castsi512_ps(f._mm512_slli_epi32::<16>(low));
        let rest = [f._mm512_sub_ps(even, widened), f._mm512_sub_ps(odd, f._mm512_castsi512_ps(high))];
        (f._mm512_castsi512_ps(f._mm512_or_si512(low, high)), rest)
    }

    #[inline(always)]
    fn interleave(self, first: &[bf16], second: &[bf16]) -> [__m512; 2] {
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
    fn interleaved_place(natural: usize) -> usize {
        // Unpacking works in quarters of eight elements: their first four go to one register, their last four to the other.
        let (quarter, within) = (natural / 8, natural % 8);
        quarter * 4 + within % 4 + 16 * (within / 4)
    }
}
