//! Arithmetic of whole numbers.

use super::{Bits, Function};
use crate::ptx::Type;

/// Picks the instance of a function for a type of 16 to 64 bits.
macro_rules! instance {
    ($type:expr, $function:ident) => {
        match $type {
            Type::Unsigned(16) | Type::Bits(16) => Some($function::<u16> as Function),
            Type::Unsigned(32) | Type::Bits(32) => Some($function::<u32> as Function),
            Type::Unsigned(64) | Type::Bits(64) => Some($function::<u64> as Function),
            Type::Signed(16) => Some($function::<i16> as Function),
            Type::Signed(32) => Some($function::<i32> as Function),
            Type::Signed(64) => Some($function::<i64> as Function),
            _ => None,
        }
    };
}
pub(super) use instance;

/// Whole numbers as instructions see them.
pub(super) trait Integer: Bits + Ord {
    fn wide(self) -> i128;
    fn narrow(wide: i128) -> Self;
    /// Of a value that is too large or too small, the nearest.
    fn clamped(wide: i128) -> Self;
    fn sum(self, other: Self) -> Self;
    fn difference(self, other: Self) -> Self;
    fn product(self, other: Self) -> Self;
    /// All ones where the divisor is zero.
    fn quotient(self, other: Self) -> Self;
    fn remainder(self, other: Self) -> Self;
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl Integer for $type {
            fn wide(self) -> i128 {
                i128::from(self)
            }

            fn narrow(wide: i128) -> Self {
                wide as Self
            }

            fn clamped(wide: i128) -> Self {
                wide.clamp(i128::from(Self::MIN), i128::from(Self::MAX)) as Self
            }

            fn sum(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            fn difference(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }

            fn product(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }

            fn quotient(self, other: Self) -> Self {
                if other == 0 { !0 } else { self.wrapping_div(other) }
            }

            fn remainder(self, other: Self) -> Self {
                if other == 0 { self } else { self.wrapping_rem(other) }
            }
        }
    )*};
}

whole_numbers!(u8, u16, u32, u64, i8, i16, i32, i64);

/// The function of an opcode with these modifiers on whole numbers.
pub(crate) fn integer(name: &str, modifiers: &[&str], type_: Type) -> Option<Function> {
    match (name, modifiers) {
        ("add", []) => instance!(type_, add),
        ("sub", []) => instance!(type_, sub),
        ("add", ["sat"]) if type_ == Type::Signed(32) => Some(add_clamped::<i32>),
        ("sub", ["sat"]) if type_ == Type::Signed(32) => Some(sub_clamped::<i32>),
        ("mul", ["lo"]) => instance!(type_, mul),
        ("mul", ["hi"]) => instance!(type_, mul_high),
        ("mad", ["lo"]) => instance!(type_, mad),
        ("mad", ["hi"]) => instance!(type_, mad_high),
        ("mul", ["wide"]) => wide(type_, false),
        ("mad", ["wide"]) => wide(type_, true),
        ("div", []) => instance!(type_, div),
        ("rem", []) => instance!(type_, rem),
        ("min", []) => instance!(type_, min),
        ("max", []) => instance!(type_, max),
        ("abs", []) => instance!(type_, abs),
        ("neg", []) => instance!(type_, neg),
        ("sad", []) => instance!(type_, sad),
        ("mul24", ["lo"]) => instance!(type_, mul_24).filter(|_| type_.width() == 32),
        ("inc", []) if type_ == Type::Unsigned(32) => Some(inc),
        ("dec", []) if type_ == Type::Unsigned(32) => Some(dec),
        _ => None,
    }
}

/// Products of twice the width.
fn wide(type_: Type, added: bool) -> Option<Function> {
    Some(match (type_, added) {
        (Type::Unsigned(16), false) => mul_wide::<u16, u32>,
        (Type::Signed(16), false) => mul_wide::<i16, i32>,
        (Type::Unsigned(32), false) => |a, b, _, _| (a & 0xFFFF_FFFF) * (b & 0xFFFF_FFFF),
        (Type::Signed(32), false) => |a, b, _, _| (i64::from(a as i32) * i64::from(b as i32)) as u64,
        (Type::Unsigned(16), true) => mad_wide::<u16, u32>,
        (Type::Signed(16), true) => mad_wide::<i16, i32>,
        (Type::Unsigned(32), true) => mad_wide::<u32, u64>,
        (Type::Signed(32), true) => mad_wide::<i32, i64>,
        _ => return None,
    })
}

fn add<T: Integer>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    T::of(a).sum(T::of(b)).bits()
}

fn sub<T: Integer>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    T::of(a).difference(T::of(b)).bits()
}

fn add_clamped<T: Integer>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    T::clamped(T::of(a).wide() + T::of(b).wide()).bits()
}

fn sub_clamped<T: Integer>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    T::clamped(T::of(a).wide() - T::of(b).wide()).bits()
}

fn mul<T: Integer>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    T::of(a).product(T::of(b)).bits()
}

fn mul_high<T: Integer>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    T::narrow(T::of(a).wide().wrapping_mul(T::of(b).wide()) >> (8 * size_of::<T>())).bits()
}

fn mad<T: Integer>(a: u64, b: u64, c: u64, _: u64) -> u64 {
    T::of(a).product(T::of(b)).sum(T::of(c)).bits()
}

fn mad_high<T: Integer>(a: u64, b: u64, c: u64, _: u64) -> u64 {
    add::<T>(mul_high::<T>(a, b, 0, 0), c, 0, 0)
}

fn mul_wide<T: Integer, W: Integer>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    W::narrow(T::of(a).wide() * T::of(b).wide()).bits()
}

fn mad_wide<T: Integer, W: Integer>(a: u64, b: u64, c: u64, _: u64) -> u64 {
    W::narrow(T::of(a).wide() * T::of(b).wide()).sum(W::of(c)).bits()
}

fn div<T: Integer>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    T::of(a).quotient(T::of(b)).bits()
}

fn rem<T: Integer>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    T::of(a).remainder(T::of(b)).bits()
}

fn min<T: Integer>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    T::of(a).min(T::of(b)).bits()
}

fn max<T: Integer>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    T::of(a).max(T::of(b)).bits()
}

fn abs<T: Integer>(a: u64, _: u64, _: u64, _: u64) -> u64 {
    T::narrow(T::of(a).wide().abs()).bits()
}

fn neg<T: Integer>(a: u64, _: u64, _: u64, _: u64) -> u64 {
    T::narrow(-T::of(a).wide()).bits()
}

fn sad<T: Integer>(a: u64, b: u64, c: u64, _: u64) -> u64 {
    T::narrow((T::of(a).wide() - T::of(b).wide()).abs()).sum(T::of(c)).bits()
}

fn mul_24<T: Integer>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    let low = |x: u64| T::of(x << 8).wide() >> 8;
    T::narrow(low(a) * low(b)).bits()
}

/// One more, and zero after the bound.
fn inc(a: u64, b: u64, _: u64, _: u64) -> u64 {
    let (a, b) = (a as u32, b as u32);
    u64::from(if a >= b { 0 } else { a + 1 })
}

/// One less, and the bound after zero or whatever is above the bound.
fn dec(a: u64, b: u64, _: u64, _: u64) -> u64 {
    let (a, b) = (a as u32, b as u32);
    u64::from(if a == 0 || a > b { b } else { a - 1 })
}
