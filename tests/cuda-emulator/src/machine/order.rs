//! Which accesses of a block's threads are known to come one after the other.
//!
//! A barrier of the block orders all before it and all behind it. Within a warp each lane has a clock, which is set whenever
//! lanes meet, and knows of the clocks of others what it has heard at meetings: an access is over for a lane if it has heard
//! of a later clock of who made it.

use super::LANES;

/// Clocks of the threads of a block.
#[derive(Debug)]
pub(super) struct Order {
    /// Barriers of the block so far, of all blocks that have run.
    pub(super) epoch: u32,
    /// What each thread has heard of the clocks of its warp's lanes.
    heard: Vec<[u32; LANES]>,
    /// The latest clock of each warp.
    latest: Vec<u32>,
    /// The clock of each warp when all of its lanes last met: all of them have heard of that.
    met: Vec<u32>,
}

/// When a thread did something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) epoch: u32,
    pub(super) clock: u32,
    pub(super) thread: u16,
}

impl Stamp {
    /// Before everything.
    pub(super) const NEVER: Self = Self { epoch: 0, clock: 0, thread: 0 };
}

impl Order {
    /// Clocks of a block of so many threads.
    pub(super) fn new(threads: usize) -> Self {
        let clocks = vec![0; threads.div_ceil(LANES)];
        Self { epoch: 0, heard: vec![[0; LANES]; threads], latest: clocks.clone(), met: clocks }
    }

    /// All threads have met.
    pub(super) fn meet_all(&mut self) {
        self.epoch += 1;
    }

    /// Lanes of a warp have met.
    pub(super) fn meet(&mut self, warp: usize, members: u32) {
        self.latest[warp] += 1;
        if members == !0 {
            self.met[warp] = self.latest[warp];
            return;
        }
        let first = warp * LANES;
        let mut all = [0; LANES];
        for lane in lanes(members) {
            for (all, heard) in all.iter_mut().zip(&self.heard[first + lane]) {
                *all = (*all).max(*heard);
            }
        }
        for lane in lanes(members) {
            all[lane] = self.latest[warp];
        }
        for lane in lanes(members) {
            self.heard[first + lane] = all;
        }
    }

    /// Now, as a thread sees it.
    pub(super) fn now(&self, thread: u16) -> Stamp {
        Stamp { epoch: self.epoch, clock: self.clock_of(thread, thread), thread }
    }

    /// Whether what was done then is over for a thread.
    pub(super) fn is_over(&self, then: Stamp, thread: u16) -> bool {
        then.epoch != self.epoch
            || then.thread == thread
            || same_warp(then.thread, thread) && self.clock_of(then.thread, thread) > then.clock
    }

    /// What a thread has heard of the clock of another of its warp.
    fn clock_of(&self, other: u16, thread: u16) -> u32 {
        let heard = self.heard[usize::from(thread)][usize::from(other) % LANES];
        heard.max(self.met[usize::from(thread) / LANES])
    }
}

/// Whether threads belong to one warp.
pub(super) fn same_warp(one: u16, other: u16) -> bool {
    usize::from(one) / LANES == usize::from(other) / LANES
}

/// The numbers of lanes.
pub(super) fn lanes(members: u32) -> impl Iterator<Item = usize> {
    let mut left = members;
    std::iter::from_fn(move || {
        let lane = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}
