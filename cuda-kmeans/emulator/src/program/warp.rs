//! Decodes what threads do together.

use super::{
    Agreement, Barrier, LaneMask, Operation, Shuffle, Slot, Space, Special, Task, Tiles, Together, Vote,
    ZERO, decode::Decoder,
};
use crate::{
    alu::{bitwise, integer},
    error::Refusal,
    ptx::{Operand, Type},
};

/// All lanes of a warp.
const ALL: u64 = 0xFFFF_FFFF;

impl Decoder<'_> {
    /// Decodes what threads do together; false if the opcode is nothing of that.
    pub(super) fn together(&mut self, opcode: &[&str], operands: &[Operand]) -> Result<bool, Refusal> {
        match opcode {
            ["bar" | "barrier", "warp", "sync"] => self.task(operands, |_, rest| match rest {
                [] => Ok(Some(Task::Wait)),
                _ => Ok(None),
            }),
            ["bar" | "barrier", rest @ ..] => self.barrier(opcode[0] == "bar", rest, operands),
            ["shfl", "sync", mode, "b32"] => self.task(operands, |decoder, rest| decoder.shuffle(mode, rest)),
            ["vote", "sync", kind, "pred" | "b32"] => {
                self.task(operands, |decoder, rest| decoder.vote(kind, rest))
            }
            ["match", kind, "sync", width @ ("b32" | "b64")] => {
                self.task(operands, |decoder, rest| decoder.matches(kind, width, rest))
            }
            ["redux", "sync", name, type_] => {
                self.task(operands, |decoder, rest| decoder.reduction(name, type_, rest))
            }
            ["activemask", "b32"] => self.active(operands),
            ["ldmatrix", "sync", "aligned", "m8n8", rest @ ..] => self.matrices(rest, operands),
            ["mma", "sync", "aligned", rest @ ..] => self.product(rest, operands),
            _ => Ok(false),
        }
    }

    /// A task of the lanes that the last operand says.
    fn task(
        &mut self,
        operands: &[Operand],
        task: impl FnOnce(&mut Self, &[Operand]) -> Result<Option<Task>, Refusal>,
    ) -> Result<bool, Refusal> {
        let [rest @ .., members] = operands else { return Ok(false) };
        let members = self.source(members)?;
        let Some(task) = task(self, rest)? else { return Ok(false) };
        self.push(Operation::Together(Box::new(Together { members, task })));
        Ok(true)
    }

    /// A task of all lanes.
    fn task_of_all(&mut self, task: Task) -> Result<bool, Refusal> {
        let members = self.constant(ALL)?;
        self.push(Operation::Together(Box::new(Together { members, task })));
        Ok(true)
    }

    /// A result, and one that may come with it.
    fn targets(&mut self, operand: &Operand) -> Result<(Slot, Slot), Refusal> {
        match operand {
            Operand::Pair(first, second) => Ok((self.target(first)?, self.target(second)?)),
            _ => Ok((self.target(operand)?, self.scratch())),
        }
    }

    fn shuffle(&mut self, mode: &str, operands: &[Operand]) -> Result<Option<Task>, Refusal> {
        let mode = match mode {
            "up" => Shuffle::Up,
            "down" => Shuffle::Down,
            "bfly" => Shuffle::Butterfly,
            "idx" => Shuffle::Index,
            _ => return Ok(None),
        };
        let [to, value, lane, clamp] = operands else { return Ok(None) };
        let (to, valid) = self.targets(to)?;
        let (value, lane, clamp) = (self.source(value)?, self.source(lane)?, self.source(clamp)?);
        Ok(Some(Task::Shuffle { mode, to, valid, value, lane, clamp }))
    }

    fn vote(&mut self, kind: &str, operands: &[Operand]) -> Result<Option<Task>, Refusal> {
        let [to, predicate] = operands else { return Ok(None) };
        let (to, predicate) = (self.target(to)?, self.source(predicate)?);
        let kind = match kind {
            "ballot" => return Ok(Some(Task::Ballot { to, predicate })),
            "all" => Agreement::All,
            "any" => Agreement::Any,
            "uni" => Agreement::Uniform,
            _ => return Ok(None),
        };
        Ok(Some(Task::Vote { to, predicate, kind }))
    }

    fn matches(&mut self, kind: &str, width: &str, operands: &[Operand]) -> Result<Option<Task>, Refusal> {
        let [to, value] = operands else { return Ok(None) };
        let mut value = self.source(value)?;
        if width == "b32" {
            let (from, mask) = (value, self.constant(ALL)?);
            value = self.scratch();
            self.compute(|a, mask, _, _| a & mask, value, [from, mask, ZERO, ZERO]);
        }
        let (to, same) = self.targets(to)?;
        Ok(match kind {
            "any" => Some(Task::MatchAny { to, value }),
            "all" => Some(Task::MatchAll { to, same, value }),
            _ => None,
        })
    }

    fn reduction(&mut self, name: &str, type_: &str, operands: &[Operand]) -> Result<Option<Task>, Refusal> {
        let ([to, value], Some(type_)) = (operands, Type::parse(type_)) else { return Ok(None) };
        let function = match (name, type_) {
            ("add" | "min" | "max", Type::Unsigned(32) | Type::Signed(32)) => integer(name, &[], type_),
            ("and" | "or" | "xor", Type::Bits(32)) => bitwise(name, &[], type_),
            _ => None,
        };
        let (to, value) = (self.target(to)?, self.source(value)?);
        Ok(function.map(|function| Task::Reduce { function, to, value }))
    }

    /// Which lanes are active is up to the machine. Here each thread is on its own.
    fn active(&mut self, operands: &[Operand]) -> Result<bool, Refusal> {
        let [to] = operands else { return Ok(false) };
        let (own, to) = (self.special(Special::LaneMask(LaneMask::Equal))?, self.target(to)?);
        self.compute(|a, _, _, _| a, to, [own, ZERO, ZERO, ZERO]);
        Ok(true)
    }

    fn barrier(&mut self, short: bool, modifiers: &[&str], operands: &[Operand]) -> Result<bool, Refusal> {
        let modifiers = modifiers.strip_prefix(&["cta"]).unwrap_or(modifiers);
        let said = modifiers.contains(&"aligned");
        let modifiers: Vec<&str> =
            modifiers.iter().copied().filter(|&modifier| modifier != "aligned").collect();
        let aligned = said || short;
        let barrier = match (&modifiers[..], operands) {
            (["sync"], [name]) => {
                let name = self.source(name)?;
                Barrier { name, vote: Vote::Nothing, to: ZERO, predicate: ZERO, aligned }
            }
            (["red", how, "u32" | "pred"], [to, name, predicate]) => {
                let vote = match *how {
                    "popc" => Vote::Count,
                    "and" => Vote::All,
                    "or" => Vote::Any,
                    _ => return Ok(false),
                };
                let (to, name, predicate) = (self.target(to)?, self.source(name)?, self.source(predicate)?);
                Barrier { name, vote, to, predicate, aligned }
            }
            (["sync"], [_, _]) | (["red", ..], [_, _, _, _]) => {
                return Err(self.refuse("barriers of a part of the block are not supported"));
            }
            _ => return Ok(false),
        };
        self.push(Operation::Barrier(Box::new(barrier)));
        Ok(true)
    }

    /// `ldmatrix`.
    fn matrices(&mut self, modifiers: &[&str], operands: &[Operand]) -> Result<bool, Refusal> {
        let (count, transposed) = match modifiers {
            [count, "shared" | "shared::cta", "b16"] => (*count, false),
            [count, "trans", "shared" | "shared::cta", "b16"] => (*count, true),
            _ => return Ok(false),
        };
        let count = match count {
            "x1" => 1,
            "x2" => 2,
            "x4" => 4,
            _ => return Ok(false),
        };
        let [Operand::Vector(parts), address] = operands else { return Ok(false) };
        if parts.len() != count {
            return Err(self.refuse("the vector has another length"));
        }
        let mut to = [ZERO; 4];
        for (slot, part) in to.iter_mut().zip(parts) {
            *slot = self.target(part)?;
        }
        let mut access = self.access(Space::Shared, 16, 1, address)?;
        access.count = count as u8;
        self.task_of_all(Task::LoadMatrices { access, to, transposed })
    }

    /// `mma`.
    fn product(&mut self, modifiers: &[&str], operands: &[Operand]) -> Result<bool, Refusal> {
        let kind = match modifiers {
            ["m16n8k8", "row", "col", "f32", "tf32", "tf32", "f32"] => Tiles::Tensor,
            ["m16n8k16", "row", "col", "f32", "bf16", "bf16", "f32"] => Tiles::Brain,
            _ => return Ok(false),
        };
        let [Operand::Vector(to), Operand::Vector(a), Operand::Vector(b), Operand::Vector(c)] = operands
        else {
            return Ok(false);
        };
        if [to.len(), a.len(), b.len(), c.len()] != [4, 4, 2, 4] {
            return Err(self.refuse("the vectors have other lengths"));
        }
        let (a, [b0, b1, ..], c) = (self.sources(a)?, self.sources(b)?, self.sources(c)?);
        let mut results = [ZERO; 4];
        for (slot, part) in results.iter_mut().zip(to) {
            *slot = self.target(part)?;
        }
        self.task_of_all(Task::Multiply { kind, to: results, a, b: [b0, b1], c })
    }
}
