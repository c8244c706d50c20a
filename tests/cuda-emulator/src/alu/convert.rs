//! Conversions between types.

use super::{Bits, Function, float::tidy};

/// The function of a `cvt` with these modifiers.
pub(crate) fn conversion(modifiers: &[&str]) -> Option<Function> {
    Some(match modifiers {
        ["u64", "u32"] | ["u32", "u64"] => |a, _, _, _| a & 0xFFFF_FFFF,
        ["f64", "f32"] => |a, _, _, _| f64::from(f32::of(a)).bits(),
        ["rn", "f32", "f64"] => |a, _, _, _| tidy(f64::of(a) as f32),
        ["rn", "f64", "u64"] => |a, _, _, _| (a as f64).bits(),
        ["rna", "tf32", "f32"] => tensor_float,
        _ => return None,
    })
}

/// The tensor cores' float of 19 bits: to nearest, ties away from zero.
fn tensor_float(a: u64, _: u64, _: u64, _: u64) -> u64 {
    match f32::of(a).is_nan() {
        true => 0x7FFF_E000,
        false => (a + 0x1000) & 0xFFFF_E000,
    }
}

/// Rounds to a 32-bit float toward zero.
pub(crate) fn toward_zero(x: f64) -> f32 {
    let nearest = x as f32;
    match f64::from(nearest).abs() > x.abs() {
        true => f32::from_bits(nearest.to_bits() - 1),
        false => nearest,
    }
}
