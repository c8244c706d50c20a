//! From statements to instructions.

use super::{Instruction, Layout, Operation, Parameter, Program, Slot, Special, ZERO, link::START};
use crate::{
    alu::{Function, negate},
    error::Refusal,
    ptx::{Kernel, Operand, Statement, Type, Variable},
};
use std::collections::HashMap;

/// Registers for what an instruction keeps between its steps.
const SCRATCH: usize = 8;

/// A kernel that is being decoded.
pub(super) struct Decoder<'a> {
    kernel: &'a Kernel,
    /// Addresses of variables outside of the kernel.
    globals: &'a HashMap<String, u64>,
    code: Vec<Instruction>,
    registers: Vec<u64>,
    constants: HashMap<u64, Slot>,
    specials: Vec<(Slot, Special)>,
    shared: Layout,
    local: Layout,
    parameters: Vec<(String, Parameter)>,
    /// The guard of the statement that is being decoded.
    guard: (Slot, bool),
    line: u32,
    scratch: usize,
    pub(super) granule: usize,
}

/// Decodes a kernel.
pub(crate) fn decode(
    kernel: &Kernel,
    shared: &[Variable],
    globals: &HashMap<String, u64>,
) -> Result<Program, Refusal> {
    let mut decoder = Decoder::new(kernel, shared, globals);
    if decoder.registers.len() > usize::from(u16::MAX) {
        return Err(Refusal::new(kernel.line, "too many registers"));
    }
    let mut starts = Vec::with_capacity(kernel.statements.len() + 1);
    for statement in &kernel.statements {
        starts.push(decoder.code.len() as u32);
        decoder.statement(statement)?;
    }
    starts.push(decoder.code.len() as u32);
    decoder.line = kernel.statements.last().map_or(kernel.line, |statement| statement.line);
    decoder.guard = (ZERO, true);
    decoder.push(Operation::Exit);
    for instruction in &mut decoder.code {
        if let Operation::Branch { to } = &mut instruction.operation {
            *to = starts[*to as usize];
        }
    }
    Ok(decoder.finish())
}

impl<'a> Decoder<'a> {
    fn new(kernel: &'a Kernel, shared: &[Variable], globals: &'a HashMap<String, u64>) -> Self {
        let mut offset = 0_usize;
        let place = |variable: &Variable| {
            let size = variable.size.unwrap_or(0);
            let parameter = Parameter { offset: offset.next_multiple_of(variable.align.max(1)), size };
            offset = parameter.offset + size;
            (variable.name.clone(), parameter)
        };
        Self {
            kernel,
            globals,
            code: Vec::new(),
            registers: vec![0; 1 + kernel.registers.len() + SCRATCH],
            constants: HashMap::from([(0, ZERO)]),
            specials: Vec::new(),
            shared: Layout::new(kernel.shared.iter().chain(shared)),
            local: Layout::new(kernel.local.iter()),
            parameters: kernel.parameters.iter().map(place).collect(),
            guard: (ZERO, true),
            line: kernel.line,
            scratch: 0,
            granule: 4,
        }
    }

    fn finish(self) -> Program {
        Program {
            name: self.kernel.name.clone(),
            code: self.code,
            registers: self.registers,
            specials: self.specials,
            parameters: self.parameters.into_iter().map(|(_, parameter)| parameter).collect(),
            max_threads: self.kernel.max_threads,
            shared: self.shared,
            local: self.local,
            granule: self.granule,
        }
    }

    /// Decodes a statement.
    fn statement(&mut self, statement: &Statement) -> Result<(), Refusal> {
        self.line = statement.line;
        self.scratch = 0;
        self.guard = match statement.guard {
            Some((register, negated)) => (self.slot_of(register), negated),
            None => (ZERO, true),
        };
        let opcode: Vec<&str> = statement.opcode.iter().map(String::as_str).collect();
        let known = self.flow(&opcode, &statement.operands)?
            || self.memory(&opcode, &statement.operands)?
            || self.together(&opcode, &statement.operands)?
            || self.computation(&opcode, &statement.operands)?;
        match known {
            true => Ok(()),
            false => Err(self.refuse(format!("`{}` is not supported", opcode.join(".")))),
        }
    }

    /// Branches, ends, and what has no effect here.
    fn flow(&mut self, opcode: &[&str], operands: &[Operand]) -> Result<bool, Refusal> {
        let operation = match (opcode, operands) {
            (["bra"] | ["bra", "uni"], [Operand::Name(label)]) => match self.kernel.labels.get(label) {
                Some(&to) => Operation::Branch { to: to as u32 },
                None => return Err(self.refuse("an unknown label")),
            },
            (["ret" | "exit"] | ["ret", "uni"], []) => Operation::Exit,
            (["trap"], []) => Operation::Trap,
            (["membar" | "fence", ..], []) | (["nanosleep", "u32"], [_]) => Operation::Nothing,
            (["mov", "u64" | "u32" | "b64" | "b32"], [to, Operand::Name(name)])
                if matches!(name.as_str(), "%clock64" | "%clock" | "%globaltimer") =>
            {
                Operation::Time { to: self.target(to)? }
            }
            _ => return Ok(false),
        };
        self.push(operation);
        Ok(true)
    }

    /// Adds an instruction under the guard of its statement.
    pub(super) fn push(&mut self, operation: Operation) {
        let (guard, unless) = self.guard;
        self.code.push(Instruction { guard, unless, line: self.line, operation });
    }

    /// Whether the statement depends on a register.
    pub(super) fn is_guard(&self, slot: Slot) -> bool {
        self.guard.0 == slot
    }

    /// Adds a computation.
    pub(super) fn compute(&mut self, function: Function, to: Slot, from: [Slot; 4]) {
        self.push(Operation::Compute { function, to, from });
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

    /// A register that nobody else uses in this statement.
    pub(super) fn scratch(&mut self) -> Slot {
        self.scratch = (self.scratch + 1) % SCRATCH;
        (1 + self.kernel.registers.len() + self.scratch) as Slot
    }

    /// Where a result goes.
    pub(super) fn target(&mut self, operand: &Operand) -> Result<Slot, Refusal> {
        match operand {
            Operand::Register(register) => Ok(self.slot_of(*register)),
            Operand::Sink => Ok(self.scratch()),
            _ => Err(self.refuse("a result needs a register")),
        }
    }

    /// Where an operand is found.
    pub(super) fn source(&mut self, operand: &Operand) -> Result<Slot, Refusal> {
        match operand {
            Operand::Register(register) => Ok(self.slot_of(*register)),
            Operand::Number(bits) => self.constant(*bits),
            Operand::Not(predicate) => {
                let from = self.source(predicate)?;
                let to = self.scratch();
                self.compute(negate, to, [from, ZERO, ZERO, ZERO]);
                Ok(to)
            }
            Operand::Name(name) => self.named(name),
            _ => Err(self.refuse("this kind of operand is not supported here")),
        }
    }

    /// Several operands.
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

    /// One more register, with what it holds at first.
    fn extra(&mut self, bits: u64) -> Result<Slot, Refusal> {
        let slot = Slot::try_from(self.registers.len()).map_err(|_| self.refuse("too many registers"))?;
        self.registers.push(bits);
        Ok(slot)
    }

    /// A special register, or the address of a variable.
    fn named(&mut self, name: &str) -> Result<Slot, Refusal> {
        if let Some(address) = self.address(name) {
            return self.constant(address);
        }
        let Some(special) = special(name) else {
            return Err(self.refuse(format!("`{name}` is not supported")));
        };
        self.special(special)
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

    /// The address of a variable in its state space.
    fn address(&self, name: &str) -> Option<u64> {
        let parameter = || self.parameters.iter().find(|(other, _)| other == name);
        (self.shared.address(name))
            .or_else(|| self.local.address(name))
            .or_else(|| parameter().map(|(_, parameter)| (START + parameter.offset) as u64))
            .or_else(|| self.globals.get(name).copied())
    }
}

/// The special register of a name.
fn special(name: &str) -> Option<Special> {
    use super::LaneMask::{AtLeast, AtMost, Equal, Greater, Less};
    let along = |axis: &str| ["x", "y", "z"].iter().position(|&other| other == axis).map(|at| at as u8);
    if let Some((name, axis)) = name.split_once('.') {
        let axis = along(axis)?;
        return Some(match name {
            "%tid" => Special::Thread(axis),
            "%ntid" => Special::BlockExtent(axis),
            "%ctaid" => Special::Block(axis),
            "%nctaid" => Special::GridExtent(axis),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Special::Lane,
        "%warpid" => Special::Warp,
        "%nwarpid" => Special::WarpCount,
        "%lanemask_eq" => Special::LaneMask(Equal),
        "%lanemask_lt" => Special::LaneMask(Less),
        "%lanemask_le" => Special::LaneMask(AtMost),
        "%lanemask_gt" => Special::LaneMask(Greater),
        "%lanemask_ge" => Special::LaneMask(AtLeast),
        _ => return None,
    })
}
