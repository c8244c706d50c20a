//! Element types of weights, codewords and KV rows.

use crate::{
    error::{Error, Result},
    simd::{MAX_LANES, Simd},
};
use half::{bf16, f16};
use std::{fmt, ops::Range, str::FromStr};

/// Storage type of a table, a weight matrix or KV rows. All arithmetic accumulates in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name that command lines and reports use: `f32`, `f16` or `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::F32, Self::F16, Self::Bf16].into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| {
            Error::Unsupported { what: "dtype", got: name.to_owned(), supported: "f32, f16, bf16" }
        })
    }
}

/// Borrowed elements of one of the storage types.
#[derive(Debug, Clone, Copy)]
pub enum Elements<'a> {
    /// IEEE single precision.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// The upper half of an f32.
    Bf16(&'a [bf16]),
}

impl<'a> Elements<'a> {
    /// Sees bytes (an mmapped tensor, say) as elements. `None` if they are not aligned for `dtype` or not whole.
    pub fn from_bytes(dtype: Dtype, bytes: &'a [u8]) -> Option<Self> {
        match dtype {
            Dtype::F32 => bytemuck::try_cast_slice(bytes).ok().map(Self::F32),
            Dtype::F16 => bytemuck::try_cast_slice(bytes).ok().map(Self::F16),
            Dtype::Bf16 => bytemuck::try_cast_slice(bytes).ok().map(Self::Bf16),
        }
    }

    /// The storage type.
    pub const fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F16(_) => Dtype::F16,
            Self::Bf16(_) => Dtype::Bf16,
        }
    }

    /// How many elements there are.
    pub const fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::F16(x) => x.len(),
            Self::Bf16(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of the elements, or `None` if it is not inside them.
    pub fn range(&self, range: Range<usize>) -> Option<Self> {
        Some(match self {
            Self::F32(x) => Self::F32(x.get(range)?),
            Self::F16(x) => Self::F16(x.get(range)?),
            Self::Bf16(x) => Self::Bf16(x.get(range)?),
        })
    }

    /// Widens all elements to f32, for the small tensors that are used that way.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32(x) => x.to_vec(),
            Self::F16(x) => x.iter().map(|x| x.to_f32()).collect(),
            Self::Bf16(x) => x.iter().map(|x| x.to_f32()).collect(),
        }
    }
}

/// What the generic algorithms need of a storage type.
///
/// They work in blocks of 2·LANES elements, two registers. Registers may hold the elements of a block in another
/// order than memory does (`natural` below): bf16 is widened by one shift and one mask, which leaves the even
/// elements in one register and the odd ones in the other and costs a third of an order-keeping conversion. Query
/// operands are brought into the same order once, sums over values are brought back once.
pub(crate) trait Element: bytemuck::Pod + Send + Sync + 'static {
    /// Loads a block as f32, in register order.
    fn load<S: Simd>(s: S, block: &[Self]) -> [S::F32; 2];

    /// Loads a block in whatever form [`Element::dot`] wants it.
    #[inline(always)]
    fn load_operand<S: Simd>(s: S, block: &[Self]) -> [S::F32; 2] {
        Self::load(s, block)
    }

    /// Adds the lane-wise products of a block and a query operand to a sum; for what is not `FULL` see
    /// [`Precision`](crate::linear::Precision).
    #[inline(always)]
    fn dot<S: Simd, const FULL: bool>(s: S, sum: S::F32, row: [S::F32; 2], query: [S::F32; 2]) -> S::F32 {
        s.mul_add(row[1], query[1], s.mul_add(row[0], query[0], sum))
    }

    /// Brings a block of query values, register order already, into the form that [`Element::dot`] wants.
    #[inline(always)]
    fn query_operand<S: Simd>(_: S, block: [S::F32; 2]) -> [S::F32; 2] {
        block
    }

    /// Index in the registers' order of the element at `natural` place of a block of 2·LANES elements.
    #[inline(always)]
    fn register_place<S: Simd>(natural: usize) -> usize {
        natural
    }

    /// Whether the instruction set multiplies pairs of these elements without widening them. Then queries that are only
    /// rounded once take half the work, and values are weighed two rows at a time.
    #[inline(always)]
    fn multiplies_pairs<S: Simd>() -> bool {
        false
    }

    /// Loads the same block of two rows, interleaved, where pairs are multiplied.
    #[inline(always)]
    fn interleave<S: Simd>(s: S, _first: &[Self], _second: &[Self]) -> [S::F32; 2] {
        [s.splat(0.0); 2]
    }

    /// Replaces the 2·LANES scores of a query from row `at` on by weights, one for each row or bf16 pairs for each pair
    /// of rows, and adds the weights to `total`. Goes through the rows in order.
    #[inline(always)]
    fn put_weights<S: Simd>(
        s: S,
        total: S::F32,
        weights: [S::F32; 2],
        scores: &mut [f32],
        at: usize,
    ) -> S::F32 {
        s.store(weights[0], &mut scores[at..]);
        s.store(weights[1], &mut scores[at + S::LANES..]);
        s.add(total, s.add(weights[0], weights[1]))
    }

    /// Index in the order of sums over values of the value at `natural` place of a block.
    #[inline(always)]
    fn value_place<S: Simd>(natural: usize) -> usize {
        Self::register_place::<S>(natural)
    }

    /// Rounds to nearest, ties to even; what is beyond the type's range becomes its largest number, NaN stays NaN.
    fn round(x: f32) -> Self;

    /// Widens elements to f32, in order.
    fn widen<S: Simd>(s: S, elements: &[Self], to: &mut [f32]);
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, block: &[Self]) -> [S::F32; 2] {
        let (low, high) = block.split_at(S::LANES);
        [s.load(low), s.load(high)]
    }

    #[inline(always)]
    fn round(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn widen<S: Simd>(_: S, elements: &[Self], to: &mut [f32]) {
        to.copy_from_slice(elements);
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, block: &[Self]) -> [S::F32; 2] {
        let (low, high) = block.split_at(S::LANES);
        [s.load_f16(low), s.load_f16(high)]
    }

    #[inline(always)]
    fn round(x: f32) -> Self {
        f16::from_f32(x.clamp(Self::MIN.to_f32(), Self::MAX.to_f32()))
    }

    #[inline(always)]
    fn widen<S: Simd>(s: S, elements: &[Self], to: &mut [f32]) {
        for (elements, to) in elements.chunks(S::LANES).zip(to.chunks_mut(S::LANES)) {
            let mut block = [Self::ZERO; MAX_LANES];
            block[..elements.len()].copy_from_slice(elements);
            let mut wide = [0.0; MAX_LANES];
            s.store(s.load_f16(&block), &mut wide);
            to.copy_from_slice(&wide[..elements.len()]);
        }
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, block: &[Self]) -> [S::F32; 2] {
        s.load_bf16(block)
    }

    #[inline(always)]
    fn load_operand<S: Simd>(s: S, block: &[Self]) -> [S::F32; 2] {
        s.load_bf16_operand(block)
    }

    #[inline(always)]
    fn dot<S: Simd, const FULL: bool>(s: S, sum: S::F32, row: [S::F32; 2], query: [S::F32; 2]) -> S::F32 {
        s.dot_bf16::<FULL>(sum, row, query)
    }

    #[inline(always)]
    fn query_operand<S: Simd>(s: S, block: [S::F32; 2]) -> [S::F32; 2] {
        s.bf16_query_operand(block)
    }

    #[inline(always)]
    fn register_place<S: Simd>(natural: usize) -> usize {
        S::bf16_place(natural)
    }

    #[inline(always)]
    fn multiplies_pairs<S: Simd>() -> bool {
        S::MULTIPLIES_BF16
    }

    #[inline(always)]
    fn interleave<S: Simd>(s: S, first: &[Self], second: &[Self]) -> [S::F32; 2] {
        s.interleave_bf16(first, second)
    }

    #[inline(always)]
    fn put_weights<S: Simd>(
        s: S,
        total: S::F32,
        weights: [S::F32; 2],
        scores: &mut [f32],
        at: usize,
    ) -> S::F32 {
        if S::MULTIPLIES_BF16 {
            s.put_bf16_weights(total, weights, scores, at)
        } else {
            f32::put_weights(s, total, weights, scores, at)
        }
    }

    #[inline(always)]
    fn value_place<S: Simd>(natural: usize) -> usize {
        S::bf16_value_place(natural)
    }

    #[inline(always)]
    fn round(x: f32) -> Self {
        bf16::from_f32(x.clamp(Self::MIN.to_f32(), Self::MAX.to_f32()))
    }

    #[inline(always)]
    fn widen<S: Simd>(_: S, elements: &[Self], to: &mut [f32]) {
        // Compilers make vectors of it.
        for (element, to) in elements.iter().zip(to) {
            *to = f32::from_bits(u32::from(element.to_bits()) << 16);
        }
    }
}
