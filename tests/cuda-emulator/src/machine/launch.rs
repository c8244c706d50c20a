//! Runs all blocks of a launch.

use super::{
    block::{Block, place_of},
    copies::Copies,
    memory::Memory,
    order::Order,
    random::Random,
    shared::Shared,
    spaces::Spaces,
    thread::{State, Thread},
};
use crate::{
    error::{Fault, line_of},
    program::Program,
};
use std::time::{Duration, Instant};

/// How a kernel is launched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch<'a> {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    /// Values of all parameters.
    pub(crate) parameters: &'a [u64],
    pub(crate) seed: u64,
}

/// What a launch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Instructions of all threads.
    pub instructions: u64,
    /// How often rows of matrices that are loaded at once share banks.
    pub conflicts: u64,
    /// How long it took.
    pub time: Duration,
}

/// Runs a kernel whose text is `source`.
pub(crate) fn launch(
    program: &Program,
    source: &str,
    memory: &mut Memory,
    launch: Launch<'_>,
) -> Result<Statistics, Fault> {
    let start = Instant::now();
    let threads = launch.block.iter().product::<u32>() as usize;
    let mut block = Block {
        program,
        spaces: Spaces { global: memory, shared: Shared::new(&program.shared), order: Order::new(threads) },
        registers: vec![0; threads * program.registers.len()],
        threads: (0..threads)
            .map(|_| Thread { next: 0, state: State::Ready, copies: Copies::default() })
            .collect(),
        launch,
        random: Random::new(launch.seed),
        executed: 0,
        conflicts: 0,
    };
    for number in 0..launch.grid.iter().map(|&along| u64::from(along)).product() {
        let across = u64::from(launch.grid[0]);
        let index = [
            (number % across) as u32,
            (number / across % u64::from(launch.grid[1])) as u32,
            (number / across / u64::from(launch.grid[1])) as u32,
        ];
        if let Err((thread, wrong)) = block.run(index) {
            let next = block.threads[usize::from(thread)].next;
            let line = program.code[next.saturating_sub(1)].line;
            return Err(Fault {
                status: wrong.status,
                kernel: program.name.clone(),
                block: index,
                thread: place_of(u32::from(thread), launch.block),
                line,
                text: line_of(source, line).to_owned(),
                what: wrong.what,
            });
        }
    }
    Ok(Statistics { instructions: block.executed, conflicts: block.conflicts, time: start.elapsed() })
}
