//! Shared memory of a block, and who accessed it when.

use super::{
    LANES,
    memory::{number_at, set_number_at},
    order::{Order, Stamp, lanes, same_warp},
};
use crate::{error::Wrong, program::Place};

/// No thread, and no set of lanes.
const NOBODY: u16 = u16::MAX;
const NO_SET: u32 = u32::MAX;

/// Bytes whose accesses are not told apart.
const GRANULE: usize = 4;

/// Shared memory.
#[derive(Debug)]
pub(super) struct Shared {
    bytes: Vec<u8>,
    granules: Vec<Granule>,
    /// The number of the block.
    block: u32,
    /// Clocks of lanes, for granules that several lanes of a warp accessed since the last barrier of the block.
    sets: Vec<[u32; LANES]>,
    epoch: u32,
}

/// How memory is accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// What is known of [`GRANULE`] bytes.
#[derive(Debug, Clone, Copy)]
struct Granule {
    /// Whether it belongs to a variable.
    known: bool,
    /// The last block that wrote it.
    written: u32,
    /// The thread whose copy into it has not been awaited.
    copied: u16,
    write: Stamp,
    reads: Readers,
}

/// Who has read since the last barrier of the block.
#[derive(Debug, Clone, Copy)]
struct Readers {
    first: Stamp,
    /// More lanes of the same warp.
    set: u32,
    /// A thread of another warp.
    other: u16,
}

const UNREAD: Readers = Readers { first: Stamp::NEVER, set: NO_SET, other: NOBODY };

impl Shared {
    /// Memory with these variables.
    pub(super) fn new(variables: &[Place]) -> Self {
        let unused = Granule { known: false, written: 0, copied: NOBODY, write: Stamp::NEVER, reads: UNREAD };
        let end = variables.iter().map(|place| place.offset + place.size).max().unwrap_or(0);
        let mut granules = vec![unused; end.div_ceil(GRANULE)];
        for place in variables {
            // Of a variable that ends within a granule nobody can read the rest: accesses are of whole ones.
            for granule in &mut granules[place.offset / GRANULE..(place.offset + place.size) / GRANULE] {
                granule.known = true;
            }
        }
        Self { bytes: vec![0; GRANULE * granules.len()], granules, block: 0, sets: Vec::new(), epoch: 0 }
    }

    /// The next block: nothing is written.
    pub(super) fn next_block(&mut self) {
        self.block += 1;
    }

    /// Checks an access, and remembers it.
    pub(super) fn touch(
        &mut self,
        kind: Kind,
        thread: u16,
        address: u64,
        size: usize,
        order: &Order,
    ) -> Result<usize, Box<Wrong>> {
        let start = self.place(address, size)?;
        if self.epoch != order.epoch {
            self.epoch = order.epoch;
            self.sets.clear();
        }
        for at in start / GRANULE..(start + size) / GRANULE {
            let granule = &self.granules[at];
            if granule.copied != NOBODY {
                return Err(self.awaited(at));
            }
            if kind == Kind::Read && granule.written != self.block {
                return Err(self.unwritten(at));
            }
            if let Some((what, other)) = self.conflict(kind, thread, granule, order) {
                return Err(self.race(kind, at, what, other));
            }
            self.remember(kind, at, order.now(thread));
        }
        Ok(start)
    }

    /// Where an access is, if all of it is in variables.
    fn place(&self, address: u64, size: usize) -> Result<usize, Box<Wrong>> {
        if !address.is_multiple_of(size as u64) {
            return Err(Wrong::misaligned(address, size));
        }
        let start = usize::try_from(address).unwrap_or(usize::MAX);
        let granules = start / GRANULE..start.saturating_add(size) / GRANULE;
        match self.granules.get(granules) {
            Some(granules) if granules.iter().all(|granule| granule.known) => Ok(start),
            _ => Err(Wrong::illegal(format!("shared address {address:#x} ({size} bytes) is in no variable"))),
        }
    }

    /// An access of another thread that is not over.
    fn conflict(
        &self,
        kind: Kind,
        thread: u16,
        granule: &Granule,
        order: &Order,
    ) -> Option<(&'static str, u16)> {
        if !order.is_over(granule.write, thread) {
            return Some(("was written", granule.write.thread));
        }
        if kind == Kind::Write
            && let Some(other) = self.unfinished(&granule.reads, thread, order)
        {
            return Some(("was read", other));
        }
        None
    }

    /// A thread of a group whose access is not over.
    fn unfinished(&self, group: &Readers, thread: u16, order: &Order) -> Option<u16> {
        let first = group.first;
        if first.epoch != order.epoch {
            return None;
        }
        if group.other != NOBODY {
            return Some(if same_warp(group.other, thread) { first.thread } else { group.other });
        }
        if group.set == NO_SET || !same_warp(first.thread, thread) {
            return (!order.is_over(first, thread)).then_some(first.thread);
        }
        let base = first.thread - first.thread % LANES as u16;
        let clocks = &self.sets[group.set as usize];
        lanes(!0).find_map(|lane| {
            let stamp = Stamp { epoch: first.epoch, clock: clocks[lane], thread: base + lane as u16 };
            (clocks[lane] != u32::MAX && !order.is_over(stamp, thread)).then_some(stamp.thread)
        })
    }

    /// Remembers an access.
    fn remember(&mut self, kind: Kind, at: usize, now: Stamp) {
        let granule = &mut self.granules[at];
        if kind == Kind::Write {
            granule.write = now;
            granule.written = self.block;
            return;
        }
        let group = &mut granule.reads;
        if group.first.epoch != now.epoch {
            *group = Readers { first: now, ..UNREAD };
        } else if !same_warp(group.first.thread, now.thread) {
            group.other = now.thread;
        } else if group.set != NO_SET {
            self.sets[group.set as usize][usize::from(now.thread) % LANES] = now.clock;
        } else if group.first.thread == now.thread {
            group.first = now;
        } else {
            let mut clocks = [u32::MAX; LANES];
            clocks[usize::from(group.first.thread) % LANES] = group.first.clock;
            clocks[usize::from(now.thread) % LANES] = now.clock;
            group.set = self.sets.len() as u32;
            self.sets.push(clocks);
        }
    }

    /// Says that a copy is on its way, or that it is no more.
    pub(super) fn set_copied(&mut self, start: usize, size: usize, thread: Option<u16>) {
        for granule in &mut self.granules[start / GRANULE..(start + size) / GRANULE] {
            granule.copied = thread.unwrap_or(NOBODY);
        }
    }

    /// The number at a place that [`Shared::touch`] gave.
    pub(super) fn get(&self, start: usize, size: usize) -> u128 {
        number_at(&self.bytes, start, size)
    }

    /// Sets the number at a place that [`Shared::touch`] gave.
    pub(super) fn set(&mut self, start: usize, size: usize, value: u128) {
        set_number_at(&mut self.bytes, start, size, value);
    }

    #[cold]
    fn awaited(&self, at: usize) -> Box<Wrong> {
        let (address, thread) = (at * GRANULE, self.granules[at].copied);
        Wrong::failed(format!(
            "cp.async of thread number {thread} to shared address {address:#x} was not awaited"
        ))
    }

    #[cold]
    fn unwritten(&self, at: usize) -> Box<Wrong> {
        Wrong::failed(format!("shared address {:#x} was never written by this block", at * GRANULE))
    }

    #[cold]
    fn race(&self, kind: Kind, at: usize, what: &str, other: u16) -> Box<Wrong> {
        let how = match kind {
            Kind::Read => "read",
            Kind::Write => "written",
        };
        let address = at * GRANULE;
        Wrong::failed(format!(
            "race: shared address {address:#x} is {how}, and {what} by thread number {other}, with no barrier in between"
        ))
    }
}
