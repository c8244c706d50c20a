//! Decodes accesses to memory.

use super::{Access, Copy, Operation, Space, Special, decode::Decoder};
use crate::{
    error::Refusal,
    ptx::{Operand, Type},
};

impl Decoder<'_> {
    /// Decodes an access to memory; `None` if the opcode is none.
    pub(super) fn memory(
        &mut self,
        opcode: &[&str],
        operands: &[Operand],
    ) -> Result<Option<Operation>, Refusal> {
        match (opcode, operands) {
            (["ld", "param", type_], [to, address]) => self.parameter(type_, to, address),
            (["ld", "global", "nc", rest @ ..], [to, address]) => self.load(Space::Global, rest, to, address),
            (["ld", "global", rest @ ..], [to, address]) => self.load(Space::Global, rest, to, address),
            (["ld", "shared", rest @ ..], [to, address]) => self.load(Space::Shared, rest, to, address),
            (["st", "global", rest @ ..], [address, from]) => self.store(Space::Global, rest, address, from),
            (["st", "shared", rest @ ..], [address, from]) => self.store(Space::Shared, rest, address, from),
            (["atom", "global", "add", "u32"], [to, address, by]) => {
                let access = self.access(Space::Global, 4, 1, address)?;
                Ok(Some(Operation::AtomicAdd { access, to: self.target(to)?, by: self.source(by)? }))
            }
            (["cp", "async", rest @ ..], _) => self.copy(rest, operands),
            _ => Ok(None),
        }
    }

    /// Where an address operand points.
    pub(super) fn access(
        &mut self,
        space: Space,
        size: u8,
        count: u8,
        operand: &Operand,
    ) -> Result<Access, Refusal> {
        let Operand::Address(base, offset) = operand else {
            return Err(self.refuse("an address is missing"));
        };
        let offset =
            i32::try_from(*offset).map_err(|_| self.refuse("the offset of an address is too large"))?;
        Ok(Access { space, base: self.source(base)?, offset, size, count })
    }

    /// Parameters are registers that are set from the start.
    fn parameter(
        &mut self,
        type_: &str,
        to: &Operand,
        address: &Operand,
    ) -> Result<Option<Operation>, Refusal> {
        let (Operand::Address(base, 0), Some(type_)) = (address, Type::parse(type_)) else { return Ok(None) };
        let Operand::Name(name) = &**base else { return Ok(None) };
        let size = usize::from(type_.width() / 8);
        let known = |place: &super::Place| place.name == *name && place.size == size;
        let number = self.parameters.iter().position(known);
        let number = number.ok_or_else(|| self.refuse("no parameter of this name and size"))?;
        let from = self.special(Special::Parameter(number))?;
        self.compute(|a, _, _, _| a, to, [from, 0, 0, 0])
    }

    /// The element and their number that the last suffixes of an access say: of words, 16 bytes at most.
    fn elements(suffixes: &[&str]) -> Option<(u8, u8)> {
        let (count, type_) = match suffixes {
            [type_] => (1, type_),
            ["v2", type_] => (2, type_),
            ["v4", type_] => (4, type_),
            _ => return None,
        };
        let size = Type::parse(type_)?.width() / 8;
        (matches!(size, 4 | 8) && size * count <= 16).then_some((size, count))
    }

    fn load(
        &mut self,
        space: Space,
        suffixes: &[&str],
        to: &Operand,
        address: &Operand,
    ) -> Result<Option<Operation>, Refusal> {
        let Some((size, count)) = Self::elements(suffixes) else { return Ok(None) };
        let to = self.targets(self.parts(to, count)?)?;
        Ok(Some(Operation::Load { access: self.access(space, size, count, address)?, to }))
    }

    fn store(
        &mut self,
        space: Space,
        suffixes: &[&str],
        address: &Operand,
        from: &Operand,
    ) -> Result<Option<Operation>, Refusal> {
        let Some((size, count)) = Self::elements(suffixes) else { return Ok(None) };
        let from = self.sources(self.parts(from, count)?)?;
        Ok(Some(Operation::Store { access: self.access(space, size, count, address)?, from }))
    }

    /// The elements of a vector, or what is none.
    pub(super) fn parts<'a>(&self, operand: &'a Operand, count: u8) -> Result<&'a [Operand], Refusal> {
        let parts = match operand {
            Operand::Vector(parts) => parts,
            _ => std::slice::from_ref(operand),
        };
        match parts.len() == usize::from(count) {
            true => Ok(parts),
            false => Err(self.refuse("the vector has another length")),
        }
    }

    /// `cp.async`.
    fn copy(&mut self, modifiers: &[&str], operands: &[Operand]) -> Result<Option<Operation>, Refusal> {
        Ok(match (modifiers, operands) {
            (["commit_group"], []) => Some(Operation::CloseGroup),
            (["wait_group"], [Operand::Number(but)]) => Some(Operation::WaitGroups { but: *but as u32 }),
            (["cg", "shared", "global"], [to, from, Operand::Number(16), read]) => {
                let to = self.access(Space::Shared, 16, 1, to)?;
                let from = self.access(Space::Global, 16, 1, from)?;
                Some(Operation::CopyLater(Box::new(Copy { to, from, read: self.source(read)? })))
            }
            _ => None,
        })
    }
}
