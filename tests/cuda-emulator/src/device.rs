//! A device, modules, and launches: what the driver's functions do, without their pointers.

use crate::{
    error::{Fault, Refusal},
    machine::{self, Launch, Memory, Statistics},
    program::{Place, Program, decode},
    ptx::parse,
};
use std::{fmt, sync::Arc};

/// A device.
#[derive(Debug)]
pub struct Device {
    /// What kernels work on.
    pub memory: Memory,
    /// The order in which threads run.
    seed: u64,
}

/// Kernels of a text.
#[derive(Debug)]
pub struct Module {
    pub(crate) kernels: Vec<Kernel>,
}

/// A kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    program: Arc<Program>,
    source: Arc<str>,
}

/// How many threads run a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Blocks along x, y, and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, and z.
    pub block: [u32; 3],
}

/// Why a kernel was not run to its end.
#[derive(Debug, Clone)]
pub enum LaunchError {
    /// The launch makes no sense.
    Shape(String),
    /// The kernel did something wrong.
    Fault(Fault),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(why) => f.write_str(why),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for LaunchError {}

impl Device {
    /// A device with so many bytes of memory.
    pub fn new(memory: usize, seed: u64) -> Self {
        Self { memory: Memory::new(memory), seed }
    }

    /// Runs a kernel.
    pub fn launch(
        &mut self,
        kernel: &Kernel,
        shape: Shape,
        parameters: &[u64],
    ) -> Result<Statistics, LaunchError> {
        kernel.check(shape, parameters.len()).map_err(LaunchError::Shape)?;
        let launch = Launch { grid: shape.grid, block: shape.block, parameters, seed: self.seed };
        machine::launch(&kernel.program, &kernel.source, &mut self.memory, launch).map_err(LaunchError::Fault)
    }
}

impl Module {
    /// Loads PTX.
    pub fn load(text: &str) -> Result<Self, Refusal> {
        let source: Arc<str> = text.into();
        let load = || {
            let decoded = parse(text)?.into_iter().map(|kernel| {
                Ok(Kernel { program: Arc::new(decode(&kernel)?), source: Arc::clone(&source) })
            });
            decoded.collect::<Result<_, Refusal>>()
        };
        Ok(Self { kernels: load().map_err(|refusal: Refusal| refusal.of(text))? })
    }

    /// The kernel of a name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name() == name)
    }
}

/// Threads that a block may have.
pub const MOST_THREADS: u32 = 1024;

/// Bytes of shared memory that a block may have.
pub const MOST_SHARED: usize = 48 << 10;

impl Kernel {
    /// The name.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// The parameters: each is a number of four or eight bytes.
    pub fn parameters(&self) -> &[Place] {
        &self.program.parameters
    }

    /// Whether it can be launched like this.
    fn check(&self, Shape { grid, block }: Shape, parameters: usize) -> Result<(), String> {
        let name = self.name();
        let threads = block.iter().map(|&along| u64::from(along)).product::<u64>();
        let most = self.program.most_threads.unwrap_or(u64::MAX).min(u64::from(MOST_THREADS));
        if grid.contains(&0) || grid[1].max(grid[2]) > 65535 || threads == 0 || threads > most {
            return Err(format!("kernel `{name}`: no grid of {grid:?} blocks of {block:?} threads"));
        }
        let shared: usize = self.program.shared.iter().map(|place| place.size).sum();
        if shared > MOST_SHARED {
            return Err(format!("kernel `{name}`: {shared} bytes of shared memory"));
        }
        let expected = self.parameters().len();
        if parameters != expected {
            return Err(format!("kernel `{name}` has {expected} parameters, not {parameters}"));
        }
        Ok(())
    }
}
