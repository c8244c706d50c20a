//! Comparisons and choices.

use super::{Bits, Function, integer::instance};
use crate::ptx::Type;
use std::cmp::Ordering;

/// The function of a comparison: one or zero.
pub(crate) fn compare(comparison: &str, type_: Type) -> Option<Function> {
    match (comparison, type_) {
        (_, Type::Float(32)) => compare_floats::<f32>(comparison),
        (_, Type::Float(64)) => compare_floats::<f64>(comparison),
        ("eq", _) => instance!(type_, equal),
        ("ne", _) => instance!(type_, unequal),
        ("lt", _) => instance!(type_, less),
        ("gt", _) => instance!(type_, greater),
        ("le", _) => instance!(type_, at_most),
        ("ge", _) => instance!(type_, at_least),
        _ => None,
    }
}

/// The same for floats.
fn compare_floats<T: Bits + PartialOrd>(comparison: &str) -> Option<Function> {
    Some(match comparison {
        "eq" => ordered::<T, EQUAL>,
        "ne" => ordered::<T, { LESS | GREATER }>,
        "lt" => ordered::<T, LESS>,
        "le" => ordered::<T, { LESS | EQUAL }>,
        "gt" => ordered::<T, GREATER>,
        "ge" => ordered::<T, { GREATER | EQUAL }>,
        "equ" => ordered::<T, { EQUAL | NONE }>,
        "neu" => ordered::<T, { LESS | GREATER | NONE }>,
        "ltu" => ordered::<T, { LESS | NONE }>,
        "leu" => ordered::<T, { LESS | EQUAL | NONE }>,
        "gtu" => ordered::<T, { GREATER | NONE }>,
        "geu" => ordered::<T, { GREATER | EQUAL | NONE }>,
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

macro_rules! comparisons {
    ($($name:ident: $operator:tt;)*) => {$(
        fn $name<T: Bits + Ord>(a: u64, b: u64, _: u64, _: u64) -> u64 {
            u64::from(T::of(a) $operator T::of(b))
        }
    )*};
}

comparisons! {
    equal: ==;
    unequal: !=;
    less: <;
    greater: >;
    at_most: <=;
    at_least: >=;
}

/// `selp`.
pub(crate) fn select(a: u64, b: u64, p: u64, mask: u64) -> u64 {
    mask & if p == 0 { b } else { a }
}
