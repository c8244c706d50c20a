//! NEON, which every AArch64 CPU has: four lanes, thirty-two registers.

use crate::simd::Simd;
use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vaddq_s32, vaddq_u32, vaddvq_f32, vaddvq_u32, vandq_u32, vcgeq_f32, vcvt_f32_f16,
    vcvtnq_s32_f32, vcvtq_f32_s32, vdivq_f32, vdup_n_u32, vdupq_n_f32, vdupq_n_s32, vdupq_n_u32, vfmaq_f32,
    vget_low_s16, vld1_u16, vld1q_f32, vld1q_u16, vld1q_u32, vmaxq_f32, vmaxvq_f32, vminq_f32, vmovl_s8,
    vmovl_s16, vmulq_f32, vpaddq_f32, vreinterpret_f16_u16, vreinterpret_s8_u32, vreinterpretq_f32_s32,
    vreinterpretq_f32_u32, vreinterpretq_u32_f32, vreinterpretq_u32_u16, vrndnq_f32, vshll_n_u16,
    vshlq_n_s32, vshlq_n_u32, vst1q_f32, vsubq_f32,
};

pulp::simd_type! {
    /// Proof that the CPU has NEON.
    pub(crate) struct Neon {
        pub(crate) neon: "neon",
    }
}

/// A method that is one intrinsic on registers.
macro_rules! register_methods {
    ($($name:ident($($argument:ident),*) = $body:expr;)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($argument: Self::F32),*) -> Self::F32 {
                // SAFETY: register arithmetic only; the token proves NEON.
                unsafe { $body }
            }
        )*
    };
}

pub(crate) use register_methods;

/// The required methods on four lanes, for every token that has NEON.
macro_rules! neon_methods {
    () => {
        type F32 = float32x4_t;
        type Plain = crate::arch::neon::Neon;
        const LANES: usize = 4;
        const REGISTERS: usize = 32;

        #[inline(always)]
        fn plain(self) -> Self::Plain {
            Self::Plain { neon: self.neon }
        }

        #[inline(always)]
        fn vectorize<R>(self, work: impl FnOnce() -> R) -> R {
            Self::vectorize(self, work)
        }

        register_methods! {
            add(a, b) = vaddq_f32(a, b);
            sub(a, b) = vsubq_f32(a, b);
            mul(a, b) = vmulq_f32(a, b);
            div(a, b) = vdivq_f32(a, b);
            mul_add(a, b, c) = vfmaq_f32(c, a, b);
            max(a, b) = vmaxq_f32(a, b);
            min(a, b) = vminq_f32(a, b);
            round(x) = vrndnq_f32(x);
            // 2x · 2^(n−1): the exponent of the lowest factor is that of 0.
            scale_by_power_of_two(x, n) = vmulq_f32(
                vaddq_f32(x, x),
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(126)))),
            );
        }

        #[inline(always)]
        fn splat(self, x: f32) -> float32x4_t {
            // SAFETY: register arithmetic only; the token proves NEON.
            unsafe { vdupq_n_f32(x) }
        }

        #[inline(always)]
        fn load(self, from: &[f32]) -> float32x4_t {
            let from = &from[..4];
            // SAFETY: four f32 were just checked to be there; the token proves NEON.
            unsafe { vld1q_f32(from.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, x: float32x4_t, to: &mut [f32]) {
            let to = &mut to[..4];
            // SAFETY: four f32 were just checked to be there; the token proves NEON.
            unsafe { vst1q_f32(to.as_mut_ptr(), x) }
        }

        #[inline(always)]
        fn load_bf16(self, from: &[half::bf16]) -> [float32x4_t; 2] {
            let from = &from[..8];
            // SAFETY: eight bf16, which are u16 in memory, were just checked to be there; the token proves NEON.
            unsafe {
                let pairs = vreinterpretq_u32_u16(vld1q_u16(from.as_ptr().cast()));
                let odd = vandq_u32(pairs, vdupq_n_u32(0xffff_0000));
                [vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs)), vreinterpretq_f32_u32(odd)]
            }
        }

        #[inline(always)]
        fn load_bf16_in_order(self, from: &[half::bf16]) -> float32x4_t {
            let from = &from[..4];
            // SAFETY: four bf16, which are u16 in memory, were just checked to be there; the token proves NEON.
            unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.as_ptr().cast()))) }
        }

        #[inline(always)]
        fn load_f16(self, from: &[half::f16]) -> float32x4_t {
            let from = &from[..4];
            // SAFETY: four f16, which are u16 in memory, were just checked to be there; the token proves NEON.
            unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.as_ptr().cast()))) }
        }

        #[inline(always)]
        fn load_i8(self, from: &[i8]) -> float32x4_t {
            let four: u32 = bytemuck::pod_read_unaligned(bytemuck::cast_slice(&from[..4]));
            // SAFETY: register arithmetic only; the token proves NEON.
            unsafe {
                let bytes = vreinterpret_s8_u32(vdup_n_u32(four));
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
            }
        }

        #[inline(always)]
        fn reduce_add(self, x: float32x4_t) -> f32 {
            // SAFETY: register arithmetic only; the token proves NEON.
            unsafe { vaddvq_f32(x) }
        }

        #[inline(always)]
        fn reduce_max(self, x: float32x4_t) -> f32 {
            // SAFETY: register arithmetic only; the token proves NEON.
            unsafe { vmaxvq_f32(x) }
        }

        #[inline(always)]
        fn at_least(self, x: float32x4_t, threshold: float32x4_t) -> u32 {
            const BITS: [u32; 4] = [1, 2, 4, 8];
            // SAFETY: four u32 are there; the token proves NEON.
            unsafe { vaddvq_u32(vandq_u32(vcgeq_f32(x, threshold), vld1q_u32(BITS.as_ptr()))) }
        }

        #[inline(always)]
        fn add_where_at_least(
            self,
            sum: float32x4_t,
            x: float32x4_t,
            threshold: float32x4_t,
            counts: &[u32],
        ) -> float32x4_t {
            let counts = &counts[..4];
            // SAFETY: four u32 were just checked to be there; the token proves NEON.
            unsafe {
                let counts = vandq_u32(vcgeq_f32(x, threshold), vld1q_u32(counts.as_ptr()));
                vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(sum), counts))
            }
        }

        #[inline(always)]
        fn reduce_add_4(self, x: [float32x4_t; 4]) -> [f32; 4] {
            let [a, b, c, d] = x;
            // SAFETY: register arithmetic only; the token proves NEON.
            let sums = unsafe { vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)) };
            let mut out = [0.0; 4];
            self.store(sums, &mut out);
            out
        }

        #[inline(always)]
        fn prefetch_l1(self, address: *const u8) {
            // SAFETY: a prefetch never faults, whatever its address.
            unsafe {
                std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nomem, nostack, preserves_flags))
            };
        }

        #[inline(always)]
        fn prefetch_l2(self, address: *const u8) {
            // SAFETY: as above.
            unsafe {
                std::arch::asm!("prfm pldl2keep, [{0}]", in(reg) address, options(nomem, nostack, preserves_flags))
            };
        }
    };
}
pub(crate) use neon_methods;

impl Simd for Neon {
    type Bf16 = half::bf16;
    const NAME: &'static str = "neon";
    neon_methods!();
}
