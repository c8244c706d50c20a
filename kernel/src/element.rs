//! The storage types as the algorithms see them: f32, f16, bf16, and bf16 whose products are made in pairs.

use crate::{
    dtype::Elements,
    microkernel::panel::PANEL,
    simd::{Element, MAX_LANES, MultiplyBf16Pairs, Row, Simd, Stored},
};
use half::{bf16, f16};

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

impl<S: Simd> Row<S> for f32 {
    #[inline(always)]
    fn broadcast(s: S, elements: &[Self]) -> S::F32 {
        s.splat(elements[0])
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

impl<S: MultiplyBf16Pairs> Row<S> for PairedBf16 {
    #[inline(always)]
    fn broadcast(s: S, elements: &[Self]) -> S::F32 {
        s.broadcast_pair(bytemuck::cast_slice(elements))
    }
}

/// Two bf16 ones, side by side.
const PAIR_OF_ONES: u32 = 0x3f80_3f80;
