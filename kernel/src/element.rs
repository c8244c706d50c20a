//! What the generic algorithms need of a storage type on an instruction set.

use crate::{
    dtype::Elements,
    microkernel::{broadcast::Row, panel::PANEL},
    simd::{MAX_LANES, MultiplyBf16Pairs, Simd},
};
use half::{bf16, f16};

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

impl Stored for f32 {
    #[inline(always)]
    fn of(elements: Elements<'_>) -> &[Self] {
        if let Elements::F32(elements) = elements { elements } else { &[] }
    }

    #[inline(always)]
    fn round(x: f32) -> Self {
        x
    }
}

impl<S: Simd> Element<S> for f32 {
    type Multiplied = Self;

    #[inline(always)]
    fn load(s: S, block: &[Self]) -> [S::F32; 2] {
        let (low, high) = block.split_at(S::LANES);
        [s.load(low), s.load(high)]
    }

    #[inline(always)]
    fn load_lanes(s: S, elements: &[Self], register: usize) -> S::F32 {
        s.load(&elements[register * S::LANES..])
    }

    #[inline(always)]
    fn as_multiplied(elements: &[Self]) -> Option<&[Self]> {
        Some(elements)
    }
}

impl Stored for f16 {
    #[inline(always)]
    fn of(elements: Elements<'_>) -> &[Self] {
        if let Elements::F16(elements) = elements { elements } else { &[] }
    }

    #[inline(always)]
    fn round(x: f32) -> Self {
        Self::from_f32(x.clamp(Self::MIN.to_f32(), Self::MAX.to_f32()))
    }
}

impl<S: Simd> Element<S> for f16 {
    type Multiplied = f32;

    #[inline(always)]
    fn load(s: S, block: &[Self]) -> [S::F32; 2] {
        let (low, high) = block.split_at(S::LANES);
        [s.load_f16(low), s.load_f16(high)]
    }

    #[inline(always)]
    fn load_lanes(s: S, elements: &[Self], register: usize) -> S::F32 {
        s.load_f16(&elements[register * S::LANES..])
    }

    #[inline(always)]
    fn widen(s: S, elements: &[Self], to: &mut [f32]) {
        for (elements, to) in elements.chunks(S::LANES).zip(to.chunks_mut(S::LANES)) {
            let mut block = [Self::ZERO; MAX_LANES];
            block[..elements.len()].copy_from_slice(elements);
            let mut wide = [0.0; MAX_LANES];
            s.store(s.load_f16(&block), &mut wide);
            to.copy_from_slice(&wide[..elements.len()]);
        }
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn of(elements: Elements<'_>) -> &[Self] {
        if let Elements::Bf16(elements) = elements { elements } else { &[] }
    }

    #[inline(always)]
    fn round(x: f32) -> Self {
        Self::from_f32(x.clamp(Self::MIN.to_f32(), Self::MAX.to_f32()))
    }
}

impl<S: Simd> Element<S> for bf16 {
    type Multiplied = f32;

    #[inline(always)]
    fn load(s: S, block: &[Self]) -> [S::F32; 2] {
        s.load_bf16(block)
    }

    #[inline(always)]
    fn register_place(natural: usize) -> usize {
        S::bf16_place(natural)
    }

    #[inline(always)]
    fn load_lanes(s: S, elements: &[Self], register: usize) -> S::F32 {
        s.load_bf16_in_order(&elements[register * S::LANES..])
    }

    #[inline(always)]
    fn widen(_: S, elements: &[Self], to: &mut [f32]) {
        // Compilers make vectors of it.
        for (element, to) in elements.iter().zip(to) {
            *to = f32::from_bits(u32::from(element.to_bits()) << 16);
        }
    }
}

/// A bf16 number whose products are made in pairs, by the instruction sets that can.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct PairedBf16(bf16);

impl Stored for PairedBf16 {
    #[inline(always)]
    fn of(elements: Elements<'_>) -> &[Self] {
        bytemuck::cast_slice(bf16::of(elements))
    }

    #[inline(always)]
    fn round(x: f32) -> Self {
        Self(bf16::round(x))
    }
}

// A block of a row stays pairs in one register; the second register of the block is not used. A query is the sum of two bf16
// numbers, so its dot products keep 16 significant bits of it for one more instruction; rounding it to one bf16 instead
// costs 2^-9 of every score.
//
// Values are weighed two rows at a time: their elements interleaved, weights as pairs of bf16. The weights' sum is
// that of the rounded ones, so that what rounding does to an output is 2^-9 of how far its values lie apart, as
// much as rounding the values to bf16 did before.
impl<S: MultiplyBf16Pairs> Element<S> for PairedBf16 {
    type Multiplied = Self;
    const PAIRS: bool = true;

    #[inline(always)]
    fn load(s: S, block: &[Self]) -> [S::F32; 2] {
        [s.load_pairs(bytemuck::cast_slice(block)), s.splat(0.0)]
    }

    #[inline(always)]
    fn pack_query(s: S, block: [S::F32; 2]) -> [S::F32; 2] {
        let (rounded, rest) = s.split(block);
        let (second, _) = s.split(rest);
        [rounded, second]
    }

    #[inline(always)]
    fn dot<const FULL: bool>(s: S, sum: S::F32, row: [S::F32; 2], query: [S::F32; 2]) -> S::F32 {
        let sum = s.multiply_pairs(sum, row[0], query[0]);
        if FULL { s.multiply_pairs(sum, row[0], query[1]) } else { sum }
    }

    #[inline(always)]
    fn register_place(natural: usize) -> usize {
        natural / 2 + S::LANES * (natural % 2)
    }

    #[inline(always)]
    fn load_values(s: S, [first, second]: [&[Self]; 2], _: usize) -> [S::F32; 2] {
        s.interleave(bytemuck::cast_slice(first), bytemuck::cast_slice(second))
    }

    #[inline(always)]
    fn load_lanes(s: S, elements: &[Self], register: usize) -> S::F32 {
        let (first, second) = elements.split_at(PANEL);
        let lanes = register * S::LANES..(register + 1) * S::LANES;
        s.pair_up(bytemuck::cast_slice(&first[lanes.clone()]), bytemuck::cast_slice(&second[lanes]))
    }

    #[inline(always)]
    fn multiply_add(s: S, sum: S::F32, a: S::F32, b: S::F32) -> S::F32 {
        s.multiply_pairs(sum, a, b)
    }

    #[inline(always)]
    fn put_weights(s: S, total: S::F32, weights: [S::F32; 2], scores: &mut [f32], at: usize) -> S::F32 {
        let pairs = s.round_to_pairs(weights);
        s.store(pairs, &mut scores[at / 2..]);
        s.multiply_pairs(total, pairs, s.splat(f32::from_bits(PAIR_OF_ONES)))
    }

    #[inline(always)]
    fn value_place(natural: usize) -> usize {
        S::interleaved_place(natural)
    }

    #[inline(always)]
    fn as_multiplied(elements: &[Self]) -> Option<&[Self]> {
        Some(elements)
    }
}

/// Two bf16 ones, side by side.
const PAIR_OF_ONES: u32 = 0x3f80_3f80;
