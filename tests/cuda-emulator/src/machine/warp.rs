//! What lanes of a warp do together.

use super::{
    LANES,
    block::{Block, Failed},
    mma::{self, Fragments},
    order::lanes,
    shared::Kind,
    spaces::Spaces,
    thread::State,
};
use crate::{
    error::Wrong,
    program::{Access, Operation, Program, Shuffle, Task, Together},
};

/// Lanes that do something together.
struct Lanes {
    /// The thread number of lane zero.
    first: usize,
    members: u32,
}

impl Block<'_> {
    /// Does what a thread waits to do with others, if all have come.
    pub(super) fn try_together(&mut self, number: u16) -> Result<(), Failed> {
        let program = self.program;
        let own = usize::from(number);
        let next = self.threads[own].next;
        let Some(together) = together_at(program, next) else { return Ok(()) };
        let members = self.register(own, together.members) as u32;
        let first = own / LANES * LANES;
        if members >> (own - first) & 1 == 0 {
            let what = format!("the thread is not among the lanes that it names ({members:#010x})");
            return Err((number, Wrong::failed(what)));
        }
        for lane in lanes(members) {
            let Some(thread) = self.threads.get(first + lane).filter(|thread| thread.state != State::Done)
            else {
                let what = format!("lane {lane} of {members:#010x} has ended or never was");
                return Err((number, Wrong::failed(what)));
            };
            let other = together_at(program, thread.next).filter(|_| thread.state == State::Together);
            // Lanes may come to a barrier of the warp at different places.
            let meets = other.is_some_and(|other| {
                (thread.next == next || matches!((&together.task, &other.task), (Task::Wait, Task::Wait)))
                    && self.register(first + lane, other.members) as u32 == members
            });
            if !meets {
                return Ok(());
            }
        }
        let group = Lanes { first, members };
        self.spaces.order.meet(first / LANES, members);
        self.perform(&together.task, &group)?;
        for lane in lanes(members) {
            self.threads[first + lane].state = State::Ready;
        }
        Ok(())
    }

    /// Does it.
    fn perform(&mut self, task: &Task, group: &Lanes) -> Result<(), Failed> {
        match task {
            Task::Wait => {}
            Task::Shuffle { mode, to, valid, value, lane, clamp } => {
                let sources = [*value, *lane, *clamp].map(|slot| self.gather(group, slot));
                self.shuffle(*mode, group, *to, *valid, &sources)?;
            }
            Task::Ballot { to, predicate } => {
                let ballot = self.holding(group, *predicate);
                self.scatter(group, *to, |_| u64::from(ballot));
            }
            Task::Match { to, value } => {
                let values = self.gather(group, *value);
                self.scatter(group, *to, |lane| u64::from(equal_to(&values, values[lane], group.members)));
            }
            Task::LoadMatrices { access, to } => self.load_matrices(group, *access, to)?,
            Task::Multiply { to, a, b, c } => {
                let mut fragments = Fragments {
                    a: a.map(|slot| self.gather(group, slot)),
                    b: b.map(|slot| self.gather(group, slot)),
                    c: c.map(|slot| self.gather(group, slot)),
                };
                mma::multiply(&mut fragments)
                    .map_err(|(lane, wrong)| ((group.first + lane) as u16, wrong))?;
                for (slot, values) in to.iter().zip(&fragments.c) {
                    self.scatter(group, *slot, |lane| values[lane]);
                }
            }
        }
        Ok(())
    }

    /// The values of a register in all lanes.
    fn gather(&self, group: &Lanes, slot: u16) -> [u64; LANES] {
        let mut values = [0; LANES];
        for lane in lanes(group.members) {
            values[lane] = self.register(group.first + lane, slot);
        }
        values
    }

    /// Sets a register in all lanes.
    fn scatter(&mut self, group: &Lanes, slot: u16, value: impl Fn(usize) -> u64) {
        for lane in lanes(group.members) {
            self.set_register(group.first + lane, slot, value(lane));
        }
    }

    /// The lanes whose predicate holds.
    fn holding(&self, group: &Lanes, predicate: u16) -> u32 {
        let holds = |&lane: &usize| self.register(group.first + lane, predicate) != 0;
        lanes(group.members).filter(holds).fold(0, |all, lane| all | 1 << lane)
    }

    /// Moves values between lanes. Sources are values, lanes, and bounds.
    fn shuffle(
        &mut self,
        mode: Shuffle,
        group: &Lanes,
        to: u16,
        valid: u16,
        [values, by, clamps]: &[[u64; LANES]; 3],
    ) -> Result<(), Failed> {
        for lane in lanes(group.members) {
            let (by, clamp) = (by[lane] as i32 & 31, clamps[lane] as i32);
            let (bound, segment, own) = (clamp & 31, clamp >> 8 & 31, lane as i32);
            let (least, most) = (own & segment, own & segment | bound & !segment);
            let (from, inside) = match mode {
                Shuffle::Up => (own - by, own - by >= most),
                Shuffle::Butterfly => (own ^ by, own ^ by <= most),
                Shuffle::Index => (least | by & !segment, least | by & !segment <= most),
            };
            let from = if inside { from as usize } else { lane };
            if group.members >> from & 1 == 0 {
                let what = format!("the shuffle reads lane {from}, which is not in {:#010x}", group.members);
                return Err(((group.first + lane) as u16, Wrong::failed(what)));
            }
            self.set_register(group.first + lane, to, values[from] & 0xFFFF_FFFF);
            self.set_register(group.first + lane, valid, u64::from(inside));
        }
        Ok(())
    }

    /// Loads matrices of 8 by 8 halves of words. Lanes give the addresses of rows.
    fn load_matrices(&mut self, group: &Lanes, access: Access, to: &[u16; 4]) -> Result<(), Failed> {
        for (matrix, &to) in to.iter().enumerate() {
            let (mut rows, mut places) = ([0_u128; 8], [0; 8]);
            for (row, (value, place)) in rows.iter_mut().zip(&mut places).enumerate() {
                let number = group.first + 8 * matrix + row;
                let address = self.register(number, access.base).wrapping_add(access.offset as u64);
                let Spaces { shared, order, .. } = &mut self.spaces;
                let at = shared.touch(Kind::Read, number as u16, address, 16, order);
                let at = at.map_err(|wrong| (number as u16, wrong))?;
                (*value, *place) = (shared.get(at, 16), at / 16);
            }
            self.conflicts += bank_conflicts(&places);
            self.scatter(group, to, |lane| (rows[lane / 4] >> (32 * (lane % 4))) as u64 & 0xFFFF_FFFF);
        }
        self.spaces.order.meet(group.first / LANES, group.members);
        Ok(())
    }
}

/// The common task before an instruction.
fn together_at(program: &Program, next: usize) -> Option<&Together> {
    match &program.code.get(next.checked_sub(1)?)?.operation {
        Operation::Together(together) => Some(together),
        _ => None,
    }
}

/// The lanes that have a value.
fn equal_to(values: &[u64; LANES], value: u64, members: u32) -> u32 {
    lanes(members).filter(|&lane| values[lane] == value).fold(0, |all, lane| all | 1 << lane)
}

/// How many accesses wait for others: rows of 16 bytes are in one of eight groups of banks.
fn bank_conflicts(places: &[usize; 8]) -> u64 {
    let mut rows = [0_u64; 8];
    for (number, place) in places.iter().enumerate() {
        if !places[..number].contains(place) {
            rows[place % 8] += 1;
        }
    }
    rows.iter().max().map_or(0, |most| most - 1)
}
