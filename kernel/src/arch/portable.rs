//! Any CPU: eight lanes of `wide`, which become whatever vectors the target is compiled for.

use crate::simd::Simd;
use bytemuck::{cast, pod_read_unaligned};
use half::{bf16, f16, slice::HalfFloatSliceExt};
use wide::{f32x8, i32x8, u32x8};

/// Proof of nothing: runs everywhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    type F32 = f32x8;
    type Plain = Self;
    type Bf16 = bf16;
    const NAME: &'static str = "portable";
    const LANES: usize = 8;
    // On the x86-64 and AArch64 baselines an f32x8 is two registers, so 16 and 32 of them hold 8 and 16.
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn plain(self) -> Self {
        self
    }

    #[inline(always)]
    fn vectorize<R>(self, work: impl FnOnce() -> R) -> R {
        work()
    }

    #[inline(always)]
    fn splat(self, x: f32) -> f32x8 {
        f32x8::splat(x)
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> f32x8 {
        pod_read_unaligned(bytemuck::cast_slice(&from[..8]))
    }

    #[inline(always)]
    fn store(self, x: f32x8, to: &mut [f32]) {
        to[..8].copy_from_slice(x.as_array());
    }

    #[inline(always)]
    fn add(self, a: f32x8, b: f32x8) -> f32x8 {
        a + b
    }

    #[inline(always)]
    fn sub(self, a: f32x8, b: f32x8) -> f32x8 {
        a - b
    }

    #[inline(always)]
    fn mul(self, a: f32x8, b: f32x8) -> f32x8 {
        a * b
    }

    #[inline(always)]
    fn div(self, a: f32x8, b: f32x8) -> f32x8 {
        a / b
    }

    #[inline(always)]
    fn mul_add(self, a: f32x8, b: f32x8, c: f32x8) -> f32x8 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn max(self, a: f32x8, b: f32x8) -> f32x8 {
        a.fast_max(b)
    }

    #[inline(always)]
    fn min(self, a: f32x8, b: f32x8) -> f32x8 {
        a.fast_min(b)
    }

    #[inline(always)]
    fn round(self, x: f32x8) -> f32x8 {
        // Adding and taking away 1.5 · 2^23 leaves no bits below the point; the hardware rounds ties to even.
        const MAGIC: f32 = 12_582_912.0;
        (x + f32x8::splat(MAGIC)) - f32x8::splat(MAGIC)
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, x: f32x8, n: f32x8) -> f32x8 {
        // 2x · 2^(n−1): the exponent of the lowest factor is that of 0.
        let exponent: i32x8 = n.fast_round_int() + i32x8::splat(126);
        (x + x) * cast::<i32x8, f32x8>(exponent << 23)
    }

    #[inline(always)]
    fn load_bf16(self, from: &[bf16]) -> [f32x8; 2] {
        let pairs: u32x8 = pod_read_unaligned(bytemuck::cast_slice(&from[..16]));
        [cast(pairs << 16), cast(pairs & u32x8::splat(0xffff_0000))]
    }

    #[inline(always)]
    fn load_bf16_in_order(self, from: &[bf16]) -> f32x8 {
        let mut wide = [0.0; 8];
        from[..8].convert_to_f32_slice(&mut wide);
        f32x8::new(wide)
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16]) -> f32x8 {
        let mut wide = [0.0; 8];
        from[..8].convert_to_f32_slice(&mut wide);
        f32x8::new(wide)
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8]) -> f32x8 {
        let mut wide = [0.0; 8];
        for (to, &x) in wide.iter_mut().zip(&from[..8]) {
            *to = f32::from(x);
        }
        f32x8::new(wide)
    }

    #[inline(always)]
    fn at_least(self, x: f32x8, threshold: f32x8) -> u32 {
        x.simd_ge(threshold).to_bitmask()
    }

    #[inline(always)]
    fn add_where_at_least(self, sum: f32x8, x: f32x8, threshold: f32x8, counts: &[u32]) -> f32x8 {
        let counts: u32x8 = pod_read_unaligned(bytemuck::cast_slice(&counts[..8]));
        let wanted: u32x8 = cast(x.simd_ge(threshold));
        cast(cast::<f32x8, u32x8>(sum) + (wanted & counts))
    }

    #[inline(always)]
    fn reduce_add(self, x: f32x8) -> f32 {
        x.reduce_add()
    }

    #[inline(always)]
    fn reduce_max(self, x: f32x8) -> f32 {
        x.to_array().into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
