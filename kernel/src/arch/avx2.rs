//! AVX2 with FMA and F16C: eight lanes, sixteen registers.

use crate::simd::Simd;
use half::{bf16, f16};
use std::arch::x86_64::{
    __m256, _CMP_GE_OQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_loadl_epi64, _mm_loadu_si128,
    _mm_prefetch, _mm256_castps256_ps128, _mm256_cvtph_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_storeu_ps,
};

pulp::simd_type! {
    /// Proof that the CPU has AVX2, FMA and F16C.
    pub(crate) struct Avx2 {
        pub(crate) sse: "sse",
        pub(crate) avx: "avx",
        pub(crate) avx2: "avx2",
        pub(crate) fma: "fma",
        pub(crate) f16c: "f16c",
    }
}

impl Simd for Avx2 {
    type F32 = __m256;
    type Plain = Self;
    type Bf16 = bf16;
    const NAME: &'static str = "avx2";
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const TILE_QUERIES: usize = 5;

    #[inline(always)]
    fn plain(self) -> Self {
        self
    }

    #[inline(always)]
    fn vectorize<R>(self, work: impl FnOnce() -> R) -> R {
        Self::vectorize(self, work)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        self.avx._mm256_set1_ps(x)
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        let from = &from[..8];
        // SAFETY: eight f32 were just checked to be there; the token proves AVX.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, x: __m256, to: &mut [f32]) {
        let to = &mut to[..8];
        // SAFETY: eight f32 were just checked to be there; the token proves AVX.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        self.avx._mm256_add_ps(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        self.avx._mm256_sub_ps(a, b)
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        self.avx._mm256_mul_ps(a, b)
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        self.avx._mm256_div_ps(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        self.fma._mm256_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        self.avx._mm256_max_ps(a, b)
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        self.avx._mm256_min_ps(a, b)
    }

    #[inline(always)]
    fn round(self, x: __m256) -> __m256 {
        self.avx._mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, x: __m256, n: __m256) -> __m256 {
        // 2x · 2^(n−1): the exponent of the lowest factor is that of 0.
        let biased =
            self.avx2._mm256_add_epi32(self.avx._mm256_cvtps_epi32(n), self.avx._mm256_set1_epi32(126));
        let factor = self.avx._mm256_castsi256_ps(self.avx2._mm256_slli_epi32::<23>(biased));
        self.avx._mm256_mul_ps(self.avx._mm256_add_ps(x, x), factor)
    }

    #[inline(always)]
    fn load_bf16(self, from: &[bf16]) -> [__m256; 2] {
        let from = &from[..16];
        // SAFETY: sixteen bf16 were just checked to be there; the token proves AVX.
        let pairs = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
        // Zeros below each number. Shifts and masks, which leave even and odd places apart, take a port that multiply-adds need.
        let zero = self.avx._mm256_setzero_si256();
        [
            self.avx._mm256_castsi256_ps(self.avx2._mm256_unpacklo_epi16(zero, pairs)),
            self.avx._mm256_castsi256_ps(self.avx2._mm256_unpackhi_epi16(zero, pairs)),
        ]
    }

    #[inline(always)]
    fn load_bf16_in_order(self, from: &[bf16]) -> __m256 {
        let from = &from[..8];
        // SAFETY: eight bf16 were just checked to be there; the token proves AVX.
        let raw = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
        let wide = self.avx2._mm256_cvtepu16_epi32(raw);
        self.avx._mm256_castsi256_ps(self.avx2._mm256_slli_epi32::<16>(wide))
    }

    #[inline(always)]
    fn bf16_place(natural: usize) -> usize {
        // Unpacking works in halves of eight numbers: their first four go to one register, their last four to the other.
        let (half, within) = (natural / 8, natural % 8);
        half * 4 + within % 4 + 8 * (within / 4)
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16]) -> __m256 {
        let from = &from[..8];
        // SAFETY: eight f16 were just checked to be there; the token proves F16C.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8]) -> __m256 {
        let from = &from[..8];
        // SAFETY: eight i8 were just checked to be there; the token proves AVX.
        let raw = unsafe { _mm_loadl_epi64(from.as_ptr().cast()) };
        self.avx._mm256_cvtepi32_ps(self.avx2._mm256_cvtepi8_epi32(raw))
    }

    #[inline(always)]
    fn reduce_add(self, x: __m256) -> f32 {
        let swapped = self.avx._mm256_permute2f128_ps::<1>(x, x);
        let quads = self.avx._mm256_add_ps(x, swapped);
        let pairs = self.avx._mm256_add_ps(quads, self.avx._mm256_permute_ps::<0b01_00_11_10>(quads));
        let whole = self.avx._mm256_add_ps(pairs, self.avx._mm256_permute_ps::<0b10_11_00_01>(pairs));
        self.avx._mm256_cvtss_f32(whole)
    }

    #[inline(always)]
    fn reduce_max(self, x: __m256) -> f32 {
        let swapped = self.avx._mm256_permute2f128_ps::<1>(x, x);
        let quads = self.avx._mm256_max_ps(x, swapped);
        let pairs = self.avx._mm256_max_ps(quads, self.avx._mm256_permute_ps::<0b01_00_11_10>(quads));
        let whole = self.avx._mm256_max_ps(pairs, self.avx._mm256_permute_ps::<0b10_11_00_01>(pairs));
        self.avx._mm256_cvtss_f32(whole)
    }

    #[inline(always)]
    fn at_least(self, x: __m256, threshold: __m256) -> u32 {
        let wanted = self.avx._mm256_cmp_ps::<_CMP_GE_OQ>(x, threshold);
        self.avx._mm256_movemask_ps(wanted).cast_unsigned()
    }

    #[inline(always)]
    fn add_where_at_least(self, sum: __m256, x: __m256, threshold: __m256, counts: &[u32]) -> __m256 {
        let counts = &counts[..8];
        // SAFETY: eight u32 were just checked to be there; the token proves AVX.
        let counts = unsafe { _mm256_loadu_si256(counts.as_ptr().cast()) };
        let wanted = self.avx._mm256_castps_si256(self.avx._mm256_cmp_ps::<_CMP_GE_OQ>(x, threshold));
        let sum = self.avx._mm256_castps_si256(sum);
        let sum = self.avx2._mm256_add_epi32(sum, self.avx2._mm256_and_si256(wanted, counts));
        self.avx._mm256_castsi256_ps(sum)
    }

    #[inline(always)]
    fn reduce_add_4(self, x: [__m256; 4]) -> [f32; 4] {
        let [a, b, c, d] = x;
        let halves = self.avx._mm256_hadd_ps(self.avx._mm256_hadd_ps(a, b), self.avx._mm256_hadd_ps(c, d));
        let sums = self.avx._mm256_add_ps(halves, self.avx._mm256_permute2f128_ps::<1>(halves, halves));
        // SAFETY: a register cast; the token proves AVX.
        bytemuck::cast(unsafe { _mm256_castps256_ps128(sums) })
    }

    #[inline(always)]
    fn prefetch_l1(self, address: *const u8) {
        prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address);
    }

    #[inline(always)]
    fn prefetch_l2(self, address: *const u8) {
        prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address);
    }
}

#[inline(always)]
pub(crate) fn prefetch<const HINT: i32>(address: *const u8) {
    // SAFETY: a prefetch never faults, whatever its address.
    unsafe { _mm_prefetch::<HINT>(address.cast()) };
}
