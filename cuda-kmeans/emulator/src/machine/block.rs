//! Runs the threads of a block.

use super::{
    LANES,
    copies::Copies,
    random::Random,
    spaces::Spaces,
    thread::{State, Thread},
};
use crate::{
    error::Wrong,
    program::{Barrier, LaneMask, Operation, Program, Special, Vote},
};

/// The block that runs.
pub(super) struct Block<'a> {
    pub(super) program: &'a Program,
    pub(super) spaces: Spaces<'a>,
    /// Registers of all threads, one after the other.
    pub(super) registers: Vec<u64>,
    pub(super) threads: Vec<Thread>,
    pub(super) grid: [u32; 3],
    pub(super) extent: [u32; 3],
    pub(super) random: Random,
    /// Instructions so far.
    pub(super) executed: u64,
    /// How often rows of matrices that are loaded at once share banks.
    pub(super) conflicts: u64,
}

/// What went wrong, and the thread where it did.
pub(super) type Failed = (u16, Box<Wrong>);

impl Block<'_> {
    /// Runs a block from start to end.
    pub(super) fn run(&mut self, index: [u32; 3]) -> Result<(), Failed> {
        self.start(index);
        let mut warps: Vec<usize> = (0..self.threads.len().div_ceil(LANES)).collect();
        loop {
            self.random.shuffle(&mut warps);
            for &warp in &warps {
                self.run_warp(warp)?;
            }
            if self.threads.iter().any(|thread| thread.state == State::Ready) {
                continue;
            }
            if self.threads.iter().all(|thread| thread.state == State::Done) {
                return Ok(());
            }
            self.pass_barrier()?;
        }
    }

    /// Sets all threads to their start.
    fn start(&mut self, index: [u32; 3]) {
        self.spaces.shared.next_block();
        self.spaces.order.meet_all();
        let slots = self.program.registers.len();
        for number in 0..self.threads.len() {
            self.threads[number] = Thread { next: 0, state: State::Ready, copies: Copies::default() };
            let registers = &mut self.registers[number * slots..][..slots];
            registers.copy_from_slice(&self.program.registers);
            for &(slot, special) in &self.program.specials {
                registers[usize::from(slot)] =
                    u64::from(value(special, number as u32, index, self.extent, self.grid));
            }
        }
    }

    /// Runs the lanes of a warp until all of them wait for other warps or have ended.
    fn run_warp(&mut self, warp: usize) -> Result<(), Failed> {
        let first = warp * LANES;
        let last = self.threads.len().min(first + LANES);
        let mut ready = Vec::with_capacity(LANES);
        loop {
            let is_ready = |&number: &usize| self.threads[number].state == State::Ready;
            ready.clear();
            ready.extend((first..last).filter(is_ready).map(|number| number as u16));
            if ready.is_empty() {
                return Ok(());
            }
            self.random.shuffle(&mut ready);
            let mut turns_over = false;
            for &number in &ready {
                self.run_thread(number).map_err(|wrong| (number, wrong))?;
                match self.threads[usize::from(number)].state {
                    State::Together => self.try_together(number)?,
                    State::Ready => turns_over = true,
                    State::Barrier | State::Done => {}
                }
            }
            if turns_over {
                return Ok(());
            }
        }
    }

    /// The barrier that a thread waits at.
    fn barrier_of(&self, number: usize) -> Option<&Barrier> {
        let thread = &self.threads[number];
        match &self.program.code[thread.next.checked_sub(1)?].operation {
            Operation::Barrier(barrier) if thread.state == State::Barrier => Some(barrier),
            _ => None,
        }
    }

    /// The value of a thread's register.
    pub(super) fn register(&self, number: usize, slot: u16) -> u64 {
        self.registers[number * self.program.registers.len() + usize::from(slot)]
    }

    /// Sets a thread's register.
    pub(super) fn set_register(&mut self, number: usize, slot: u16, value: u64) {
        self.registers[number * self.program.registers.len() + usize::from(slot)] = value;
    }

    /// Lets all threads pass the barrier at which all that have not ended wait.
    fn pass_barrier(&mut self) -> Result<(), Failed> {
        let waiting: Vec<usize> =
            (0..self.threads.len()).filter(|&number| self.threads[number].state != State::Done).collect();
        let mut passed = Vec::with_capacity(waiting.len());
        for &number in &waiting {
            let Some(barrier) = self.barrier_of(number) else { return Err(self.stuck(&waiting)) };
            let holds = self.register(number, barrier.predicate) != 0;
            passed.push((number, self.register(number, barrier.name), barrier.vote, barrier.to, holds));
        }
        let same = |pair: &[(usize, u64, Vote, u16, bool)]| pair[0].1 == pair[1].1 && pair[0].2 == pair[1].2;
        if !passed.windows(2).all(same) {
            return Err(self.stuck(&waiting));
        }
        self.check_alignment(&waiting)?;
        let count = passed.iter().filter(|&&(.., holds)| holds).count();
        for &(number, _, vote, to, _) in &passed {
            let result = match vote {
                Vote::Nothing => None,
                Vote::Count => Some(count as u64),
                Vote::All => Some(u64::from(count == passed.len())),
                Vote::Any => Some(u64::from(count > 0)),
            };
            if let Some(result) = result {
                self.set_register(number, to, result);
            }
            self.threads[number].state = State::Ready;
        }
        self.spaces.order.meet_all();
        Ok(())
    }

    /// The threads of a warp may not wait at different instructions, unless these say so.
    fn check_alignment(&self, waiting: &[usize]) -> Result<(), Failed> {
        for pair in waiting.windows(2) {
            let aligned = self.barrier_of(pair[1]).is_some_and(|barrier| barrier.aligned);
            let [one, other] = [pair[0], pair[1]].map(|number| self.threads[number].next);
            if pair[0] / LANES == pair[1] / LANES && aligned && one != other {
                let line = self.program.code[one - 1].line;
                let what =
                    format!("divergent barrier: thread number {} of this warp waits at line {line}", pair[0]);
                return Err((pair[1] as u16, Wrong::failed(what)));
            }
        }
        Ok(())
    }

    /// Says that nothing goes on, and where threads wait.
    #[cold]
    fn stuck(&self, waiting: &[usize]) -> Failed {
        let mut places: Vec<(u32, usize)> = Vec::new();
        for &number in waiting {
            let line = self.program.code[self.threads[number].next - 1].line;
            match places.iter_mut().find(|place| place.0 == line) {
                Some(place) => place.1 += 1,
                None => places.push((line, 1)),
            }
        }
        let ended = self.threads.len() - waiting.len();
        let places: Vec<String> =
            places.iter().map(|(line, count)| format!("{count} at line {line}")).collect();
        let what =
            format!("deadlock: of the block's threads {ended} have ended, and {} wait", places.join(", "));
        let culprit = waiting.iter().find(|&&number| self.threads[number].state == State::Together);
        let culprit = culprit.or(waiting.first()).copied().unwrap_or(0);
        (culprit as u16, Wrong::failed(what))
    }
}

/// A thread's place in its block.
pub(super) fn place_of(number: u32, extent: [u32; 3]) -> [u32; 3] {
    [number % extent[0], number / extent[0] % extent[1], number / extent[0] / extent[1]]
}

/// What a special register of a thread holds.
fn value(special: Special, number: u32, index: [u32; 3], extent: [u32; 3], grid: [u32; 3]) -> u32 {
    let lane = number % LANES as u32;
    match special {
        Special::Thread(axis) => place_of(number, extent)[usize::from(axis)],
        Special::BlockExtent(axis) => extent[usize::from(axis)],
        Special::Block(axis) => index[usize::from(axis)],
        Special::GridExtent(axis) => grid[usize::from(axis)],
        Special::Lane => lane,
        Special::Warp => number / LANES as u32,
        Special::WarpCount => extent.iter().product::<u32>().div_ceil(LANES as u32),
        Special::LaneMask(LaneMask::Equal) => 1 << lane,
        Special::LaneMask(LaneMask::Less) => (1 << lane) - 1,
        Special::LaneMask(LaneMask::AtMost) => !0 >> (31 - lane),
        Special::LaneMask(LaneMask::Greater) => !(!0 >> (31 - lane)),
        Special::LaneMask(LaneMask::AtLeast) => !((1 << lane) - 1),
    }
}
