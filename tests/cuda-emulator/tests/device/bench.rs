//! What tests need to run kernels.

use emulated_cuda::{Device, Fault, LaunchError, Module, Shape, Statistics, Status};

/// An address that is not the kernel's.
pub const ILLEGAL: Status = Status::IllegalAddress;
/// All else.
pub const FAILED: Status = Status::LaunchFailed;

/// A kernel of one pointer, `%rd1`, whose threads have their number in `%r1` and the address of their word in `%rd3`.
pub fn kernel(variables: &str, body: &str) -> String {
    let body = body.replace("; ", ";\n    ");
    format!(
        ".version 7.0
.target sm_80
.address_size 64
.visible .entry k(
    .param .u64 k_param_0
)
{{
    .reg .pred %p<10>;
    .reg .b16 %rs<10>;
    .reg .b32 %r<30>;
    .reg .f32 %f<30>;
    .reg .f64 %fd<30>;
    .reg .b64 %rd<30>;
    {variables}
    ld.param.u64 %rd1, [k_param_0];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    {body}
    ret;
}}
"
    )
}

/// A device that runs threads in the order that a seed gives, and memory of it that holds these words.
pub fn device(words: &[u32], seed: u64) -> (Device, u64) {
    let mut device = Device::new(1 << 20, seed);
    let address = device.memory.allocate(words.len() * 4).expect("memory");
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert!(device.memory.write(address, &bytes));
    (device, address)
}

/// Words in memory.
pub fn words(device: &Device, address: u64, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * count];
    assert!(device.memory.read(address, &mut bytes));
    bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
}

/// Runs the kernel of a text on a line of blocks that are lines of threads.
pub fn launch(
    device: &mut Device,
    text: &str,
    blocks: u32,
    threads: u32,
    address: u64,
) -> Result<Statistics, Fault> {
    let module = Module::load(text).unwrap_or_else(|refusal| panic!("{refusal}"));
    let shape = Shape { grid: [blocks, 1, 1], block: [threads, 1, 1] };
    let launched = device.launch(module.kernel("k").expect("the kernel"), shape, &[address]);
    launched.map_err(|error| match error {
        LaunchError::Fault(fault) => fault,
        LaunchError::Shape(why) => panic!("{why}"),
    })
}

/// Runs a block of `threads` with 64 words of memory, of which 32 are written: with seven.
pub fn run(variables: &str, body: &str, threads: u32) -> Result<Vec<u32>, Fault> {
    let mut device = Device::new(1 << 20, 0);
    let address = device.memory.allocate(256).expect("memory");
    assert!(device.memory.write(address, &[7, 0, 0, 0].repeat(32)));
    launch(&mut device, &kernel(variables, body), 1, threads, address)?;
    Ok(words(&device, address, 64))
}

/// Expects a fault at a line that says `text`.
pub fn expect(variables: &str, body: &str, threads: u32, status: Status, text: &str, what: &str) -> Fault {
    let fault = run(variables, body, threads).expect_err("a fault");
    assert_eq!((fault.status, fault.kernel.as_str()), (status, "k"), "{fault}");
    assert!(fault.text.contains(text) && fault.what.contains(what), "{fault}");
    fault
}

/// Numbers that look random.
pub fn numbers(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (state >> 33) as u32
    }
}
