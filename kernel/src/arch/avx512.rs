//! AVX-512 without BF16 instructions: sixteen lanes, thirty-two registers.

use crate::simd::Simd;

pulp::simd_type! {
    /// Proof that the CPU has AVX-512 F, BW, DQ and VL (and what they imply: AVX2, FMA, F16C).
    pub(crate) struct Avx512 {
        pub(crate) avx: "avx",
        pub(crate) avx2: "avx2",
        pub(crate) fma: "fma",
        pub(crate) f16c: "f16c",
        pub(crate) avx512f: "avx512f",
        pub(crate) avx512bw: "avx512bw",
        pub(crate) avx512dq: "avx512dq",
        pub(crate) avx512vl: "avx512vl",
    }
}

/// The required methods on sixteen lanes, for every token that has AVX-512 F and DQ among its fields.
macro_rules! avx512_methods {
    () => {
        type F32 = std::arch::x86_64::__m512;
        type Plain = crate::arch::avx512::Avx512;
        const LANES: usize = 16;
        const REGISTERS: usize = 32;
        const TILE_QUERIES: usize = 5;

        #[inline(always)]
        fn plain(self) -> Self::Plain {
            let Self { avx, avx2, fma, f16c, avx512f, avx512bw, avx512dq, avx512vl, .. } = self;
            Self::Plain { avx, avx2, fma, f16c, avx512f, avx512bw, avx512dq, avx512vl }
        }

        #[inline(always)]
        fn vectorize<R>(self, work: impl FnOnce() -> R) -> R {
            Self::vectorize(self, work)
        }

        #[inline(always)]
        fn splat(self, x: f32) -> Self::F32 {
            self.avx512f._mm512_set1_ps(x)
        }

        #[inline(always)]
        fn load(self, from: &[f32]) -> Self::F32 {
            let from = &from[..16];
            // SAFETY: sixteen f32 were just checked to be there; the token proves AVX-512 F.
            unsafe { std::arch::x86_64::_mm512_loadu_ps(from.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, x: Self::F32, to: &mut [f32]) {
            let to = &mut to[..16];
            // SAFETY: sixteen f32 were just checked to be there; the token proves AVX-512 F.
            unsafe { std::arch::x86_64::_mm512_storeu_ps(to.as_mut_ptr(), x) }
        }

        #[inline(always)]
        fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
            self.avx512f._mm512_add_ps(a, b)
        }

        #[inline(always)]
        fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
            self.avx512f._mm512_sub_ps(a, b)
        }

        #[inline(always)]
        fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
            self.avx512f._mm512_mul_ps(a, b)
        }

        #[inline(always)]
        fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
            self.avx512f._mm512_div_ps(a, b)
        }

        #[inline(always)]
        fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
            self.avx512f._mm512_fmadd_ps(a, b, c)
        }

        #[inline(always)]
        fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
            self.avx512f._mm512_max_ps(a, b)
        }

        #[inline(always)]
        fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
            self.avx512f._mm512_min_ps(a, b)
        }

        #[inline(always)]
        fn round(self, x: Self::F32) -> Self::F32 {
            // Round to nearest even, keep no fraction bits, raise no exception.
            self.avx512f._mm512_roundscale_ps::<0x08>(x)
        }

        #[inline(always)]
        fn scale_by_power_of_two(self, x: Self::F32, n: Self::F32) -> Self::F32 {
            let lowest = self.avx512f._mm512_set1_ps(-126.0);
            let is_left = self.avx512f._mm512_cmp_ps_mask::<{ std::arch::x86_64::_CMP_GT_OQ }>(n, lowest);
            self.avx512f._mm512_maskz_scalef_ps(is_left, x, n)
        }

        #[inline(always)]
        fn load_bf16(self, from: &[half::bf16]) -> [Self::F32; 2] {
            let from = &from[..32];
            // SAFETY: thirty-two bf16 were just checked to be there; the token proves AVX-512 F.
            let pairs = unsafe { std::arch::x86_64::_mm512_loadu_si512(from.as_ptr().cast()) };
            // A mask of halves and not of bits: it does not take one of the registers that tiles are short of.
            let odd = self.avx512bw._mm512_maskz_mov_epi16(0xaaaa_aaaa, pairs);
            [
                self.avx512f._mm512_castsi512_ps(self.avx512f._mm512_slli_epi32::<16>(pairs)),
                self.avx512f._mm512_castsi512_ps(odd),
            ]
        }

        #[inline(always)]
        fn load_bf16_in_order(self, from: &[half::bf16]) -> Self::F32 {
            let from = &from[..16];
            // SAFETY: sixteen bf16 were just checked to be there; the token proves AVX.
            let raw = unsafe { std::arch::x86_64::_mm256_loadu_si256(from.as_ptr().cast()) };
            let wide = self.avx512f._mm512_cvtepu16_epi32(raw);
            self.avx512f._mm512_castsi512_ps(self.avx512f._mm512_slli_epi32::<16>(wide))
        }

        #[inline(always)]
        fn load_f16(self, from: &[half::f16]) -> Self::F32 {
            let from = &from[..16];
            // SAFETY: sixteen f16 were just checked to be there; the token proves AVX.
            let raw = unsafe { std::arch::x86_64::_mm256_loadu_si256(from.as_ptr().cast()) };
            self.avx512f._mm512_cvtph_ps(raw)
        }

        #[inline(always)]
        fn load_i8(self, from: &[i8]) -> Self::F32 {
            let from = &from[..16];
            // SAFETY: sixteen i8 were just checked to be there; the token proves AVX.
            let raw = unsafe { std::arch::x86_64::_mm_loadu_si128(from.as_ptr().cast()) };
            self.avx512f._mm512_cvtepi32_ps(self.avx512f._mm512_cvtepi8_epi32(raw))
        }

        #[inline(always)]
        fn reduce_add(self, x: Self::F32) -> f32 {
            let high = self.avx512dq._mm512_extractf32x8_ps::<1>(x);
            let eights = self.avx._mm256_add_ps(self.avx512f._mm512_castps512_ps256(x), high);
            let quads = self.avx._mm256_add_ps(eights, self.avx._mm256_permute2f128_ps::<1>(eights, eights));
            let pairs = self.avx._mm256_add_ps(quads, self.avx._mm256_permute_ps::<0b01_00_11_10>(quads));
            let whole = self.avx._mm256_add_ps(pairs, self.avx._mm256_permute_ps::<0b10_11_00_01>(pairs));
            self.avx._mm256_cvtss_f32(whole)
        }

        #[inline(always)]
        fn reduce_max(self, x: Self::F32) -> f32 {
            let high = self.avx512dq._mm512_extractf32x8_ps::<1>(x);
            let eights = self.avx._mm256_max_ps(self.avx512f._mm512_castps512_ps256(x), high);
            let quads = self.avx._mm256_max_ps(eights, self.avx._mm256_permute2f128_ps::<1>(eights, eights));
            let pairs = self.avx._mm256_max_ps(quads, self.avx._mm256_permute_ps::<0b01_00_11_10>(quads));
            let whole = self.avx._mm256_max_ps(pairs, self.avx._mm256_permute_ps::<0b10_11_00_01>(pairs));
            self.avx._mm256_cvtss_f32(whole)
        }

        #[inline(always)]
        fn at_least(self, x: Self::F32, threshold: Self::F32) -> u32 {
            u32::from(self.avx512f._mm512_cmp_ps_mask::<{ std::arch::x86_64::_CMP_GE_OQ }>(x, threshold))
        }

        #[inline(always)]
        fn add_where_at_least(
            self,
            sum: Self::F32,
            x: Self::F32,
            threshold: Self::F32,
            counts: &[u32],
        ) -> Self::F32 {
            let counts = &counts[..16];
            let f = self.avx512f;
            // SAFETY: sixteen u32 were just checked to be there; the token proves AVX-512 F.
            let counts = unsafe { std::arch::x86_64::_mm512_loadu_si512(counts.as_ptr().cast()) };
            let sum = f._mm512_castps_si512(sum);
            let mask = f._mm512_cmp_ps_mask::<{ std::arch::x86_64::_CMP_GE_OQ }>(x, threshold);
            f._mm512_castsi512_ps(f._mm512_mask_add_epi32(sum, mask, sum, counts))
        }

        #[inline(always)]
        fn reduce_add_4(self, x: [Self::F32; 4]) -> [f32; 4] {
            let [a, b, c, d] = x;
            let f = self.avx512f;
            // A transposition in every quarter of 128 bits: each then holds a part of the four sums, in order.
            let ab = f._mm512_add_ps(f._mm512_unpacklo_ps(a, b), f._mm512_unpackhi_ps(a, b));
            let cd = f._mm512_add_ps(f._mm512_unpacklo_ps(c, d), f._mm512_unpackhi_ps(c, d));
            let low = f._mm512_shuffle_ps::<0b01_00_01_00>(ab, cd);
            let high = f._mm512_shuffle_ps::<0b11_10_11_10>(ab, cd);
            let quarters = f._mm512_add_ps(low, high);
            let upper = self.avx512dq._mm512_extractf32x8_ps::<1>(quarters);
            let halves = self.avx._mm256_add_ps(f._mm512_castps512_ps256(quarters), upper);
            let sums = self.avx._mm256_add_ps(halves, self.avx._mm256_permute2f128_ps::<1>(halves, halves));
            // SAFETY: a register cast; the token proves AVX.
            bytemuck::cast(unsafe { std::arch::x86_64::_mm256_castps256_ps128(sums) })
        }

        #[inline(always)]
        fn prefetch_l1(self, address: *const u8) {
            crate::arch::avx2::prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address);
        }

        #[inline(always)]
        fn prefetch_l2(self, address: *const u8) {
            crate::arch::avx2::prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address);
        }
    };
}
pub(crate) use avx512_methods;

impl Simd for Avx512 {
    type Bf16 = half::bf16;
    const NAME: &'static str = "avx512";
    avx512_methods!();
}
