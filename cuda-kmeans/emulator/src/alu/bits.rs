//! Logic, shifts, and fields of bits.

use super::Function;
use crate::ptx::Type;

/// The function of an opcode with these modifiers on bits.
pub(crate) fn bitwise(name: &str, modifiers: &[&str], type_: Type) -> Option<Function> {
    let width = type_.width();
    Some(match (name, modifiers, width) {
        ("not", [], 1) => |a, _, _, _| !a & 1,
        ("not", [], 16) => |a, _, _, _| u64::from(!(a as u16)),
        ("not", [], 32) => |a, _, _, _| u64::from(!(a as u32)),
        ("not", [], 64) => |a, _, _, _| !a,
        ("and", [], 32) => |a, b, _, _| u64::from((a & b) as u32),
        ("or", [], 32) => |a, b, _, _| u64::from((a | b) as u32),
        ("xor", [], 32) => |a, b, _, _| u64::from((a ^ b) as u32),
        ("and", [], 64) => |a, b, _, _| a & b,
        ("or", [], 64) => |a, b, _, _| a | b,
        ("xor", [], 64) => |a, b, _, _| a ^ b,
        ("and", [], 16) => |a, b, _, _| u64::from((a & b) as u16),
        ("or", [], 16) => |a, b, _, _| u64::from((a | b) as u16),
        ("xor", [], 16) => |a, b, _, _| u64::from((a ^ b) as u16),
        ("and", [], 1) => |a, b, _, _| a & b & 1,
        ("or", [], 1) => |a, b, _, _| (a | b) & 1,
        ("xor", [], 1) => |a, b, _, _| (a ^ b) & 1,
        ("cnot", [], 16) => |a, _, _, _| u64::from(a as u16 == 0),
        ("cnot", [], 32) => |a, _, _, _| u64::from(a as u32 == 0),
        ("cnot", [], 64) => |a, _, _, _| u64::from(a == 0),
        ("exch", [], 32) => |_, b, _, _| u64::from(b as u32),
        ("exch", [], 64) => |_, b, _, _| b,
        ("cas", [], 16) => |a, b, c, _| u64::from(if a as u16 == b as u16 { c as u16 } else { a as u16 }),
        ("cas", [], 32) => |a, b, c, _| u64::from(if a as u32 == b as u32 { c as u32 } else { a as u32 }),
        ("cas", [], 64) => |a, b, c, _| if a == b { c } else { a },
        ("lop3", [], 32) => |a, b, c, table| u64::from(lop3(a as u32, b as u32, c as u32, table as u8)),
        ("popc", [], 32) => |a, _, _, _| u64::from((a as u32).count_ones()),
        ("popc", [], 64) => |a, _, _, _| u64::from(a.count_ones()),
        ("clz", [], 32) => |a, _, _, _| u64::from((a as u32).leading_zeros()),
        ("clz", [], 64) => |a, _, _, _| u64::from(a.leading_zeros()),
        ("brev", [], 32) => |a, _, _, _| u64::from((a as u32).reverse_bits()),
        ("brev", [], 64) => |a, _, _, _| a.reverse_bits(),
        ("prmt", [], 32) => |a, b, c, _| u64::from(permute(a as u32, b as u32, c as u32)),
        ("bfi", [], 32) => |a, b, c, d| u64::from(insert(a, b & 0xFFFF_FFFF, c, d, 32) as u32),
        ("bfi", [], 64) => |a, b, c, d| insert(a, b, c, d, 64),
        ("shl" | "shr", [], _) => return shift(name, type_),
        ("shf", [direction, mode], 32) => return funnel(direction, mode),
        ("bfe", [], _) => return extract(type_),
        ("bfind", [], _) => return find(type_, false),
        ("bfind", ["shiftamt"], _) => return find(type_, true),
        _ => return None,
    })
}

/// Shifts: beyond the width nothing, or copies of the sign, is left.
fn shift(name: &str, type_: Type) -> Option<Function> {
    Some(match (name, type_) {
        ("shl", Type::Bits(16)) => |a, b, _, _| u64::from((a as u16).checked_shl(b as u32).unwrap_or(0)),
        ("shl", Type::Bits(32)) => |a, b, _, _| u64::from((a as u32).checked_shl(b as u32).unwrap_or(0)),
        ("shl", Type::Bits(64)) => |a, b, _, _| a.checked_shl(b as u32).unwrap_or(0),
        ("shr", Type::Bits(16) | Type::Unsigned(16)) => {
            |a, b, _, _| u64::from((a as u16).checked_shr(b as u32).unwrap_or(0))
        }
        ("shr", Type::Bits(32) | Type::Unsigned(32)) => {
            |a, b, _, _| u64::from((a as u32).checked_shr(b as u32).unwrap_or(0))
        }
        ("shr", Type::Bits(64) | Type::Unsigned(64)) => |a, b, _, _| a.checked_shr(b as u32).unwrap_or(0),
        ("shr", Type::Signed(16)) => |a, b, _, _| u64::from((a as i16 >> (b as u32).min(15)) as u16),
        ("shr", Type::Signed(32)) => |a, b, _, _| u64::from((a as i32 >> (b as u32).min(31)) as u32),
        ("shr", Type::Signed(64)) => |a, b, _, _| (a as i64 >> (b as u32).min(63)) as u64,
        _ => return None,
    })
}

/// Shifts of two words as one, of which a word is left.
fn funnel(direction: &str, mode: &str) -> Option<Function> {
    Some(match (direction, mode) {
        ("l", "wrap") => |a, b, c, _| left(a, b, c as u32 & 31),
        ("l", "clamp") => |a, b, c, _| left(a, b, (c as u32).min(32)),
        ("r", "wrap") => |a, b, c, _| right(a, b, c as u32 & 31),
        ("r", "clamp") => |a, b, c, _| right(a, b, (c as u32).min(32)),
        _ => return None,
    })
}

fn left(a: u64, b: u64, by: u32) -> u64 {
    ((b << 32 | a & 0xFFFF_FFFF) << by) >> 32
}

fn right(a: u64, b: u64, by: u32) -> u64 {
    (b << 32 | a & 0xFFFF_FFFF) >> by & 0xFFFF_FFFF
}

/// Each bit of the result is that of the table at the number that the bits of the operands make.
fn lop3(a: u32, b: u32, c: u32, table: u8) -> u32 {
    let mut result = 0;
    for (row, (a, b, c)) in
        [(!a, !b, !c), (!a, !b, c), (!a, b, !c), (!a, b, c), (a, !b, !c), (a, !b, c), (a, b, !c), (a, b, c)]
            .into_iter()
            .enumerate()
    {
        if table >> row & 1 == 1 {
            result |= a & b & c;
        }
    }
    result
}

/// Bytes of two words, as four digits pick them; the high bit of a digit asks for copies of the sign.
fn permute(a: u32, b: u32, digits: u32) -> u32 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let pick = |at: u32| {
        let digit = digits >> (4 * at);
        let byte = bytes[digit as usize & 7];
        if digit & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 }
    };
    u32::from_le_bytes([pick(0), pick(1), pick(2), pick(3)])
}

/// `b` with a field of `a`.
fn insert(a: u64, b: u64, start: u64, length: u64, width: u32) -> u64 {
    let (start, length) = (start as u32 & 0xFF, length as u32 & 0xFF);
    let ones = 1_u64.checked_shl(length).map_or(!0, |bit| bit - 1);
    if start >= width {
        return b;
    }
    b & !(ones << start) | (a & ones) << start
}

/// A field of bits, with copies of its sign if the type has one.
fn extract(type_: Type) -> Option<Function> {
    Some(match type_ {
        Type::Unsigned(32) => |a, b, c, _| u64::from(field(i128::from(a as u32), b, c, 32, false) as u32),
        Type::Unsigned(64) => |a, b, c, _| field(i128::from(a), b, c, 64, false) as u64,
        Type::Signed(32) => |a, b, c, _| u64::from(field(i128::from(a as i32), b, c, 32, true) as u32),
        Type::Signed(64) => |a, b, c, _| field(i128::from(a as i64), b, c, 64, true) as u64,
        _ => return None,
    })
}

/// The field of a value that is extended to infinitely many bits.
fn field(a: i128, start: u64, length: u64, width: u32, signed: bool) -> i128 {
    let (start, length) = (start as u32 & 0xFF, length as u32 & 0xFF);
    if length == 0 {
        return 0;
    }
    let moved = a >> start.min(127);
    let kept = length.min(width);
    let low = moved & ((1 << kept) - 1);
    if signed && low >> (kept - 1) & 1 == 1 { low - (1 << kept) } else { low }
}

/// Where the highest bit is that differs from the sign, counted from the low or the high end.
fn find(type_: Type, from_high: bool) -> Option<Function> {
    Some(match (type_, from_high) {
        (Type::Unsigned(32), false) => |a, _, _, _| highest(u64::from(a as u32)),
        (Type::Unsigned(64), false) => |a, _, _, _| highest(a),
        (Type::Signed(32), false) => |a, _, _, _| highest(u64::from((a as i32 ^ (a as i32 >> 31)) as u32)),
        (Type::Signed(64), false) => |a, _, _, _| highest(a ^ (a as i64 >> 63) as u64),
        (Type::Unsigned(32), true) => |a, _, _, _| down(highest(u64::from(a as u32)), 31),
        (Type::Unsigned(64), true) => |a, _, _, _| down(highest(a), 63),
        (Type::Signed(32), true) => {
            |a, _, _, _| down(highest(u64::from((a as i32 ^ (a as i32 >> 31)) as u32)), 31)
        }
        (Type::Signed(64), true) => |a, _, _, _| down(highest(a ^ (a as i64 >> 63) as u64), 63),
        _ => return None,
    })
}

/// The number of the highest bit that is set, or all ones.
fn highest(a: u64) -> u64 {
    a.checked_ilog2().map_or(0xFFFF_FFFF, u64::from)
}

/// The shift that brings a bit to the top, or all ones.
fn down(highest: u64, top: u64) -> u64 {
    if highest == 0xFFFF_FFFF { highest } else { top - highest }
}
