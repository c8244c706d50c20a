//! Runs the threads of a block.

use super::{
    LANES,
    copies::Copies,
    launch::Launch,
    random::Random,
    spaces::Spaces,
    thread::{State, Thread},
};
use crate::{
    error::Wrong,
    program::{Program, Special},
};

/// The block that runs.
pub(super) struct Block<'a> {
    pub(super) program: &'a Program,
    pub(super) spaces: Spaces<'a>,
    /// Registers of all threads, one after the other.
    pub(super) registers: Vec<u64>,
    pub(super) threads: Vec<Thread>,
    pub(super) launch: Launch<'a>,
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
                registers[usize::from(slot)] = value(special, number as u32, index, &self.launch);
            }
        }
    }

    /// Runs the lanes of a warp, in any order, until all of them wait for other warps or have ended.
    fn run_warp(&mut self, warp: usize) -> Result<(), Failed> {
        let lanes = LANES.min(self.threads.len() - warp * LANES);
        loop {
            let (mut waits, mut turns_over) = (true, false);
            // An odd step comes to each lane once.
            let (start, step) = (self.random.next() as usize, self.random.next() as usize | 1);
            for turn in 0..LANES {
                let lane = start.wrapping_add(step.wrapping_mul(turn)) % LANES;
                let number = warp * LANES + lane;
                if lane >= lanes || self.threads[number].state != State::Ready {
                    continue;
                }
                waits = false;
                self.run_thread(number as u16).map_err(|wrong| (number as u16, wrong))?;
                match self.threads[number].state {
                    State::Together => self.try_together(number as u16)?,
                    State::Ready => turns_over = true,
                    State::Barrier | State::Done => {}
                }
            }
            if waits || turns_over {
                return Ok(());
            }
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
        if waiting.iter().any(|&number| self.threads[number].state != State::Barrier) {
            return Err(self.stuck(&waiting));
        }
        self.check_alignment(&waiting)?;
        for &number in &waiting {
            self.threads[number].state = State::Ready;
        }
        self.spaces.order.meet_all();
        Ok(())
    }

    /// The threads of a warp may not wait at different barriers.
    fn check_alignment(&self, waiting: &[usize]) -> Result<(), Failed> {
        for pair in waiting.windows(2) {
            let [one, other] = [pair[0], pair[1]].map(|number| self.threads[number].next);
            if pair[0] / LANES == pair[1] / LANES && one != other {
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
fn value(special: Special, number: u32, index: [u32; 3], launch: &Launch<'_>) -> u64 {
    u64::from(match special {
        Special::Thread(axis) => place_of(number, launch.block)[axis],
        Special::BlockExtent(axis) => launch.block[axis],
        Special::Block(axis) => index[axis],
        Special::GridExtent(axis) => launch.grid[axis],
        Special::Parameter(number) => return launch.parameters[number],
    })
}
