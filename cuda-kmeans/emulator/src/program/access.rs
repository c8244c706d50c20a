//! Decodes accesses to memory.

use super::{Access, Atomic, Copy, Operation, Slot, Space, ZERO, decode::Decoder};
use crate::{
    alu::{Function, add_flushed, bitwise, floating, integer},
    error::Refusal,
    ptx::{Operand, Type},
};

/// Suffixes that say how memory is cached or ordered, which makes no difference here.
const HINTS: [&str; 21] = [
    "weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys", "nc",
    "ca", "cg", "cs", "lu", "cv", "wb", "wt", "L2::64B", "L2::128B", "L2::256B",
];

/// What the suffixes of an access say.
struct Suffixes<'a> {
    space: Space,
    count: u8,
    /// What is no hint, space, or count.
    rest: Vec<&'a str>,
}

impl<'a> Suffixes<'a> {
    fn of(modifiers: &[&'a str]) -> Self {
        let mut suffixes = Self { space: Space::Generic, count: 1, rest: Vec::new() };
        for &modifier in modifiers {
            match modifier {
                "global" => suffixes.space = Space::Global,
                "const" => suffixes.space = Space::Constant,
                "shared" | "shared::cta" => suffixes.space = Space::Shared,
                "local" => suffixes.space = Space::Local,
                "param" | "param::entry" => suffixes.space = Space::Parameter,
                "v2" => suffixes.count = 2,
                "v4" => suffixes.count = 4,
                _ if HINTS.contains(&modifier) || modifier.starts_with("L1::") => {}
                _ => suffixes.rest.push(modifier),
            }
        }
        suffixes
    }
}

impl Decoder<'_> {
    /// Decodes an access to memory; false if the opcode is none.
    pub(super) fn memory(&mut self, opcode: &[&str], operands: &[Operand]) -> Result<bool, Refusal> {
        match (opcode, operands) {
            (["ld", modifiers @ ..], [to, address]) => self.load(modifiers, to, address),
            (["st", modifiers @ ..], [address, from]) => self.store(modifiers, address, from),
            (["atom", modifiers @ ..], [to, address, from @ ..]) => {
                let to = self.target(to)?;
                self.atomic(modifiers, to, address, from)
            }
            (["red", modifiers @ ..], [address, from @ ..]) => {
                let to = self.scratch();
                self.atomic(modifiers, to, address, from)
            }
            (["cp", "async", rest @ ..], _) => self.copy(rest, operands),
            (["prefetch" | "prefetchu", ..], [_]) => {
                self.push(Operation::Nothing);
                Ok(true)
            }
            _ => Ok(false),
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
        if matches!(space, Space::Shared | Space::Generic) {
            self.granule = self.granule.min(usize::from(size));
        }
        Ok(Access { space, base: self.source(base)?, offset, size, count })
    }

    /// The type that an access is of, if that is all that is left of its suffixes.
    fn accessed(suffixes: &Suffixes<'_>) -> Option<Type> {
        let [type_] = suffixes.rest[..] else { return None };
        let type_ = Type::parse(type_).filter(|&type_| type_ != Type::Predicate)?;
        (type_.width() / 8 * suffixes.count <= 16).then_some(type_)
    }

    fn load(&mut self, modifiers: &[&str], to: &Operand, address: &Operand) -> Result<bool, Refusal> {
        let suffixes = Suffixes::of(modifiers);
        let Some(type_) = Self::accessed(&suffixes) else { return Ok(false) };
        let access = self.access(suffixes.space, type_.width() / 8, suffixes.count, address)?;
        let parts = parts(to);
        if parts.len() != usize::from(suffixes.count) {
            return Err(self.refuse("the vector has another length"));
        }
        let mut slots = [ZERO; 4];
        for (slot, part) in slots.iter_mut().zip(parts) {
            *slot = self.target(part)?;
        }
        let sign = parts.first().and_then(|part| self.sign_extension(type_, part));
        self.push(Operation::Load { access, to: slots, sign });
        Ok(true)
    }

    fn store(&mut self, modifiers: &[&str], address: &Operand, from: &Operand) -> Result<bool, Refusal> {
        let suffixes = Suffixes::of(modifiers);
        let Some(type_) = Self::accessed(&suffixes) else { return Ok(false) };
        let access = self.access(suffixes.space, type_.width() / 8, suffixes.count, address)?;
        if matches!(suffixes.space, Space::Constant | Space::Parameter) {
            return Err(self.refuse("this space cannot be written"));
        }
        let parts = parts(from);
        if parts.len() != usize::from(suffixes.count) {
            return Err(self.refuse("the vector has another length"));
        }
        let from = self.sources(parts)?;
        self.push(Operation::Store { access, from });
        Ok(true)
    }

    fn atomic(
        &mut self,
        modifiers: &[&str],
        to: Slot,
        address: &Operand,
        from: &[Operand],
    ) -> Result<bool, Refusal> {
        let suffixes = Suffixes::of(modifiers);
        let [name, type_] = suffixes.rest[..] else { return Ok(false) };
        let Some(type_) = Type::parse(type_) else { return Ok(false) };
        let Some(function) = exchanged(name, type_, suffixes.space) else { return Ok(false) };
        if suffixes.count != 1 || from.len() != 1 + usize::from(name == "cas") {
            return Ok(false);
        }
        let access = self.access(suffixes.space, type_.width() / 8, 1, address)?;
        let [first, second, ..] = self.sources(from)?;
        self.push(Operation::Atomic(Box::new(Atomic { access, function, to, from: [first, second] })));
        Ok(true)
    }

    /// `cp.async`.
    fn copy(&mut self, modifiers: &[&str], operands: &[Operand]) -> Result<bool, Refusal> {
        let operation = match (modifiers, operands) {
            (["commit_group"], []) => Operation::CloseGroup,
            (["wait_all"], []) => Operation::WaitAll,
            (["wait_group"], [Operand::Number(but)]) => Operation::WaitGroups { but: *but as u32 },
            (
                [cache @ ("ca" | "cg"), "shared" | "shared::cta", "global", hints @ ..],
                [to, from, Operand::Number(size), rest @ ..],
            ) if hints.iter().all(|hint| HINTS.contains(hint)) => {
                let size = *size as u8;
                if !(size == 16 || *cache == "ca" && matches!(size, 4 | 8)) {
                    return Err(self.refuse("copies of this size are not supported"));
                }
                let read = match rest {
                    [] => self.constant(u64::from(size))?,
                    [read] if self.type_of(read) != Some(Type::Predicate) => self.source(read)?,
                    _ => return Ok(false),
                };
                let to = self.access(Space::Shared, size, 1, to)?;
                let from = self.access(Space::Global, size, 1, from)?;
                Operation::CopyLater(Box::new(Copy { to, from, read }))
            }
            _ => return Ok(false),
        };
        self.push(operation);
        Ok(true)
    }
}

/// The elements of a vector, or what is none.
fn parts(operand: &Operand) -> &[Operand] {
    match operand {
        Operand::Vector(parts) => parts,
        _ => std::slice::from_ref(operand),
    }
}

/// What an atomic operation makes of what is there.
fn exchanged(name: &str, type_: Type, space: Space) -> Option<Function> {
    if !matches!(type_.width(), 32 | 64) && name != "cas" {
        return None;
    }
    match (name, type_) {
        ("add", Type::Float(32)) if space == Space::Global => Some(add_flushed),
        ("add", Type::Float(_)) => floating(name, &[], type_).map(|float| float.function),
        ("add" | "min" | "max" | "inc" | "dec", _) => integer(name, &[], type_),
        ("and" | "or" | "xor" | "exch" | "cas", _) if type_.is_integer() => bitwise(name, &[], type_),
        _ => None,
    }
}
