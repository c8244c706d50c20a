//! Conversions between types.

use super::{
    Bits, Function,
    arithmetic::Integer,
    round::{BRAIN, HALF, Round, SINGLE, odd_of},
};
use crate::ptx::Type;

/// A conversion, as a function of one operand.
pub(crate) struct Conversion {
    pub(crate) function: Function,
    /// The fourth operand.
    pub(crate) fourth: u64,
    /// Whether operands and results too small to be normal are zero.
    pub(crate) flush: bool,
    /// Whether a result that is a float is brought between zero and one.
    pub(crate) saturate: bool,
}

/// The conversion of a `cvt` with these modifiers into a register of some width.
pub(crate) fn conversion(modifiers: &[&str], to: Type, from: Type, register: u8) -> Option<Conversion> {
    let (mut flush, mut saturate, mut round, mut whole) = (false, false, Round::Nearest, false);
    for &modifier in modifiers {
        match modifier {
            "ftz" => flush = true,
            "sat" => saturate = true,
            _ => {
                whole = modifier.ends_with('i');
                round = Round::parse(modifier.trim_end_matches('i'))?;
            }
        }
    }
    let is_float = !to.is_integer();
    let simple =
        matches!((to, from), (Type::Float(64), Type::Float(32)) | (Type::Float(32), Type::Float(64)));
    let (function, fourth): (Function, u64) = match (to.is_integer(), from.is_integer()) {
        (true, true) if !saturate && register == to.width() => move_between(to.width(), from),
        (false, false) if simple && !whole && round == Round::Nearest => match to {
            Type::Float(64) => (|a, _, _, _| f64::from(f32::of(a)).bits(), 0),
            _ => (|a, _, _, _| (f64::of(a) as f32).bits(), 0),
        },
        _ => {
            let numbers = [number(to)?, number(from)?, round.number(), u64::from(whole), u64::from(saturate)];
            let fourth = numbers.iter().fold(u64::from(register), |all, number| all << 8 | number);
            (convert, fourth)
        }
    };
    Some(Conversion { function, fourth, flush, saturate: saturate && is_float })
}

/// Whole numbers to registers of some width: their low bits, or copies of the sign beyond the width of the source.
pub(crate) fn move_between(register: u8, from: Type) -> (Function, u64) {
    let ones = !0 >> (64 - register.min(from.width()));
    match from {
        Type::Signed(width) if width < register => (extend, u64::from(width) << 8 | u64::from(register)),
        _ => (|a, _, _, mask| a & mask, ones),
    }
}

/// Copies the sign of a value of one width up to another width.
fn extend(a: u64, _: u64, _: u64, widths: u64) -> u64 {
    let unused = 64 - (widths >> 8);
    let value = (a << unused) as i64 >> unused;
    value as u64 & (!0 >> (64 - (widths & 0xFF)))
}

/// The number of a type, and back.
const TYPES: [Type; 12] = [
    Type::Unsigned(8),
    Type::Unsigned(16),
    Type::Unsigned(32),
    Type::Unsigned(64),
    Type::Signed(8),
    Type::Signed(16),
    Type::Signed(32),
    Type::Signed(64),
    Type::Float(16),
    Type::Float(32),
    Type::Float(64),
    Type::Brain,
];

fn number(type_: Type) -> Option<u64> {
    TYPES.iter().position(|&other| other == type_).map(|at| at as u64)
}

/// A value of any type.
enum Value {
    Whole(i128),
    Float(f64),
}

/// Any conversion; the fourth operand says which.
pub(crate) fn convert(a: u64, _: u64, _: u64, how: u64) -> u64 {
    let [saturate, whole, round, from, to, register, ..] = how.to_le_bytes();
    let (to, from) = (TYPES[usize::from(to)], TYPES[usize::from(from)]);
    let round = Round::of(u64::from(round));
    match (read(from, a), to.is_integer()) {
        (Value::Whole(value), true) => {
            let value = if saturate == 1 { clamp(to, value) } else { value };
            write_whole(to, value, register)
        }
        (Value::Float(value), true) => {
            let value = match value.is_nan() {
                true if from != Type::Float(64) && to.width() < 64 => 0,
                true => 1 << (to.width() - 1),
                false => clamp(to, round.whole(value) as i128),
            };
            write_whole(to, value, register)
        }
        (Value::Whole(value), false) => write_float(to, odd_of(value), Some(value), round),
        (Value::Float(value), false) => {
            write_float(to, if whole == 1 { round.whole(value) } else { value }, None, round)
        }
    }
}

fn read(type_: Type, bits: u64) -> Value {
    match type_ {
        Type::Unsigned(8) => Value::Whole(u8::of(bits).wide()),
        Type::Unsigned(16) => Value::Whole(u16::of(bits).wide()),
        Type::Unsigned(32) => Value::Whole(u32::of(bits).wide()),
        Type::Signed(8) => Value::Whole(i8::of(bits).wide()),
        Type::Signed(16) => Value::Whole(i16::of(bits).wide()),
        Type::Signed(32) => Value::Whole(i32::of(bits).wide()),
        Type::Signed(_) => Value::Whole(i64::of(bits).wide()),
        Type::Float(16) => Value::Float(HALF.decode(bits & 0xFFFF)),
        Type::Float(32) => Value::Float(f64::from(f32::of(bits))),
        Type::Float(_) => Value::Float(f64::of(bits)),
        Type::Brain => Value::Float(BRAIN.decode(bits & 0xFFFF)),
        _ => Value::Whole(bits.wide()),
    }
}

/// The nearest value that a type has.
fn clamp(type_: Type, value: i128) -> i128 {
    let width = type_.width();
    match type_ {
        Type::Signed(_) => value.clamp(-(1 << (width - 1)), (1 << (width - 1)) - 1),
        _ => value.clamp(0, (1 << width) - 1),
    }
}

/// The low bits of a value, extended to a register as the type says.
fn write_whole(type_: Type, value: i128, register: u8) -> u64 {
    let from = match type_ {
        Type::Signed(width) => Type::Signed(width),
        _ => Type::Unsigned(type_.width()),
    };
    let (function, fourth) = move_between(register, from);
    function(value as u64, 0, 0, fourth)
}

/// A value that may have too many digits; `whole` is what it was as a whole number.
fn write_float(type_: Type, value: f64, whole: Option<i128>, round: Round) -> u64 {
    match type_ {
        Type::Float(16) => HALF.encode(HALF.round(value, round)),
        Type::Brain => BRAIN.encode(BRAIN.round(value, round)),
        Type::Float(32) if value.is_nan() => 0x7FFF_FFFF,
        Type::Float(32) => (SINGLE.round(value, round) as f32).bits(),
        _ => match whole {
            Some(whole) => double_of(whole, round).bits(),
            None => value.bits(),
        },
    }
}

/// A whole number as a 64-bit float.
fn double_of(whole: i128, round: Round) -> f64 {
    let nearest = whole as f64;
    let back = nearest as i128;
    let toward_zero = round == Round::Zero;
    if back > whole && (round == Round::Down || toward_zero && whole > 0) {
        nearest.next_down()
    } else if back < whole && (round == Round::Up || toward_zero && whole < 0) {
        nearest.next_up()
    } else {
        nearest
    }
}

/// The tensor cores' float of 19 bits: to nearest, ties away from zero.
pub(crate) fn tensor_float(a: u64, _: u64, _: u64, _: u64) -> u64 {
    match f32::of(a).is_nan() {
        true => 0x7FFF_E000,
        false => (a + 0x1000) & 0xFFFF_E000,
    }
}

/// Two floats as halves of a word, the first above the second.
pub(crate) fn pack_brain(a: u64, b: u64, _: u64, mode: u64) -> u64 {
    let half = |x: u64| BRAIN.encode(BRAIN.round(f64::from(f32::of(x)), Round::of(mode)));
    half(a) << 16 | half(b)
}

/// The same of 16-bit floats of the other kind.
pub(crate) fn pack_half(a: u64, b: u64, _: u64, mode: u64) -> u64 {
    let half = |x: u64| HALF.encode(HALF.round(f64::from(f32::of(x)), Round::of(mode)));
    half(a) << 16 | half(b)
}

/// Conversions that have a form of their own: the function and its fourth operand.
pub(crate) fn special(modifiers: &[&str]) -> Option<(Function, u64)> {
    Some(match modifiers {
        ["rna", "tf32", "f32"] => (tensor_float, 0),
        [mode @ ("rn" | "rz"), "bf16x2", "f32"] => (pack_brain, Round::parse(mode)?.number()),
        [mode @ ("rn" | "rz"), "f16x2", "f32"] => (pack_half, Round::parse(mode)?.number()),
        _ => return None,
    })
}
