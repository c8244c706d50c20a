//! Instructions whose result depends on nothing but their operands, as functions of the bits of these.

mod bits;
mod compare;
mod convert;
mod float;
mod integer;

pub(crate) use bits::bitwise;
pub(crate) use compare::{compare, select};
pub(crate) use convert::{conversion, toward_zero};
pub(crate) use float::floating;
pub(crate) use integer::integer;

/// What an instruction computes from up to four operands. Operands have garbage in the bits beyond their width, results have
/// zeros there.
pub(crate) type Function = fn(u64, u64, u64, u64) -> u64;

/// A value of a register.
pub(crate) trait Bits: Copy {
    /// From the low bits.
    fn of(bits: u64) -> Self;
    /// Zeros beyond the width.
    fn bits(self) -> u64;
}

macro_rules! bits {
    ($($type:ty, $unsigned:ty);*) => {$(
        impl Bits for $type {
            fn of(bits: u64) -> Self {
                bits as Self
            }

            fn bits(self) -> u64 {
                u64::from(self as $unsigned)
            }
        }
    )*};
}

bits!(u16, u16; u32, u32; u64, u64; i16, u16; i32, u32; i64, u64);

impl Bits for f32 {
    fn of(bits: u64) -> Self {
        Self::from_bits(bits as u32)
    }

    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Bits for f64 {
    fn of(bits: u64) -> Self {
        Self::from_bits(bits)
    }

    fn bits(self) -> u64 {
        self.to_bits()
    }
}
