//! What tests need to run kernels.

use emulated_cuda::{Device, LaunchError, Shape, Statistics};

/// A parameter of a kernel.
#[derive(Debug, Clone, Copy)]
pub enum Parameter {
    /// A pointer, or any other 64 bits.
    Wide(u64),
    /// 32 bits.
    Word(u32),
}

/// A device with kernels.
pub struct Bench {
    /// The device.
    pub device: Device,
    text: String,
}

impl Bench {
    /// A device that runs threads in the order that a seed gives.
    pub fn new(text: &str, seed: u64) -> Self {
        Self { device: Device::new(1 << 30, seed), text: text.to_owned() }
    }

    /// New memory with these bytes.
    pub fn upload<T: Copy, const N: usize>(&mut self, values: &[T], bytes: impl Fn(T) -> [u8; N]) -> u64 {
        let all: Vec<u8> = values.iter().flat_map(|&value| bytes(value)).collect();
        let address = self.room(all.len());
        assert!(self.device.write(address, &all));
        address
    }

    /// New memory that nobody has written.
    pub fn room(&mut self, size: usize) -> u64 {
        self.device.allocate(size).expect("memory")
    }

    /// Values in memory.
    pub fn download<T, const N: usize>(
        &self,
        address: u64,
        count: usize,
        value: impl Fn([u8; N]) -> T,
    ) -> Vec<T> {
        let mut all = vec![0; count * N];
        assert!(self.device.read(address, &mut all));
        all.as_chunks::<N>().0.iter().map(|&bytes| value(bytes)).collect()
    }

    /// Runs a kernel in blocks that are lines of threads.
    pub fn run(
        &mut self,
        name: &str,
        grid: [u32; 3],
        threads: u32,
        dynamic: usize,
        parameters: &[Parameter],
    ) -> Result<Statistics, LaunchError> {
        self.run_blocks(name, grid, [threads, 1, 1], dynamic, parameters)
    }

    /// Runs a kernel.
    pub fn run_blocks(
        &mut self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic: usize,
        parameters: &[Parameter],
    ) -> Result<Statistics, LaunchError> {
        let module = self.device.load(&self.text).unwrap_or_else(|refusal| panic!("{refusal}"));
        let kernel = module.kernel(name).expect("the kernel");
        let mut bytes = Vec::new();
        for (place, parameter) in kernel.parameters().iter().zip(parameters) {
            bytes.resize(place.offset, 0);
            match parameter {
                Parameter::Wide(value) => bytes.extend(value.to_le_bytes()),
                Parameter::Word(value) => bytes.extend(value.to_le_bytes()),
            }
        }
        self.device.launch(kernel, Shape { grid, block, dynamic }, &bytes)
    }

    /// Runs a kernel that has to go wrong: what it says.
    pub fn fault(
        &mut self,
        name: &str,
        grid: [u32; 3],
        block: u32,
        parameters: &[Parameter],
    ) -> emulated_cuda::Fault {
        match self.run(name, grid, block, 0, parameters) {
            Err(LaunchError::Fault(fault)) => fault,
            other => panic!("no fault but {other:?}"),
        }
    }
}

/// Numbers that look random.
pub fn numbers(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (state >> 33) as u32
    }
}
