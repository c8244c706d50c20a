//! Decodes computations.

use super::{Operation, Slot, ZERO, decode::Decoder};
use crate::{
    alu::{Function, bitwise, compare, conversion, floating, integer, select},
    error::Refusal,
    ptx::{Operand, Type},
};

impl Decoder<'_> {
    /// Decodes a computation; `None` if the opcode is none.
    pub(super) fn computation(
        &mut self,
        opcode: &[&str],
        operands: &[Operand],
    ) -> Result<Option<Operation>, Refusal> {
        let ([name, modifiers @ ..], [to, from @ ..]) = (opcode, operands) else { return Ok(None) };
        let type_ = modifiers.last().and_then(|type_| Type::parse(type_));
        let function: Option<Function> = match (*name, modifiers, type_) {
            ("mov", [_], Some(_)) => return self.movement(to, from),
            ("cvta", ["to", "global", "u64"], _) => Some(|a, _, _, _| a),
            ("cvt", ..) => conversion(modifiers),
            ("setp", [comparison, _], Some(type_)) => compare(comparison, type_),
            ("selp", [_], Some(_)) => Some(select),
            (_, [modifiers @ .., _], Some(type_)) => integer(name, modifiers, type_)
                .or_else(|| floating(name, modifiers, type_))
                .or_else(|| bitwise(name, modifiers, type_)),
            _ => None,
        };
        let Some(function) = function else { return Ok(None) };
        let mut slots = self.sources(from)?;
        if let (..4, Some(type_)) = (from.len(), type_) {
            // What has not four operands of its own may cut its result to the type.
            slots[3] = self.mask(type_)?;
        }
        self.compute(function, to, slots)
    }

    /// The register whose bits are those that a type has.
    fn mask(&mut self, type_: Type) -> Result<Slot, Refusal> {
        self.constant(!0 >> (64 - type_.width()))
    }

    /// `mov`: whole registers, and halves of them.
    fn movement(&mut self, to: &Operand, from: &[Operand]) -> Result<Option<Operation>, Refusal> {
        match (to, from) {
            (Operand::Vector(parts), [from]) if self.halves(parts, from) => {
                let [low, high, ..] = self.targets(parts)?;
                Ok(Some(Operation::Split { low, high, from: self.source(from)? }))
            }
            (_, [Operand::Vector(parts)]) if self.halves(parts, to) => {
                let from = self.sources(parts)?;
                self.compute(|low, high, _, _| low & 0xFFFF_FFFF | high << 32, to, from)
            }
            (Operand::Register(_), [from]) => {
                let mask = self.type_of(to).map_or(Ok(ZERO), |type_| self.mask(type_))?;
                let from = self.source(from)?;
                self.compute(|a, mask, _, _| a & mask, to, [from, mask, ZERO, ZERO])
            }
            _ => Ok(None),
        }
    }

    /// Whether parts are the halves of a register.
    fn halves(&self, parts: &[Operand], whole: &Operand) -> bool {
        let width = |operand| self.type_of(operand).map(Type::width);
        width(whole) == Some(64) && parts.len() == 2 && parts.iter().all(|part| width(part) == Some(32))
    }
}
