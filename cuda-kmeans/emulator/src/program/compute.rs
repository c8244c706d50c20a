//! Decodes computations.

use super::{Slot, ZERO, decode::Decoder};
use crate::{
    alu::{Function, bitwise, conversion, floating, flush, integer, move_between, saturate, select, special},
    error::Refusal,
    ptx::{Operand, Type},
};

/// The start of generic addresses of shared memory.
pub(crate) const SHARED_WINDOW: u64 = 1 << 33;
/// The start of generic addresses of a thread's own memory.
pub(crate) const LOCAL_WINDOW: u64 = 1 << 34;
/// The start of generic addresses of parameters.
pub(crate) const PARAMETER_WINDOW: u64 = 1 << 35;

impl Decoder<'_> {
    /// Decodes a computation; false if the opcode is none.
    pub(super) fn computation(&mut self, opcode: &[&str], operands: &[Operand]) -> Result<bool, Refusal> {
        let [name, modifiers @ ..] = opcode else { return Ok(false) };
        match (*name, modifiers) {
            ("setp", [modifiers @ .., type_]) => self.comparison(modifiers, type_, operands),
            ("set", [modifiers @ .., result, type_]) => {
                self.comparison_value(modifiers, result, type_, operands)
            }
            ("mov", [_]) => self.movement(operands),
            ("cvt", modifiers) => self.conversion(modifiers, operands),
            ("cvta", modifiers) => self.change_of_space(modifiers, operands),
            ("slct", [to, by]) | ("slct", ["ftz", to, by]) => {
                let types = [Type::parse(to), Type::parse(by)];
                let [Some(to), Some(by)] = types else { return Ok(false) };
                self.plain(select(name, &[to, by]), operands)
            }
            (_, [modifiers @ .., type_]) => match Type::parse(type_) {
                Some(type_) => self.typed(name, modifiers, type_, operands),
                None => Ok(false),
            },
            _ => Ok(false),
        }
    }

    /// One result from up to four operands.
    fn plain(&mut self, function: Option<Function>, operands: &[Operand]) -> Result<bool, Refusal> {
        let (Some(function), [to, from @ ..]) = (function, operands) else { return Ok(false) };
        let from = self.sources(from)?;
        let to = self.target(to)?;
        self.compute(function, to, from);
        Ok(true)
    }

    /// An opcode with one type.
    fn typed(
        &mut self,
        name: &str,
        modifiers: &[&str],
        type_: Type,
        operands: &[Operand],
    ) -> Result<bool, Refusal> {
        if matches!(type_, Type::Float(_)) && name != "selp" {
            return self.floats(name, modifiers, type_, operands);
        }
        if matches!((name, modifiers), ("selp", [])) {
            return self.plain(select(name, &[type_]), operands);
        }
        if matches!(name, "inc" | "dec" | "exch" | "cas") {
            return Ok(false);
        }
        self.plain(integer(name, modifiers, type_).or_else(|| bitwise(name, modifiers, type_)), operands)
    }

    /// An opcode of floats: operands and results are flushed around the function itself.
    fn floats(
        &mut self,
        name: &str,
        modifiers: &[&str],
        type_: Type,
        operands: &[Operand],
    ) -> Result<bool, Refusal> {
        let (Some(float), [to, from @ ..]) = (floating(name, modifiers, type_), operands) else {
            return Ok(false);
        };
        let mut from = self.sources(from)?;
        if float.flush {
            for slot in from.iter_mut().take(operands.len() - 1) {
                *slot = self.flushed(*slot);
            }
        }
        if float.fourth != 0 {
            from[3] = self.constant(float.fourth)?;
        }
        let to = self.target(to)?;
        self.compute(float.function, to, from);
        self.finish_float(to, float.flush && name != "testp", float.saturate);
        Ok(true)
    }

    /// An operand without what is too small to be normal.
    pub(super) fn flushed(&mut self, from: Slot) -> Slot {
        let to = self.scratch();
        self.compute(flush, to, [from, ZERO, ZERO, ZERO]);
        to
    }

    /// Flushes and saturates a result.
    fn finish_float(&mut self, to: Slot, flushes: bool, saturates: bool) {
        if flushes {
            self.compute(flush, to, [to, ZERO, ZERO, ZERO]);
        }
        if saturates {
            self.compute(saturate, to, [to, ZERO, ZERO, ZERO]);
        }
    }

    /// `mov`: whole registers, and parts of them.
    fn movement(&mut self, operands: &[Operand]) -> Result<bool, Refusal> {
        match operands {
            [Operand::Vector(parts), from] => {
                let from = self.source(from)?;
                let width = self.width_of_parts(parts)?;
                for (part, shift) in parts.iter().zip((0..).step_by(usize::from(width))) {
                    let (to, by) = (self.target(part)?, self.constant(shift)?);
                    let mask = self.constant(!0 >> (64 - width))?;
                    self.compute(|a, by, mask, _| a >> by & mask, to, [from, by, mask, ZERO]);
                }
            }
            [to, Operand::Vector(parts)] => {
                let width = match self.type_of(to) {
                    Some(type_) => type_.width() / parts.len().max(1) as u8,
                    None => return Ok(false),
                };
                let (by, mut from) = (self.constant(u64::from(width))?, self.sources(parts)?);
                let to = self.target(to)?;
                if parts.len() == 2 {
                    from[2] = by;
                    self.compute(join, to, from);
                } else if parts.len() == 4 && width == 16 {
                    self.compute(join_four, to, from);
                } else {
                    return Ok(false);
                }
            }
            [to, from] => {
                let width = self.type_of(to).map_or(64, Type::width);
                let from = self.source(from)?;
                let mask = self.constant(!0 >> (64 - width))?;
                let to = self.target(to)?;
                self.compute(|a, mask, _, _| a & mask, to, [from, mask, ZERO, ZERO]);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The width that parts of a register have in common.
    fn width_of_parts(&self, parts: &[Operand]) -> Result<u8, Refusal> {
        let width = parts.iter().find_map(|part| self.type_of(part)).map(Type::width);
        width.ok_or_else(|| self.refuse("a vector needs a register"))
    }

    /// `cvt`.
    fn conversion(&mut self, modifiers: &[&str], operands: &[Operand]) -> Result<bool, Refusal> {
        let [target, from @ ..] = operands else { return Ok(false) };
        if let Some((function, fourth)) = special(modifiers) {
            let mut from = self.sources(from)?;
            from[3] = self.constant(fourth)?;
            let to = self.target(target)?;
            self.compute(function, to, from);
            return Ok(true);
        }
        let [modifiers @ .., to, of] = modifiers else { return Ok(false) };
        let (Some(to), Some(of), [from]) = (Type::parse(to), Type::parse(of), from) else { return Ok(false) };
        let register = self.type_of(target).map_or(to.width(), Type::width);
        let Some(found) = conversion(modifiers, to, of, register) else { return Ok(false) };
        let mut from = self.source(from)?;
        if found.flush && of == Type::Float(32) {
            from = self.flushed(from);
        }
        let fourth = self.constant(found.fourth)?;
        let result = self.target(target)?;
        self.compute(found.function, result, [from, ZERO, ZERO, fourth]);
        let single = to == Type::Float(32);
        self.finish_float(result, found.flush && single, found.saturate && single);
        Ok(!found.saturate || single)
    }

    /// `cvta`: to and from generic addresses.
    fn change_of_space(&mut self, modifiers: &[&str], operands: &[Operand]) -> Result<bool, Refusal> {
        let (back, space) = match modifiers {
            ["to", space, "u64"] => (true, *space),
            [space, "u64"] => (false, *space),
            _ => return Ok(false),
        };
        let [to, from] = operands else { return Ok(false) };
        let window = match space.trim_end_matches("::cta").trim_end_matches("::entry") {
            "global" | "const" => 0,
            "shared" => SHARED_WINDOW,
            "local" => LOCAL_WINDOW,
            "param" => PARAMETER_WINDOW,
            _ => return Ok(false),
        };
        let (from, window) = (self.source(from)?, self.constant(window)?);
        let to = self.target(to)?;
        let function: Function = match back {
            true => leave,
            false => |a, window, _, _| a.wrapping_add(window),
        };
        self.compute(function, to, [from, window, ZERO, ZERO]);
        Ok(true)
    }

    /// Makes a value that was read as wide as its register.
    pub(super) fn sign_extension(&self, type_: Type, to: &Operand) -> Option<u8> {
        match (type_, self.type_of(to)) {
            (Type::Signed(width), Some(register)) if register.width() > width => Some(register.width()),
            _ => None,
        }
    }
}

/// What a generic address is in a space; an address that is in none of that if it is from elsewhere.
fn leave(a: u64, window: u64, _: u64, _: u64) -> u64 {
    match window {
        0 => a,
        _ if (window..2 * window).contains(&a) => a - window,
        _ => !0,
    }
}

/// Two parts as one value, each as wide as the third operand says.
fn join(low: u64, high: u64, width: u64, _: u64) -> u64 {
    low & (!0 >> (64 - width)) | (high & (!0 >> (64 - width))) << width
}

/// Four parts of 16 bits.
fn join_four(a: u64, b: u64, c: u64, d: u64) -> u64 {
    let low = |x: u64| x & 0xFFFF;
    low(a) | low(b) << 16 | low(c) << 32 | low(d) << 48
}

/// Copies the sign of a value of some bytes up to the width of a register.
pub(crate) fn extended(value: u64, size: u8, register: u8) -> u64 {
    let (function, fourth) = move_between(register, Type::Signed(8 * size));
    function(value, 0, 0, fourth)
}
