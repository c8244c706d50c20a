//! Sums of values by code, as they lie in memory.

use crate::{
    error::{Result, expect_len},
    simd::MAX_LANES,
};

/// Columns of a strip: one register of the widest instruction set, and few enough for the sums of four queries to fit sixteen
/// registers of eight lanes.
pub const STRIP: usize = 16;

const _: () = assert!(STRIP == MAX_LANES);

/// Where a strip's part of a slot begins, in a table of so many slots.
#[inline(always)]
pub(crate) const fn place(strip: usize, slots: usize, slot: usize) -> usize {
    (strip * slots + slot) * STRIP
}

/// Sums of the values of codes that have tokens, a slot each, in strips of [`STRIP`] columns: `[width / STRIP, slots, STRIP]`, where
/// width is [`row_width`](crate::rows::row_width)`(head_dim)`.
#[derive(Debug, Clone, Copy)]
pub enum Sums<'a> {
    /// The sums, where rows are f32.
    F32(&'a [f32]),
    /// Integers that are sums once they are multiplied by their slot's scale, where rows are bf16 or f16.
    Int8 {
        /// `[width / STRIP, slots, STRIP]`
        numbers: &'a [i8],
        /// `[slots]`
        scales: &'a [f32],
    },
}

impl Sums<'_> {
    /// Checks the shape.
    pub(crate) fn check(&self, slots: usize, width: usize) -> Result<()> {
        let len = match self {
            Self::F32(numbers) => numbers.len(),
            Self::Int8 { numbers, scales } => {
                expect_len("scales of value sums", scales.len(), slots)?;
                numbers.len()
            }
        };
        expect_len("value sums", len, slots.saturating_mul(width))
    }

    /// Bytes of one slot.
    pub const fn slot_bytes(&self, width: usize) -> usize {
        match self {
            Self::F32(_) => width.saturating_mul(size_of::<f32>()),
            Self::Int8 { .. } => width.saturating_add(size_of::<f32>()),
        }
    }
}

/// Puts a code's sum, `[width]`, into the slot of a table of `slots` slots.
pub(crate) fn put_f32(sum: &[f64], slot: usize, slots: usize, table: &mut [f32]) {
    for (strip, sum) in sum.chunks(STRIP).enumerate() {
        for (to, &x) in table[place(strip, slots, slot)..][..STRIP].iter_mut().zip(sum) {
            *to = x as f32;
        }
    }
}

/// The same in integers; gives their scale, by which the largest of them is 127.
pub(crate) fn put_int8(sum: &[f64], slot: usize, slots: usize, table: &mut [i8]) -> f32 {
    // NaN is passed over, and becomes 0; what is infinite becomes the largest number there is.
    let largest = sum.iter().fold(0.0, |most: f64, x| most.max(x.abs())).min(f64::from(f32::MAX));
    let scale = (largest / 127.0) as f32;
    let factor = if scale > 0.0 { 1.0 / f64::from(scale) } else { 0.0 };
    for (strip, sum) in sum.chunks(STRIP).enumerate() {
        for (to, &x) in table[place(strip, slots, slot)..][..STRIP].iter_mut().zip(sum) {
            *to = (x * factor).round().clamp(-127.0, 127.0) as i8;
        }
    }
    scale
}
