//! Decodes what threads do together.

use super::{Operation, Shuffle, Space, Task, Together, decode::Decoder};
use crate::{error::Refusal, ptx::Operand};

/// All lanes of a warp.
const ALL: u64 = 0xFFFF_FFFF;

impl Decoder<'_> {
    /// Decodes what threads do together; `None` if the opcode is nothing of that.
    pub(super) fn together(
        &mut self,
        opcode: &[&str],
        operands: &[Operand],
    ) -> Result<Option<Operation>, Refusal> {
        let (task, members) = match (opcode, operands) {
            (["bar", "sync"], [Operand::Number(0)]) => return Ok(Some(Operation::Barrier)),
            (["bar", "warp", "sync"], [members]) => (Task::Wait, members),
            (["shfl", "sync", mode, "b32"], [to, value, lane, clamp, members]) => {
                match self.shuffle(mode, to, [value, lane, clamp])? {
                    Some(task) => (task, members),
                    None => return Ok(None),
                }
            }
            (["vote", "sync", "ballot", "b32"], [to, predicate, members]) => {
                (Task::Ballot { to: self.target(to)?, predicate: self.source(predicate)? }, members)
            }
            (["match", "any", "sync", "b32"], [to, value, members]) => {
                (Task::Match { to: self.target(to)?, value: self.source(value)? }, members)
            }
            (["ldmatrix", "sync", "aligned", "m8n8", "x4", "shared", "b16"], [to, address]) => {
                let to = self.targets(self.parts(to, 4)?)?;
                let access = self.access(Space::Shared, 16, 4, address)?;
                (Task::LoadMatrices { access, to }, &Operand::Number(ALL))
            }
            (
                ["mma", "sync", "aligned", "m16n8k8", "row", "col", "f32", "tf32", "tf32", "f32"],
                [to, a, b, c],
            ) => {
                let to = self.targets(self.parts(to, 4)?)?;
                let a = self.sources(self.parts(a, 4)?)?;
                let [b0, b1, ..] = self.sources(self.parts(b, 2)?)?;
                let c = self.sources(self.parts(c, 4)?)?;
                (Task::Multiply { to, a, b: [b0, b1], c }, &Operand::Number(ALL))
            }
            _ => return Ok(None),
        };
        let members = self.source(members)?;
        Ok(Some(Operation::Together(Box::new(Together { members, task }))))
    }

    /// `shfl`, which gives a value, and whether it is another lane's.
    fn shuffle(&mut self, mode: &str, to: &Operand, from: [&Operand; 3]) -> Result<Option<Task>, Refusal> {
        let mode = match mode {
            "up" => Shuffle::Up,
            "bfly" => Shuffle::Butterfly,
            "idx" => Shuffle::Index,
            _ => return Ok(None),
        };
        let Operand::Pair(to, valid) = to else { return Ok(None) };
        let (to, valid) = (self.target(to)?, self.target(valid)?);
        let [value, lane, clamp] = from;
        let (value, lane, clamp) = (self.source(value)?, self.source(lane)?, self.source(clamp)?);
        Ok(Some(Task::Shuffle { mode, to, valid, value, lane, clamp }))
    }
}
