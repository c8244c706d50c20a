//! Arithmetic of whole numbers.

use super::{Bits, Function};
use crate::ptx::Type;

/// Picks the instance of a function for a type of 16 to 64 bits.
macro_rules! instance {
    ($type:expr, $function:ident) => {
        match $type {
            Type::Unsigned(16) => Some($function::<u16> as Function),
            Type::Unsigned(32) => Some($function::<u32> as Function),
            Type::Unsigned(64) => Some($function::<u64> as Function),
            Type::Signed(16) => Some($function::<i16> as Function),
            Type::Signed(32) => Some($function::<i32> as Function),
            Type::Signed(64) => Some($function::<i64> as Function),
            _ => None,
        }
    };
}
pub(super) use instance;

/// The function of an opcode with these modifiers on whole numbers. Low bits of sums and products do not depend on the sign.
pub(crate) fn integer(name: &str, modifiers: &[&str], type_: Type) -> Option<Function> {
    let width = match type_ {
        Type::Unsigned(width) | Type::Signed(width) => width,
        _ => return None,
    };
    Some(match (name, modifiers, width) {
        ("add", [], 32) => |a, b, _, _| a.wrapping_add(b) as u32 as u64,
        ("add", [], 64) => |a, b, _, _| a.wrapping_add(b),
        ("sub", [], 32) => |a, b, _, _| a.wrapping_sub(b) as u32 as u64,
        ("sub", [], 64) => |a, b, _, _| a.wrapping_sub(b),
        ("mul", ["lo"], 32) => |a, b, _, _| a.wrapping_mul(b) as u32 as u64,
        ("mul", ["lo"], 64) => |a, b, _, _| a.wrapping_mul(b),
        ("mad", ["lo"], 32) => |a, b, c, _| a.wrapping_mul(b).wrapping_add(c) as u32 as u64,
        ("mul", ["wide"], 32) if type_ == Type::Unsigned(32) => {
            |a, b, _, _| a as u32 as u64 * (b as u32 as u64)
        }
        ("mul", ["wide"], 32) => |a, b, _, _| (a as i32 as i64 * (b as i32 as i64)) as u64,
        ("rem", [], 64) if type_ == Type::Unsigned(64) => |a, b, _, _| a.checked_rem(b).unwrap_or(a),
        ("min", [], _) => return instance!(type_, min),
        ("max", [], _) => return instance!(type_, max),
        _ => return None,
    })
}

fn min<T: Bits + Ord>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    T::of(a).min(T::of(b)).bits()
}

fn max<T: Bits + Ord>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    T::of(a).max(T::of(b)).bits()
}
