//! Runs a thread until it has to wait.

use super::{block::Block, copies::Copies};
use crate::{
    error::Wrong,
    program::{Operation, extended},
};

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
        let mut left = TURN;
        while left > 0 {
            left -= 1;
            let instruction = &self.program.code[thread.next];
            thread.next += 1;
            if (registers[usize::from(instruction.guard)] != 0) == instruction.unless {
                continue;
            }
            let at = |slot: u16| usize::from(slot);
            match &instruction.operation {
                Operation::Compute { function, to, from: [a, b, c, d] } => {
                    let [a, b, c, d] = [a, b, c, d].map(|&slot| registers[at(slot)]);
                    registers[at(*to)] = function(a, b, c, d);
                }
                Operation::Branch { to } => thread.next = *to as usize,
                Operation::Load { access, to, sign } => {
                    let size = usize::from(access.size);
                    let address = registers[at(access.base)].wrapping_add(access.offset as u64);
                    let all = size * usize::from(access.count);
                    let mut value = spaces.load(number, access.space, address, all)?;
                    for &to in &to[..usize::from(access.count)] {
                        let element = value as u64 & (!0 >> (64 - 8 * access.size));
                        registers[at(to)] = match sign {
                            Some(register) => extended(element, access.size, *register),
                            None => element,
                        };
                        value = value.checked_shr(8 * u32::from(access.size)).unwrap_or(0);
                    }
                }
                Operation::Store { access, from } => {
                    let address = registers[at(access.base)].wrapping_add(access.offset as u64);
                    let all = usize::from(access.size) * usize::from(access.count);
                    let mut value = 0;
                    for &from in from[..usize::from(access.count)].iter().rev() {
                        let element = registers[at(from)] & (!0 >> (64 - 8 * access.size));
                        value = value << (8 * access.size) | u128::from(element);
                    }
                    spaces.store(number, access.space, address, all, value)?;
                }
                Operation::Atomic(atomic) => {
                    let access = &atomic.access;
                    let address = registers[at(access.base)].wrapping_add(access.offset as u64);
                    let [first, second] = atomic.from.map(|slot| registers[at(slot)]);
                    let new = |old| (atomic.function)(old, first, second, 0);
                    let old =
                        spaces.exchange(number, access.space, address, usize::from(access.size), new)?;
                    registers[at(atomic.to)] = old;
                }
                Operation::CopyLater(copy) => {
                    let to = registers[at(copy.to.base)].wrapping_add(copy.to.offset as u64);
                    let from = registers[at(copy.from.base)].wrapping_add(copy.from.offset as u64);
                    let read = registers[at(copy.read)] as u32 as usize;
                    let pending = spaces.start_copy(number, to, from, usize::from(copy.to.size), read)?;
                    thread.copies.start(pending);
                }
                Operation::CloseGroup => thread.copies.close_group(),
                Operation::WaitGroups { but } => {
                    spaces.finish_copies(number, &thread.copies.finish_groups(*but))?;
                }
                Operation::WaitAll => spaces.finish_copies(number, &thread.copies.finish_all())?,
                Operation::Barrier(_) => {
                    thread.state = State::Barrier;
                    break;
                }
                Operation::Together(_) => {
                    thread.state = State::Together;
                    break;
                }
                Operation::Time { to } => registers[at(*to)] = self.executed + (TURN - left),
                Operation::Nothing => {}
                Operation::Trap => return Err(Wrong::failed("the kernel says that it went wrong")),
                Operation::Exit => {
                    spaces.finish_copies(number, &thread.copies.finish_all())?;
                    thread.state = State::Done;
                    break;
                }
            }
        }
        self.executed += TURN - left;
        Ok(())
    }
}
