//! Runs a thread until it has to wait.

use super::{block::Block, copies::Copies};
use crate::{error::Wrong, program::Operation};

/// How many instructions a thread may run before others get their turn.
const TURN: u64 = 1 << 20;

/// A thread.
#[derive(Debug)]
pub(super) struct Thread {
    /// The next instruction.
    pub(super) next: usize,
    pub(super) state: State,
    pub(super) copies: Copies,
}

/// What a thread waits for, if for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// At a barrier of the block.
    Barrier,
    /// For other lanes.
    Together,
    Done,
}

impl Block<'_> {
    /// Runs a thread until it waits, ends, or has had its turn.
    pub(super) fn run_thread(&mut self, number: u16) -> Result<(), Box<Wrong>> {
        let slots = self.program.registers.len();
        let thread = &mut self.threads[usize::from(number)];
        let registers = &mut self.registers[usize::from(number) * slots..][..slots];
        let spaces = &mut self.spaces;
        let (mut next, mut left) = (thread.next, TURN);
        let mut go = || loop {
            if left == 0 {
                return Ok(State::Ready);
            }
            left -= 1;
            let instruction = &self.program.code[next];
            next += 1;
            if (registers[usize::from(instruction.guard)] != 0) == instruction.unless {
                continue;
            }
            let at = |slot: u16| usize::from(slot);
            match &instruction.operation {
                Operation::Compute { function, to, from: [a, b, c, d] } => {
                    let [a, b, c, d] = [a, b, c, d].map(|&slot| registers[at(slot)]);
                    registers[at(*to)] = function(a, b, c, d);
                }
                Operation::Split { low, high, from } => {
                    let value = registers[at(*from)];
                    registers[at(*low)] = value & 0xFFFF_FFFF;
                    registers[at(*high)] = value >> 32;
                }
                Operation::Branch { to } => next = *to as usize,
                Operation::Load { access, to } => {
                    let size = access.size * access.count;
                    let address = registers[at(access.base)].wrapping_add(access.offset as u64);
                    let mut value = spaces.load(number, access.space, address, size.into())?;
                    for &to in &to[..usize::from(access.count)] {
                        registers[at(to)] = value as u64 & (!0 >> (64 - 8 * access.size));
                        value >>= 8 * access.size;
                    }
                }
                Operation::Store { access, from } => {
                    let size = access.size * access.count;
                    let address = registers[at(access.base)].wrapping_add(access.offset as u64);
                    let mut value = 0;
                    for &from in from[..usize::from(access.count)].iter().rev() {
                        let element = registers[at(from)] & (!0 >> (64 - 8 * access.size));
                        value = value << (8 * access.size) | u128::from(element);
                    }
                    spaces.store(number, access.space, address, size.into(), value)?;
                }
                Operation::AtomicAdd { access, to, by } => {
                    let address = registers[at(access.base)].wrapping_add(access.offset as u64);
                    let old = spaces.global.load(address, 4)? as u32;
                    let new = old.wrapping_add(registers[at(*by)] as u32);
                    spaces.global.store(address, 4, new.into())?;
                    registers[at(*to)] = old.into();
                }
                Operation::CopyLater(copy) => {
                    let to = registers[at(copy.to.base)].wrapping_add(copy.to.offset as u64);
                    let from = registers[at(copy.from.base)].wrapping_add(copy.from.offset as u64);
                    let read = registers[at(copy.read)] as u32 as usize;
                    thread.copies.start(spaces.start_copy(number, to, from, read)?);
                }
                Operation::CloseGroup => thread.copies.close_group(),
                Operation::WaitGroups { but } => {
                    spaces.finish_copies(number, &thread.copies.finish_groups(*but))?;
                }
                Operation::Barrier => return Ok(State::Barrier),
                Operation::Together(_) => return Ok(State::Together),
                Operation::Exit => {
                    thread.copies.close_group();
                    spaces.finish_copies(number, &thread.copies.finish_groups(0))?;
                    return Ok(State::Done);
                }
            }
        };
        // Kept apart until now, as all goes through the processor's registers then.
        let ended: Result<State, Box<Wrong>> = go();
        thread.next = next;
        self.executed += TURN - left;
        thread.state = ended?;
        Ok(())
    }
}
