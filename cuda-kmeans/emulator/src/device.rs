//! A device, modules, and launches: what the driver's functions do, without their pointers.

use crate::{
    error::{Fault, Refusal},
    machine::{self, Launch, Memory, Statistics},
    program::{Parameter, Program, decode},
    ptx::{Variable, parse},
};
use std::{collections::HashMap, fmt, sync::Arc};

/// A device.
#[derive(Debug)]
pub struct Device {
    memory: Memory,
    /// The order in which threads run.
    seed: u64,
}

/// Kernels of a text.
#[derive(Debug)]
pub struct Module {
    kernels: Vec<Kernel>,
    /// Addresses of variables.
    variables: Vec<u64>,
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
    /// Bytes of dynamic shared memory.
    pub dynamic: usize,
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

    /// Bytes of memory that are free, and all bytes.
    pub fn room(&self) -> (usize, usize) {
        self.memory.room()
    }

    /// The address of new memory, unless there is none.
    pub fn allocate(&mut self, size: usize) -> Option<u64> {
        self.memory.allocate(size)
    }

    /// Frees memory; false if the address is not the start of any.
    pub fn free(&mut self, address: u64) -> bool {
        self.memory.free(address)
    }

    /// Copies to the device; false if the memory is not there.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.memory.write(address, bytes)
    }

    /// Copies from the device; false if the memory is not there.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        self.memory.read(address, bytes)
    }

    /// Repeats a pattern; false if the memory is not there.
    pub fn fill(&mut self, address: u64, pattern: &[u8], count: usize) -> bool {
        self.memory.fill(address, pattern, count)
    }

    /// Copies within the device; false if the memory is not there.
    pub fn copy(&mut self, to: u64, from: u64, size: usize) -> bool {
        self.memory.copy(to, from, size)
    }

    /// Loads PTX.
    pub fn load(&mut self, text: &str) -> Result<Module, Refusal> {
        let source: Arc<str> = text.into();
        let parsed = parse(text).map_err(|refusal| refusal.of(text))?;
        let mut names = HashMap::new();
        let mut module = Module { kernels: Vec::new(), variables: Vec::new() };
        let constants = parsed.constant.iter().map(|variable| (variable, true));
        for (variable, constant) in parsed.global.iter().map(|variable| (variable, false)).chain(constants) {
            let Some(address) = self.place(variable, constant) else {
                self.unload(&module);
                return Err(Refusal::new(0, format!("no memory for `{}`", variable.name)));
            };
            module.variables.push(address);
            names.insert(variable.name.clone(), address);
        }
        for kernel in &parsed.kernels {
            match decode(kernel, &parsed.shared, &names) {
                Ok(program) => {
                    module.kernels.push(Kernel { program: Arc::new(program), source: Arc::clone(&source) });
                }
                Err(refusal) => {
                    self.unload(&module);
                    return Err(refusal.of(text));
                }
            }
        }
        Ok(module)
    }

    /// Memory of a variable, with what it holds at first.
    fn place(&mut self, variable: &Variable, constant: bool) -> Option<u64> {
        let size = variable.size?;
        let address = self.memory.allocate(size)?;
        self.memory.fill(address, &[0], size);
        self.memory.write(address, &variable.initial);
        if constant {
            self.memory.make_constant(address);
        }
        Some(address)
    }

    /// Frees the variables of a module.
    pub fn unload(&mut self, module: &Module) {
        for &address in &module.variables {
            self.memory.free(address);
        }
    }

    /// Runs a kernel. Parameters are as many bytes as [`Kernel::parameters`] says.
    pub fn launch(
        &mut self,
        kernel: &Kernel,
        shape: Shape,
        parameters: &[u8],
    ) -> Result<Statistics, LaunchError> {
        kernel.check(shape, parameters.len()).map_err(LaunchError::Shape)?;
        let launch = Launch {
            grid: shape.grid,
            block: shape.block,
            dynamic: shape.dynamic,
            parameters,
            seed: self.seed,
        };
        machine::launch(&kernel.program, &kernel.source, &mut self.memory, launch).map_err(LaunchError::Fault)
    }
}

impl Module {
    /// The kernel of a name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name() == name)
    }
}

/// Threads that a block may have.
pub const MOST_THREADS: u32 = 1024;

/// Bytes of shared memory that a block may have.
pub const MOST_SHARED: usize = 163 << 10;

impl Kernel {
    /// The name.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// The parameters.
    pub fn parameters(&self) -> &[Parameter] {
        &self.program.parameters
    }

    /// Bytes of shared memory that it declares.
    pub fn shared(&self) -> usize {
        self.program.shared.size
    }

    /// Bytes of all parameters.
    pub fn parameter_bytes(&self) -> usize {
        self.parameters().last().map_or(0, |last| last.offset + last.size)
    }

    /// Threads of a block at most, if it says.
    pub fn most_threads(&self) -> Option<u64> {
        self.program.max_threads.map(|most| most.iter().map(|&along| u64::from(along)).product())
    }

    /// Whether it can be launched like this.
    fn check(&self, shape: Shape, bytes: usize) -> Result<(), String> {
        let Shape { grid, block, dynamic } = shape;
        let threads = block.iter().map(|&along| u64::from(along)).product::<u64>();
        if grid.contains(&0)
            || grid[1].max(grid[2]) > 65535
            || threads == 0
            || threads > u64::from(MOST_THREADS)
        {
            return Err(format!("kernel `{}`: no grid of {grid:?} blocks of {block:?} threads", self.name()));
        }
        if let Some(most) = self.most_threads()
            && threads > most
        {
            return Err(format!("kernel `{}` is made for {most} threads, not for {threads}", self.name()));
        }
        if self.shared() + dynamic > MOST_SHARED {
            return Err(format!(
                "kernel `{}`: {} bytes of shared memory",
                self.name(),
                self.shared() + dynamic
            ));
        }
        if bytes != self.parameter_bytes() {
            return Err(format!(
                "kernel `{}` has {} bytes of parameters",
                self.name(),
                self.parameter_bytes()
            ));
        }
        Ok(())
    }
}
