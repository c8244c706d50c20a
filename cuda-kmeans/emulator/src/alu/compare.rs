//! Comparisons, and choices by their results.

use super::{Bits, Function, arithmetic::instance};
use crate::ptx::Type;
use std::cmp::Ordering;

/// The function that compares values of a type: one or zero.
pub(crate) fn compare(comparison: &str, type_: Type) -> Option<Function> {
    match (comparison, type_) {
        ("eq", Type::Float(32)) => Some(ordered::<f32, EQUAL>),
        ("ne", Type::Float(32)) => Some(ordered::<f32, { LESS | GREATER }>),
        ("lt", Type::Float(32)) => Some(ordered::<f32, LESS>),
        ("le", Type::Float(32)) => Some(ordered::<f32, { LESS | EQUAL }>),
        ("gt", Type::Float(32)) => Some(ordered::<f32, GREATER>),
        ("ge", Type::Float(32)) => Some(ordered::<f32, { GREATER | EQUAL }>),
        ("equ", Type::Float(32)) => Some(ordered::<f32, { EQUAL | NONE }>),
        ("neu", Type::Float(32)) => Some(ordered::<f32, { LESS | GREATER | NONE }>),
        ("ltu", Type::Float(32)) => Some(ordered::<f32, { LESS | NONE }>),
        ("leu", Type::Float(32)) => Some(ordered::<f32, { LESS | EQUAL | NONE }>),
        ("gtu", Type::Float(32)) => Some(ordered::<f32, { GREATER | NONE }>),
        ("geu", Type::Float(32)) => Some(ordered::<f32, { GREATER | EQUAL | NONE }>),
        ("num", Type::Float(32)) => Some(ordered::<f32, { LESS | GREATER | EQUAL }>),
        ("nan", Type::Float(32)) => Some(ordered::<f32, NONE>),
        (_, Type::Float(64)) => compare_doubles(comparison),
        ("eq", _) => instance!(type_, equal),
        ("ne", _) => instance!(type_, unequal),
        ("lt" | "lo", _) => instance!(type_, less),
        ("gt" | "hi", _) => instance!(type_, greater),
        ("le" | "ls", _) => instance!(type_, at_most),
        ("ge" | "hs", _) => instance!(type_, at_least),
        _ => None,
    }
}

/// The same for floats of 64 bits.
fn compare_doubles(comparison: &str) -> Option<Function> {
    Some(match comparison {
        "eq" => ordered::<f64, EQUAL>,
        "ne" => ordered::<f64, { LESS | GREATER }>,
        "lt" => ordered::<f64, LESS>,
        "le" => ordered::<f64, { LESS | EQUAL }>,
        "gt" => ordered::<f64, GREATER>,
        "ge" => ordered::<f64, { GREATER | EQUAL }>,
        "equ" => ordered::<f64, { EQUAL | NONE }>,
        "neu" => ordered::<f64, { LESS | GREATER | NONE }>,
        "ltu" => ordered::<f64, { LESS | NONE }>,
        "leu" => ordered::<f64, { LESS | EQUAL | NONE }>,
        "gtu" => ordered::<f64, { GREATER | NONE }>,
        "geu" => ordered::<f64, { GREATER | EQUAL | NONE }>,
        "num" => ordered::<f64, { LESS | GREATER | EQUAL }>,
        "nan" => ordered::<f64, NONE>,
        _ => return None,
    })
}

/// The outcomes of a comparison of floats, as bits of a set.
const LESS: u8 = 1;
const EQUAL: u8 = 2;
const GREATER: u8 = 4;
const NONE: u8 = 8;

/// Whether the outcome belongs to a set.
fn ordered<T: Bits + PartialOrd, const SET: u8>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    let outcome = match T::of(a).partial_cmp(&T::of(b)) {
        Some(Ordering::Less) => LESS,
        Some(Ordering::Equal) => EQUAL,
        Some(Ordering::Greater) => GREATER,
        None => NONE,
    };
    u64::from(outcome & SET != 0)
}

fn equal<T: Bits + Ord>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    u64::from(T::of(a) == T::of(b))
}

fn unequal<T: Bits + Ord>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    u64::from(T::of(a) != T::of(b))
}

fn less<T: Bits + Ord>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    u64::from(T::of(a) < T::of(b))
}

fn greater<T: Bits + Ord>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    u64::from(T::of(a) > T::of(b))
}

fn at_most<T: Bits + Ord>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    u64::from(T::of(a) <= T::of(b))
}

fn at_least<T: Bits + Ord>(a: u64, b: u64, _: u64, _: u64) -> u64 {
    u64::from(T::of(a) >= T::of(b))
}

/// How the result of a comparison is joined with another predicate.
pub(crate) fn combine(name: &str) -> Option<Function> {
    Some(match name {
        "and" => |a, b, _, _| a & b,
        "or" => |a, b, _, _| a | b,
        "xor" => |a, b, _, _| a ^ b,
        _ => return None,
    })
}

/// The opposite of a predicate.
pub(crate) fn negate(a: u64, _: u64, _: u64, _: u64) -> u64 {
    a ^ 1
}

/// Choices: `selp`, `slct`, and what `set` makes of a comparison, which comes as a predicate.
pub(crate) fn select(name: &str, types: &[Type]) -> Option<Function> {
    Some(match (name, types) {
        ("selp", [type_]) => match type_.width() {
            16 => |a, b, p, _| u64::from(if p == 0 { b } else { a } as u16),
            32 => |a, b, p, _| u64::from(if p == 0 { b } else { a } as u32),
            64 => |a, b, p, _| if p == 0 { b } else { a },
            _ => return None,
        },
        ("slct", [type_, Type::Signed(32)]) => match type_.width() {
            16 => |a, b, c, _| u64::from(if c as i32 >= 0 { a } else { b } as u16),
            32 => |a, b, c, _| u64::from(if c as i32 >= 0 { a } else { b } as u32),
            64 => |a, b, c, _| if c as i32 >= 0 { a } else { b },
            _ => return None,
        },
        ("slct", [type_, Type::Float(32)]) => match type_.width() {
            32 => |a, b, c, _| u64::from(if f32::of(c) >= 0.0 { a } else { b } as u32),
            64 => |a, b, c, _| if f32::of(c) >= 0.0 { a } else { b },
            _ => return None,
        },
        ("set", [Type::Float(32)]) => |p, _, _, _| if p == 0 { 0 } else { 1.0_f32.bits() },
        ("set", [Type::Unsigned(32) | Type::Signed(32)]) => |p, _, _, _| if p == 0 { 0 } else { 0xFFFF_FFFF },
        _ => return None,
    })
}
