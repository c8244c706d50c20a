//! Logic, shifts, and fields of bits.

use super::Function;
use crate::ptx::Type;

/// The function of an opcode with these modifiers on bits.
pub(crate) fn bitwise(name: &str, modifiers: &[&str], type_: Type) -> Option<Function> {
    Some(match (name, modifiers, type_) {
        // Nothing is beyond the width of registers, nor then of these.
        ("and", [], Type::Bits(_) | Type::Predicate) => |a, b, _, mask| a & b & mask,
        ("or", [], Type::Bits(_) | Type::Predicate) => |a, b, _, mask| (a | b) & mask,
        ("xor", [], Type::Bits(_) | Type::Predicate) => |a, b, _, mask| (a ^ b) & mask,
        ("not", [], Type::Bits(_) | Type::Predicate) => |a, _, _, mask| !a & mask,
        ("shl", [], Type::Bits(32)) => |a, b, _, _| (a as u32).checked_shl(b as u32).unwrap_or(0).into(),
        ("shl", [], Type::Bits(64)) => |a, b, _, _| a.checked_shl(b as u32).unwrap_or(0),
        ("shr", [], Type::Unsigned(32)) => |a, b, _, _| (a as u32).checked_shr(b as u32).unwrap_or(0).into(),
        ("shr", [], Type::Unsigned(64)) => |a, b, _, _| a.checked_shr(b as u32).unwrap_or(0),
        ("popc", [], Type::Bits(32)) => |a, _, _, _| (a as u32).count_ones().into(),
        ("clz", [], Type::Bits(32)) => |a, _, _, _| (a as u32).leading_zeros().into(),
        ("brev", [], Type::Bits(32)) => |a, _, _, _| (a as u32).reverse_bits().into(),
        ("bfi", [], Type::Bits(32)) => |a, b, c, d| insert(a as u32, b as u32, c as u32, d as u32).into(),
        ("bfind", ["shiftamt"], Type::Unsigned(32)) => shift_to_top,
        _ => return None,
    })
}

/// `b` with a field of `a`.
fn insert(a: u32, b: u32, start: u32, length: u32) -> u32 {
    let (start, length) = (start & 0xFF, length & 0xFF);
    let ones = 1_u32.checked_shl(length).map_or(!0, |bit| bit - 1);
    let field = ones.checked_shl(start).unwrap_or(0);
    b & !field | a.checked_shl(start).unwrap_or(0) & field
}

/// How far the highest bit that is set is from the top; all ones if none is.
fn shift_to_top(a: u64, _: u64, _: u64, _: u64) -> u64 {
    match a as u32 {
        0 => u64::from(u32::MAX),
        a => u64::from(a.leading_zeros()),
    }
}
