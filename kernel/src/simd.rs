//! The small trait that an instruction set implements, and the lockstep walk that keeps bounds checks out of the
//! inner loops.

use half::{bf16, f16};
use std::fmt::Debug;

/// One instruction set, as the algorithms see it.
///
/// An implementor is a zero-sized proof token: it can only be made where the CPU has the instructions, so its
/// methods are safe to call. Slices handed to a load or store hold at least the elements it touches; the methods
/// check that, and the check vanishes where the length is known, as it is for the blocks of [`LockStep`].
///
/// NaN and infinite inputs give unspecified numbers, never undefined behaviour and never a panic.
pub trait Simd: Copy + Debug + Send + Sync + 'static {
    /// A register of f32 lanes.
    type F32: Copy;
    /// The name that `A2ATS_ISA` knows.
    const NAME: &'static str;
    /// Lanes of a register; at most [`MAX_LANES`].
    const LANES: usize;
    /// Architectural vector registers: how large a tile of sums may be.
    const REGISTERS: usize;

    /// Runs `work` compiled for this instruction set. Everything in it must be inlined into it.
    fn vectorize<R>(self, work: impl FnOnce() -> R) -> R;

    /// The same number in all lanes.
    fn splat(self, x: f32) -> Self::F32;
    /// LANES numbers from memory, any alignment.
    fn load(self, from: &[f32]) -> Self::F32;
    /// LANES numbers to memory, any alignment.
    fn store(self, x: Self::F32, to: &mut [f32]);
    /// a + b
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a − b
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a · b
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a / b
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a · b + c, fused where the instruction set can.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The larger of each pair of lanes.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller of each pair of lanes.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The nearest integer, ties to even, for |x| < 2^22.
    fn round(self, x: Self::F32) -> Self::F32;
    /// 2^x for integral x in −126..=127.
    fn power_of_two(self, x: Self::F32) -> Self::F32;
    /// 2·LANES bf16 numbers as f32: the ones at even places, the ones at odd places.
    fn load_bf16_even_odd(self, from: &[bf16]) -> [Self::F32; 2];
    /// LANES f16 numbers as f32, in order.
    fn load_f16(self, from: &[f16]) -> Self::F32;
    /// The sum of the lanes.
    fn reduce_add(self, x: Self::F32) -> f32;
    /// The largest lane.
    fn reduce_max(self, x: Self::F32) -> f32;

    /// The sums of the lanes of four registers, each added up in the same order: cheaper together where shuffles can
    /// transpose.
    #[inline(always)]
    fn reduce_add_4(self, x: [Self::F32; 4]) -> [f32; 4] {
        let [a, b, c, d] = x;
        [self.reduce_add(a), self.reduce_add(b), self.reduce_add(c), self.reduce_add(d)]
    }

    /// e^x; −inf gives 0. Error below 4 units in the last place; subnormal results may be off by two of the
    /// smallest.
    #[inline(always)]
    fn exp(self, x: Self::F32) -> Self::F32 {
        // Beyond these bounds the result is 0 or infinite anyway.
        let x = self.min(self.max(x, self.splat(-110.0)), self.splat(90.0));
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        // x − n·ln 2 in two steps, the first of them exact: 0.693359375 has nine significant bits.
        let r = self.mul_add(n, self.splat(2.121_944_4e-4), self.mul_add(n, self.splat(-0.693_359_4), x));
        let mut p = self.splat(1.0 / 720.0);
        for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = self.mul_add(p, r, self.splat(c));
        }
        // 2^n in two halves, so that results near the ends of the range over- and underflow as they should.
        let half = self.round(self.mul(n, self.splat(0.5)));
        let scaled = self.mul(p, self.power_of_two(half));
        self.mul(scaled, self.power_of_two(self.sub(n, half)))
    }

    /// A block of 2·LANES bf16 row elements in the form that [`Simd::dot_bf16`] wants.
    #[inline(always)]
    fn load_bf16_operand(self, from: &[bf16]) -> [Self::F32; 2] {
        self.load_bf16_even_odd(from)
    }

    /// 2·LANES query values (even places, odd places) in the form that [`Simd::dot_bf16`] wants.
    #[inline(always)]
    fn bf16_query_operand(self, even_odd: [Self::F32; 2]) -> [Self::F32; 2] {
        even_odd
    }

    /// Adds the products of a row block and a query block to a sum of LANES lanes.
    #[inline(always)]
    fn dot_bf16(self, sum: Self::F32, row: [Self::F32; 2], query: [Self::F32; 2]) -> Self::F32 {
        self.mul_add(row[1], query[1], self.mul_add(row[0], query[0], sum))
    }

    /// Asks for the cache lines of `rows` to be brought near (into L2, not L1: see [`crate::attention`]).
    #[inline(always)]
    fn prefetch<T>(self, _rows: &[T]) {}
}

/// The widest register of any instruction set here, in f32 lanes: sizes buffers on the stack.
pub const MAX_LANES: usize = 16;

/// Walks `N` slices of equal length side by side, `block` elements at a time.
///
/// The bounds are checked once, here, instead of once per slice and block: in a tile of two rows and five queries
/// those checks are as many instructions as the multiplications.
pub(crate) struct LockStep<'a, T, const N: usize> {
    slices: [&'a [T]; N],
    at: usize,
    end: usize,
    block: usize,
}

impl<'a, T, const N: usize> LockStep<'a, T, N> {
    /// `slices` are cut to `len` elements; what `block` does not divide evenly is left out.
    ///
    /// # Panics
    /// If a slice is shorter than `len`, or `block` is 0: a mistake of the calling kernel.
    #[inline(always)]
    pub(crate) fn new(slices: [&'a [T]; N], len: usize, block: usize) -> Self {
        assert!(block > 0);
        for slice in &slices {
            assert!(slice.len() >= len);
        }
        Self { slices, at: 0, end: len - len % block, block }
    }
}

impl<'a, T, const N: usize> Iterator for LockStep<'a, T, N> {
    type Item = [&'a [T]; N];

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.end {
            return None;
        }
        let at = self.at;
        self.at += self.block;
        #[expect(unsafe_code, reason = "the one unchecked access of the inner loops, see the type's docs")]
        // SAFETY: `end` is a multiple of `block` not above the length of any slice (asserted in `new`), and `at`
        // went from 0 in steps of `block` without reaching it, so `at + block <= end`.
        Some(self.slices.map(
            #[inline(always)]
            |slice| unsafe { slice.get_unchecked(at..at + self.block) },
        ))
    }
}
