//! Arithmetic of floats.

use super::{Bits, Function};
use crate::ptx::Type;

/// The function of an opcode with these modifiers on floats.
pub(crate) fn floating(name: &str, modifiers: &[&str], type_: Type) -> Option<Function> {
    Some(match (name, modifiers, type_) {
        ("add", [], Type::Float(32)) => |a, b, _, _| tidy(f32::of(a) + f32::of(b)),
        ("sub", [], Type::Float(32)) => |a, b, _, _| tidy(f32::of(a) - f32::of(b)),
        ("mul", [], Type::Float(32)) => |a, b, _, _| tidy(f32::of(a) * f32::of(b)),
        ("fma", ["rn"], Type::Float(32)) => |a, b, c, _| tidy(f32::of(a).mul_add(f32::of(b), f32::of(c))),
        ("add", [], Type::Float(64)) => |a, b, _, _| (f64::of(a) + f64::of(b)).bits(),
        ("sub", [], Type::Float(64)) => |a, b, _, _| (f64::of(a) - f64::of(b)).bits(),
        ("mul", [], Type::Float(64)) => |a, b, _, _| (f64::of(a) * f64::of(b)).bits(),
        ("fma", ["rn"], Type::Float(64)) => |a, b, c, _| f64::of(a).mul_add(f64::of(b), f64::of(c)).bits(),
        ("div", ["rn"], Type::Float(64)) => |a, b, _, _| (f64::of(a) / f64::of(b)).bits(),
        ("sqrt", ["rn"], Type::Float(64)) => |a, _, _, _| f64::of(a).sqrt().bits(),
        _ => return None,
    })
}

/// The bits of a result: there is one NaN.
pub(super) fn tidy(x: f32) -> u64 {
    if x.is_nan() { 0x7FFF_FFFF } else { x.bits() }
}
