//! Arithmetic of floats.

use super::{Bits, Function, directed::directed, round::Round};
use crate::ptx::Type;

/// What an opcode does with floats.
pub(crate) struct Float {
    pub(crate) function: Function,
    /// The fourth operand.
    pub(crate) fourth: u64,
    /// Whether operands and results too small to be normal are zero.
    pub(crate) flush: bool,
    /// Whether results are brought between zero and one.
    pub(crate) saturate: bool,
}

/// What an opcode with these modifiers does with floats.
pub(crate) fn floating(name: &str, modifiers: &[&str], type_: Type) -> Option<Float> {
    let double = match type_ {
        Type::Float(32) => false,
        Type::Float(64) => true,
        _ => return None,
    };
    let (mut flush, mut saturate, mut round, mut kind) = (false, false, None, "");
    for &modifier in modifiers {
        match modifier {
            "ftz" => flush = !double,
            "sat" if !double => saturate = true,
            "approx" | "full" | "NaN" if kind.is_empty() => kind = modifier,
            _ if matches!(name, "testp") && kind.is_empty() => kind = modifier,
            _ => round = Some(Round::parse(modifier)?),
        }
    }
    let round = round.unwrap_or(Round::Nearest);
    let function = match round {
        Round::Nearest if double => doubles(name, kind),
        Round::Nearest => singles(name, kind),
        _ if kind.is_empty() => directed(name, double),
        _ => None,
    }?;
    Some(Float { function, fourth: round.number(), flush, saturate })
}

/// Functions of 32-bit floats.
fn singles(name: &str, kind: &str) -> Option<Function> {
    Some(match (name, kind) {
        ("add", "") => |a, b, _, _| tidy(f32::of(a) + f32::of(b)),
        ("sub", "") => |a, b, _, _| tidy(f32::of(a) - f32::of(b)),
        ("mul", "") => |a, b, _, _| tidy(f32::of(a) * f32::of(b)),
        ("fma" | "mad", "") => |a, b, c, _| tidy(f32::of(a).mul_add(f32::of(b), f32::of(c))),
        ("div", _) => |a, b, _, _| tidy(f32::of(a) / f32::of(b)),
        ("rcp", _) => |a, _, _, _| tidy(1.0 / f32::of(a)),
        ("sqrt", _) => |a, _, _, _| tidy(f32::of(a).sqrt()),
        ("rsqrt", "approx") => |a, _, _, _| tidy((1.0 / f64::from(f32::of(a)).sqrt()) as f32),
        ("ex2", "approx") => |a, _, _, _| tidy(f64::from(f32::of(a)).exp2() as f32),
        ("lg2", "approx") => |a, _, _, _| tidy(f64::from(f32::of(a)).log2() as f32),
        ("sin", "approx") => |a, _, _, _| tidy(f32::of(a).sin()),
        ("cos", "approx") => |a, _, _, _| tidy(f32::of(a).cos()),
        ("tanh", "approx") => |a, _, _, _| tidy(f32::of(a).tanh()),
        ("min", "") => |a, b, _, _| tidy(least(f32::of(a), f32::of(b))),
        ("max", "") => |a, b, _, _| tidy(-least(-f32::of(a), -f32::of(b))),
        ("min", "NaN") => {
            |a, b, _, _| tidy(both(f32::of(a), f32::of(b)).map_or(f32::NAN, |(a, b)| least(a, b)))
        }
        ("max", "NaN") => {
            |a, b, _, _| tidy(both(f32::of(a), f32::of(b)).map_or(f32::NAN, |(a, b)| -least(-a, -b)))
        }
        ("abs", "") => |a, _, _, _| a & 0x7FFF_FFFF,
        ("neg", "") => |a, _, _, _| (a ^ 0x8000_0000) & 0xFFFF_FFFF,
        ("copysign", "") => |a, b, _, _| a & 0x8000_0000 | b & 0x7FFF_FFFF,
        ("testp", "finite") => |a, _, _, _| u64::from(f32::of(a).is_finite()),
        ("testp", "infinite") => |a, _, _, _| u64::from(f32::of(a).is_infinite()),
        ("testp", "number") => |a, _, _, _| u64::from(!f32::of(a).is_nan()),
        ("testp", "notanumber") => |a, _, _, _| u64::from(f32::of(a).is_nan()),
        ("testp", "normal") => |a, _, _, _| u64::from(f32::of(a).is_normal()),
        ("testp", "subnormal") => |a, _, _, _| u64::from(f32::of(a).is_subnormal()),
        _ => return None,
    })
}

/// Functions of 64-bit floats.
fn doubles(name: &str, kind: &str) -> Option<Function> {
    Some(match (name, kind) {
        ("add", "") => |a, b, _, _| (f64::of(a) + f64::of(b)).bits(),
        ("sub", "") => |a, b, _, _| (f64::of(a) - f64::of(b)).bits(),
        ("mul", "") => |a, b, _, _| (f64::of(a) * f64::of(b)).bits(),
        ("fma" | "mad", "") => |a, b, c, _| f64::of(a).mul_add(f64::of(b), f64::of(c)).bits(),
        ("div", "") => |a, b, _, _| (f64::of(a) / f64::of(b)).bits(),
        ("rcp", "") => |a, _, _, _| (1.0 / f64::of(a)).bits(),
        ("sqrt", "") => |a, _, _, _| f64::of(a).sqrt().bits(),
        // The approximations have only the upper half of the digits.
        ("rcp", "approx") => |a, _, _, _| (1.0 / f64::of(a)).bits() & !0xFFFF_FFFF,
        ("rsqrt", "approx") => |a, _, _, _| (1.0 / f64::of(a).sqrt()).bits() & !0xFFFF_FFFF,
        ("min", "") => |a, b, _, _| least_double(f64::of(a), f64::of(b)).bits(),
        ("max", "") => |a, b, _, _| (-least_double(-f64::of(a), -f64::of(b))).bits(),
        ("abs", "") => |a, _, _, _| a & !(1 << 63),
        ("neg", "") => |a, _, _, _| a ^ 1 << 63,
        ("copysign", "") => |a, b, _, _| a & 1 << 63 | b & !(1 << 63),
        ("testp", "finite") => |a, _, _, _| u64::from(f64::of(a).is_finite()),
        ("testp", "infinite") => |a, _, _, _| u64::from(f64::of(a).is_infinite()),
        ("testp", "number") => |a, _, _, _| u64::from(!f64::of(a).is_nan()),
        ("testp", "notanumber") => |a, _, _, _| u64::from(f64::of(a).is_nan()),
        ("testp", "normal") => |a, _, _, _| u64::from(f64::of(a).is_normal()),
        ("testp", "subnormal") => |a, _, _, _| u64::from(f64::of(a).is_subnormal()),
        _ => return None,
    })
}

/// The bits of a result: there is one NaN.
fn tidy(x: f32) -> u64 {
    if x.is_nan() { 0x7FFF_FFFF } else { x.bits() }
}

/// The lesser of two values, of which a NaN is not one; negative zero is less than zero.
fn least(a: f32, b: f32) -> f32 {
    match a == b {
        true if a.is_sign_negative() => a,
        true => b,
        false => a.min(b),
    }
}

/// Two values, if none is a NaN.
fn both(a: f32, b: f32) -> Option<(f32, f32)> {
    (!a.is_nan() && !b.is_nan()).then_some((a, b))
}

/// The same as [`least`] of 64-bit floats.
fn least_double(a: f64, b: f64) -> f64 {
    match a == b {
        true if a.is_sign_negative() => a,
        true => b,
        false => a.min(b),
    }
}

/// Zero for what is too small to be a normal 32-bit float.
pub(crate) fn flush(a: u64, _: u64, _: u64, _: u64) -> u64 {
    if f32::of(a).is_subnormal() { a & 0x8000_0000 } else { a & 0xFFFF_FFFF }
}

/// Between zero and one; zero for NaN.
pub(crate) fn saturate(a: u64, _: u64, _: u64, _: u64) -> u64 {
    let x = f32::of(a);
    if x > 0.0 { x.min(1.0).bits() } else { 0 }
}

/// What atomic additions in global memory do: what is too small to be normal is zero there.
pub(crate) fn add_flushed(a: u64, b: u64, _: u64, _: u64) -> u64 {
    flush(tidy(f32::of(flush(a, 0, 0, 0)) + f32::of(flush(b, 0, 0, 0))), 0, 0, 0)
}
