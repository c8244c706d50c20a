//! The small trait that an instruction set implements, and the walks that keep bounds checks out of the inner loops.

use crate::dtype::Elements;
use half::{bf16, f16};
use std::fmt::Debug;

/// One instruction set, as the algorithms see it.
///
/// An implementor is a zero-sized proof token: it can only be made where the CPU has the instructions, so its
/// methods are safe to call. Slices handed to a load or store hold at least the elements it touches; the methods
/// check that, and the check vanishes where the length is known, as it is for the blocks of `walk::LockStep`.
///
/// NaN and infinite inputs give unspecified numbers, never undefined behaviour and never a panic.
pub trait Simd: Copy + Debug + Send + Sync + 'static {
    /// A register of f32 lanes.
    type F32: Copy;
    /// The instruction set without instructions for pairs of bf16: what does not multiply those is compiled for it alone.
    type Plain: Simd;
    /// As what this one sees bf16: `bf16`, which it widens, or `PairedBf16`.
    type Bf16: Element<Self>;
    /// The name that `A2ATS_ISA` knows.
    const NAME: &'static str;
    /// Lanes of a register; at most [`MAX_LANES`].
    const LANES: usize;
    /// Architectural vector registers: how large a tile of sums may be.
    const REGISTERS: usize;

    /// Most queries of a tile, 4 or 5. With five and two rows, ten sums and four row registers fit sixteen registers if queries
    /// are operands in memory; with five and four rows, twenty sums, eight row registers and a query fit thirty-two, if
    /// widening needs no more than one.
    const TILE_QUERIES: usize = 4;
    /// Proof of the plain instruction set.
    fn plain(self) -> Self::Plain;

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
    /// x · 2^n for x from ½ to 2 and integral n from −125 to 128, where 2^n may count as infinite; 0 for n of −126.
    fn scale_by_power_of_two(self, x: Self::F32, n: Self::F32) -> Self::F32;
    /// 2·LANES bf16 numbers as f32, each at its [`Simd::bf16_place`].
    fn load_bf16(self, from: &[bf16]) -> [Self::F32; 2];
    /// LANES bf16 numbers as f32, in order.
    fn load_bf16_in_order(self, from: &[bf16]) -> Self::F32;

    /// LANES f16 numbers as f32, in order.
    fn load_f16(self, from: &[f16]) -> Self::F32;
    /// LANES integers as f32, in order.
    fn load_i8(self, from: &[i8]) -> Self::F32;
    /// The sum of the lanes.
    fn reduce_add(self, x: Self::F32) -> f32;
    /// The largest lane.
    fn reduce_max(self, x: Self::F32) -> f32;

    /// Which lanes of `x` are `threshold` or more: the first lane in the lowest bit.
    fn at_least(self, x: Self::F32, threshold: Self::F32) -> u32;
    /// Adds LANES counts to `sum`, which holds integers, in the lanes where `x` is `threshold` or more.
    fn add_where_at_least(
        self,
        sum: Self::F32,
        x: Self::F32,
        threshold: Self::F32,
        counts: &[u32],
    ) -> Self::F32;

    /// The sums of the lanes of four registers, each added up in the same order: cheaper together where shuffles can
    /// transpose.
    #[inline(always)]
    fn reduce_add_4(self, x: [Self::F32; 4]) -> [f32; 4] {
        let [a, b, c, d] = x;
        [self.reduce_add(a), self.reduce_add(b), self.reduce_add(c), self.reduce_add(d)]
    }

    /// e^x; −inf gives 0. Error below 4 units in the last place; results below 2^−125.5 are 0, those above 2^127.5 may be infinite.
    ///
    /// Nothing is ever below the normal range: each operation with such numbers takes Intel's processors some 150 cycles, and
    /// scores far below the largest are what attention is full of.
    #[inline(always)]
    fn exp(self, x: Self::F32) -> Self::F32 {
        // e^x = 2^n · e^r with n = round(x / ln 2) and |r| ≤ ln 2 / 2.
        let x = self.min(self.max(x, self.splat(EXP_LOWEST)), self.splat(EXP_HIGHEST));
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        let r = self.mul_add(n, self.splat(-LN_2_HIGH), x);
        let r = self.mul_add(n, self.splat(-LN_2_LOW), r);
        let [highest, others @ ..] = EXP_POLYNOMIAL;
        let mut p = self.splat(highest);
        for c in others {
            p = self.mul_add(p, r, self.splat(c));
        }
        self.scale_by_power_of_two(p, n)
    }

    /// Where in two registers [`Simd::load_bf16`] puts the number at `natural` place: the ones at even places in the first, those at
    /// odd places in the second, if not told otherwise.
    #[inline(always)]
    fn bf16_place(natural: usize) -> usize {
        natural / 2 + Self::LANES * (natural % 2)
    }

    /// Asks for the line at an address, which need not be one, to be brought into the first cache.
    #[inline(always)]
    fn prefetch_l1(self, _address: *const u8) {}

    /// Asks for the line at an address, which need not be one, to be brought into the second cache.
    #[inline(always)]
    fn prefetch_l2(self, _address: *const u8) {}
}

/// An instruction set that multiplies pairs of bf16 without widening them, and adds both products in f32.
pub trait MultiplyBf16Pairs: Simd {
    /// 2·LANES bf16 numbers from memory, a pair in every lane.
    fn load_pairs(self, from: &[bf16]) -> Self::F32;

    /// LANES numbers and as many others as pairs of one and the other, in order.
    fn pair_up(self, first: &[bf16], second: &[bf16]) -> Self::F32;

    /// The same pair in every lane.
    fn broadcast_pair(self, pair: &[bf16]) -> Self::F32;

    /// Adds the two products of each lane's pairs to a sum.
    fn multiply_pairs(self, sum: Self::F32, a: Self::F32, b: Self::F32) -> Self::F32;

    /// Rounds numbers to bf16, in order: pairs as memory has them.
    fn round_to_pairs(self, numbers: [Self::F32; 2]) -> Self::F32;

    /// Rounds numbers (even places, odd places) to bf16 pairs as memory has them, and gives what the rounding left over.
    fn split(self, even_odd: [Self::F32; 2]) -> (Self::F32, [Self::F32; 2]);

    /// 2·LANES bf16 numbers of two rows as pairs of one and the other.
    fn interleave(self, first: &[bf16], second: &[bf16]) -> [Self::F32; 2];

    /// Where in two registers [`MultiplyBf16Pairs::interleave`] puts the number at `natural` place.
    fn interleaved_place(natural: usize) -> usize;
}

/// A storage type.
pub trait Stored: bytemuck::Pod + Send + Sync + 'static {
    /// The elements, none if they are of another type.
    fn of(elements: Elements<'_>) -> &[Self];

    /// Rounds to nearest, ties to even; what is beyond the type's range becomes its largest number, NaN stays NaN.
    fn round(x: f32) -> Self;
}

/// A storage type as the registers of an instruction set hold it.
///
/// Algorithms work in blocks of 2·LANES elements, two registers. Registers may hold the elements of a block in another
/// order than memory does (`natural` below): some instruction sets widen bf16 by one shift and one mask, which leaves the even
/// elements in one register and the odd ones in the other and costs a third of an order-keeping conversion. Queries
/// are brought into the same order once, sums over values are brought back once.
pub trait Element<S: Simd>: Stored {
    /// The type in which rows are multiplied with many vectors.
    type Multiplied: Row<S>;

    /// Whether pairs of elements are multiplied without widening them. Then queries are split in two, of which the second part can be
    /// left out (see [`Precision`](crate::linear::Precision)), and values are weighed two rows at a time.
    const PAIRS: bool = false;

    /// Loads a block of a row in the form in which [`Element::dot`] takes it.
    fn load(s: S, block: &[Self]) -> [S::F32; 2];

    /// Brings a block of query values, in register order already, into the form in which [`Element::dot`] takes it.
    #[inline(always)]
    fn pack_query(_: S, block: [S::F32; 2]) -> [S::F32; 2] {
        block
    }

    /// Adds the lane-wise products of a row's block and a query's to a sum; what is not `FULL` leaves out the second part of
    /// split queries.
    #[inline(always)]
    fn dot<const FULL: bool>(s: S, sum: S::F32, row: [S::F32; 2], query: [S::F32; 2]) -> S::F32 {
        s.mul_add(row[1], query[1], s.mul_add(row[0], query[0], sum))
    }

    /// Index in the registers' order of the element at `natural` place of a block.
    #[inline(always)]
    fn register_place(natural: usize) -> usize {
        natural
    }

    /// Loads the same block of values of one of two rows, or of both where pairs are multiplied.
    #[inline(always)]
    fn load_values(s: S, rows: [&[Self]; 2], row: usize) -> [S::F32; 2] {
        Self::load(s, rows[row])
    }

    /// Loads a register of an element of a panel's rows, or of a pair of them. See `microkernel/panel.rs`.
    fn load_lanes(s: S, elements: &[Self], register: usize) -> S::F32;

    /// Adds products, or those of pairs, to a sum.
    #[inline(always)]
    fn multiply_add(s: S, sum: S::F32, a: S::F32, b: S::F32) -> S::F32 {
        s.mul_add(a, b, sum)
    }

    /// Replaces the 2·LANES scores of a query from row `at` on by weights, one for each row, or bf16 pairs for each pair
    /// of rows, and adds the weights to `total`. Goes through the rows in order.
    #[inline(always)]
    fn put_weights(s: S, total: S::F32, weights: [S::F32; 2], scores: &mut [f32], at: usize) -> S::F32 {
        s.store(weights[0], &mut scores[at..]);
        s.store(weights[1], &mut scores[at + S::LANES..]);
        s.add(total, s.add(weights[0], weights[1]))
    }

    /// Index in the order of sums over values of the value at `natural` place of a block.
    #[inline(always)]
    fn value_place(natural: usize) -> usize {
        Self::register_place(natural)
    }

    /// The elements as they are multiplied with many vectors, if they are stored like that.
    #[inline(always)]
    fn as_multiplied(_elements: &[Self]) -> Option<&[Self::Multiplied]> {
        None
    }

    /// Brings elements into the type in which they are multiplied with many vectors, in order.
    #[inline(always)]
    fn widen(_: S, elements: &[Self], to: &mut [Self::Multiplied]) {
        if let Some(elements) = Self::as_multiplied(elements) {
            to.copy_from_slice(elements);
        }
    }
}

/// Rows that lanes are multiplied with.
pub trait Row<S: Simd>: Element<S> {
    /// An element, or a pair of them, in every lane.
    fn broadcast(s: S, elements: &[Self]) -> S::F32;
}

/// Beyond these bounds e^x is 0 or infinite anyway.
const EXP_LOWEST: f32 = -126.0 * std::f32::consts::LN_2;
const EXP_HIGHEST: f32 = 88.8;

/// ln 2 in two parts, of which the first has nine significant bits: its products with integers of up to fifteen bits are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// Taylor's polynomial of e^r, from r⁶ / 6! down to 1.
const EXP_POLYNOMIAL: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// The widest register of any instruction set here, in f32 lanes: sizes buffers on the stack.
pub const MAX_LANES: usize = 16;
