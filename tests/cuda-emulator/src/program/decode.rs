//! From statements to instructions.

use super::{Instruction, Operation, Place, Program, Slot, Special, ZERO};
use crate::{
    alu::Function,
    error::Refusal,
    ptx::{Kernel, Operand, Statement, Type, Variable},
};
use std::collections::HashMap;

/// Where shared memory starts: null is no address in it.
const START: usize = 1024;

/// What is left free behind each variable, so that whoever leaves it is found out. Banks stay as they are without.
const GAP: usize = 128;

/// A kernel that is being decoded.
pub(super) struct Decoder<'a> {
    kernel: &'a Kernel,
    code: Vec<Instruction>,
    registers: Vec<u64>,
    constants: HashMap<u64, Slot>,
    specials: Vec<(Slot, Special)>,
    shared: Vec<Place>,
    pub(super) parameters: Vec<Place>,
    /// The guard of the statement that is being decoded.
    guard: (Slot, bool),
    line: u32,
}

/// Decodes a kernel.
pub(crate) fn decode(kernel: &Kernel) -> Result<Program, Refusal> {
    let mut decoder = Decoder {
        kernel,
        code: Vec::new(),
        registers: vec![0; 1 + kernel.registers.len()],
        constants: HashMap::from([(0, ZERO)]),
        specials: Vec::new(),
        shared: places(&kernel.shared, START, GAP),
        parameters: places(&kernel.parameters, 0, 0),
        guard: (ZERO, true),
        line: kernel.line,
    };
    if decoder.registers.len() > usize::from(u16::MAX) {
        return Err(decoder.refuse("too many registers"));
    }
    if kernel.parameters.iter().any(|parameter| !matches!(parameter.size, 4 | 8)) {
        return Err(decoder.refuse("a parameter of this size is not supported"));
    }
    for statement in &kernel.statements {
        decoder.statement(statement)?;
    }
    // Whoever comes to the end is done; labels may point there.
    decoder.guard = (ZERO, true);
    decoder.push(Operation::Exit);
    Ok(Program {
        name: kernel.name.clone(),
        code: decoder.code,
        registers: decoder.registers,
        specials: decoder.specials,
        parameters: decoder.parameters,
        most_threads: kernel.most_threads,
        shared: decoder.shared,
    })
}

/// Places variables one after the other.
fn places(variables: &[Variable], start: usize, gap: usize) -> Vec<Place> {
    let mut end = start;
    let place = |variable: &Variable| {
        let offset = end.next_multiple_of(variable.align);
        end = offset + variable.size;
        if gap > 0 {
            end = end.next_multiple_of(gap) + gap;
        }
        Place { name: variable.name.clone(), offset, size: variable.size }
    };
    variables.iter().map(place).collect()
}

impl Decoder<'_> {
    /// Decodes a statement: to one instruction, so that labels keep their numbers.
    fn statement(&mut self, statement: &Statement) -> Result<(), Refusal> {
        self.line = statement.line;
        self.guard = match statement.guard {
            Some((register, negated)) => (self.slot_of(register), negated),
            None => (ZERO, true),
        };
        let opcode: Vec<&str> = statement.opcode.split('.').collect();
        let operands = &statement.operands[..];
        let operation = match self.flow(&opcode, operands)? {
            None => self.memory(&opcode, operands)?,
            found => found,
        };
        let operation = match operation {
            None => self.together(&opcode, operands)?,
            found => found,
        };
        let operation = match operation {
            None => self.computation(&opcode, operands)?,
            found => found,
        };
        let known =
            operation.ok_or_else(|| self.refuse(format!("`{}` is not supported", statement.opcode)))?;
        self.push(known);
        Ok(())
    }

    /// Branches and ends.
    fn flow(&self, opcode: &[&str], operands: &[Operand]) -> Result<Option<Operation>, Refusal> {
        Ok(match (opcode, operands) {
            (["bra"] | ["bra", "uni"], [Operand::Name(label)]) => match self.kernel.labels.get(label) {
                Some(&to) => Some(Operation::Branch { to: to as u32 }),
                None => return Err(self.refuse("an unknown label")),
            },
            (["ret"], []) => Some(Operation::Exit),
            _ => None,
        })
    }

    /// Adds an instruction under the guard of its statement.
    fn push(&mut self, operation: Operation) {
        let (guard, unless) = self.guard;
        self.code.push(Instruction { guard, unless, line: self.line, operation });
    }

    /// A computation.
    pub(super) fn compute(
        &mut self,
        function: Function,
        to: &Operand,
        from: [Slot; 4],
    ) -> Result<Option<Operation>, Refusal> {
        Ok(Some(Operation::Compute { function, to: self.target(to)?, from }))
    }

    /// Says what is wrong with the statement.
    pub(super) fn refuse(&self, why: impl Into<String>) -> Refusal {
        Refusal::new(self.line, why)
    }

    fn slot_of(&self, register: u32) -> Slot {
        register as Slot + 1
    }

    /// The type of a register.
    pub(super) fn type_of(&self, operand: &Operand) -> Option<Type> {
        match operand {
            Operand::Register(register) => self.kernel.registers.get(*register as usize).copied(),
            _ => None,
        }
    }

    /// Where a result goes.
    pub(super) fn target(&self, operand: &Operand) -> Result<Slot, Refusal> {
        match operand {
            Operand::Register(register) => Ok(self.slot_of(*register)),
            _ => Err(self.refuse("a result needs a register")),
        }
    }

    /// Where several results go.
    pub(super) fn targets(&self, operands: &[Operand]) -> Result<[Slot; 4], Refusal> {
        let mut slots = [ZERO; 4];
        for (slot, operand) in slots.iter_mut().zip(operands) {
            *slot = self.target(operand)?;
        }
        Ok(slots)
    }

    /// Where an operand is found.
    pub(super) fn source(&mut self, operand: &Operand) -> Result<Slot, Refusal> {
        match operand {
            Operand::Register(register) => Ok(self.slot_of(*register)),
            Operand::Number(bits) => self.constant(*bits),
            Operand::Name(name) => match self.shared.iter().find(|place| place.name == *name) {
                Some(place) => self.constant(place.offset as u64),
                None => match special(name) {
                    Some(special) => self.special(special),
                    None => Err(self.refuse(format!("`{name}` is not supported"))),
                },
            },
            _ => Err(self.refuse("this kind of operand is not supported here")),
        }
    }

    /// Where up to four operands are found.
    pub(super) fn sources(&mut self, operands: &[Operand]) -> Result<[Slot; 4], Refusal> {
        let mut slots = [ZERO; 4];
        if operands.len() > slots.len() {
            return Err(self.refuse("too many operands"));
        }
        for (slot, operand) in slots.iter_mut().zip(operands) {
            *slot = self.source(operand)?;
        }
        Ok(slots)
    }

    /// The register of a constant.
    pub(super) fn constant(&mut self, bits: u64) -> Result<Slot, Refusal> {
        if let Some(&slot) = self.constants.get(&bits) {
            return Ok(slot);
        }
        let slot = self.extra(bits)?;
        self.constants.insert(bits, slot);
        Ok(slot)
    }

    /// The register of a special register.
    pub(super) fn special(&mut self, special: Special) -> Result<Slot, Refusal> {
        if let Some(&(slot, _)) = self.specials.iter().find(|(_, other)| *other == special) {
            return Ok(slot);
        }
        let slot = self.extra(0)?;
        self.specials.push((slot, special));
        Ok(slot)
    }

    /// One more register, with what it holds at first.
    fn extra(&mut self, bits: u64) -> Result<Slot, Refusal> {
        let slot = Slot::try_from(self.registers.len()).map_err(|_| self.refuse("too many registers"))?;
        self.registers.push(bits);
        Ok(slot)
    }
}

/// The special register of a name.
fn special(name: &str) -> Option<Special> {
    let (name, axis) = name.split_once('.')?;
    let axis = ["x", "y", "z"].iter().position(|&other| other == axis)?;
    Some(match name {
        "%tid" => Special::Thread(axis),
        "%ntid" => Special::BlockExtent(axis),
        "%ctaid" => Special::Block(axis),
        "%nctaid" => Special::GridExtent(axis),
        _ => return None,
    })
}
