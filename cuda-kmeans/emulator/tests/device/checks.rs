//! Kernels that do something wrong with memory, or that are wrong as such: each is found out, at its line.

use crate::bench::{Bench, Parameter::Wide};
use emulated_cuda::{Device, Fault, Shape, Status};

/// A kernel of one pointer, `%rd1`, whose threads have their number in `%r1` and four times that in `%rd2`.
pub fn kernel(variables: &str, body: &str) -> String {
    let body = body.replace("; ", ";\n    ");
    format!(
        ".version 9.0
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

/// Runs a block of `threads` with 64 words of memory, of which 32 are written.
pub fn run(variables: &str, body: &str, threads: u32) -> Result<Vec<u32>, Fault> {
    let mut bench = Bench::new(&kernel(variables, body), 0);
    let memory = bench.room(256);
    assert!(bench.device.fill(memory, &[7, 0, 0, 0], 32));
    match bench.run("k", [1, 1, 1], threads, 0, &[Wide(memory)]) {
        Ok(_) => Ok(bench.download(memory, 64, u32::from_le_bytes)),
        Err(emulated_cuda::LaunchError::Fault(fault)) => Err(fault),
        Err(other) => panic!("{other}"),
    }
}

/// Expects a fault at a line that says `text`.
pub fn expect(variables: &str, body: &str, threads: u32, status: Status, text: &str, what: &str) -> Fault {
    let fault = run(variables, body, threads).expect_err("a fault");
    assert_eq!(fault.status, status, "{fault}");
    assert!(fault.text.contains(text), "{fault}");
    assert!(fault.what.contains(what), "{fault}");
    assert_eq!(fault.kernel, "k");
    fault
}

/// An address that is not the kernel's.
const ILLEGAL: Status = Status::IllegalAddress;
/// All else.
pub const FAILED: Status = Status::LaunchFailed;

#[test]
fn global_memory_ends_after_its_last_element() {
    assert!(run("", "st.global.u32 [%rd3], 1;", 64).is_ok());
    let fault = expect(
        "",
        "st.global.u32 [%rd3], 1;",
        65,
        ILLEGAL,
        "st.global.u32",
        "0 bytes past the end of the 256 bytes",
    );
    assert_eq!(fault.thread, [64, 0, 0]);
    assert!(run("", "ld.global.u32 %r2, [%rd1];", 1).is_ok());
    expect("", "ld.global.u32 %r2, [%rd1+256];", 1, ILLEGAL, "ld.global.u32", "past the end");
    expect("", "ld.global.u32 %r2, [%rd1+-4];", 1, ILLEGAL, "ld.global.u32", "4 bytes before the start");
    expect("", "st.global.v2.u32 [%rd1+256], {%r1, %r1};", 1, ILLEGAL, "st.global.v2", "past the end");
    expect("", "ld.u32 %r2, [%rd1+256];", 1, ILLEGAL, "ld.u32", "past the end");
    expect("", "mov.u64 %rd4, 0; atom.global.add.u32 %r2, [%rd4], 1;", 1, ILLEGAL, "atom", "in no memory");
}

#[test]
fn freed_memory_is_gone() {
    let mut bench = Bench::new(&kernel("", "st.global.u32 [%rd3], 1;"), 0);
    let memory = bench.room(256);
    assert!(bench.device.free(memory));
    assert!(!bench.device.free(memory));
    assert_ne!(bench.room(256), memory);
    let fault = bench.fault("k", [1, 1, 1], 1, &[Wide(memory)]);
    assert!(fault.what.contains("freed"), "{fault}");
}

#[test]
fn unwritten_memory_is_not_read() {
    assert!(run("", "ld.global.u32 %r2, [%rd1+124];", 1).is_ok());
    expect("", "ld.global.u32 %r2, [%rd1+128];", 1, FAILED, "ld.global", "never written");
    expect(
        "",
        "ld.global.nc.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1+128];",
        1,
        FAILED,
        "ld.global",
        "never written",
    );
    assert!(run("", "st.global.u8 [%rd1+128], 1; ld.global.u8 %rs1, [%rd1+128];", 1).is_ok());
    expect(
        "",
        "st.global.u8 [%rd1+128], 1; ld.global.u16 %rs1, [%rd1+128];",
        1,
        FAILED,
        "u16",
        "never written",
    );
    let one = ".shared .align 4 .b8 s[8];";
    assert!(run(one, "st.shared.u32 [s+4], 1; ld.shared.u32 %r2, [s+4];", 1).is_ok());
    expect(one, "st.shared.u32 [s], 1; ld.shared.u32 %r2, [s+4];", 1, FAILED, "ld.shared", "never written");
}

#[test]
fn shared_memory_does_not_outlive_its_block() {
    let body =
        "mov.u32 %r2, %ctaid.x; setp.eq.u32 %p1, %r2, 0; @%p1 st.shared.u32 [s], 1; ld.shared.u32 %r3, [s];";
    let mut bench = Bench::new(&kernel(".shared .align 4 .b8 s[4];", body), 0);
    let memory = bench.room(4);
    assert!(bench.run("k", [1, 1, 1], 1, 0, &[Wide(memory)]).is_ok());
    assert_eq!(bench.fault("k", [2, 1, 1], 1, &[Wide(memory)]).block, [1, 0, 0]);
}

#[test]
fn addresses_are_aligned() {
    let misaligned = Status::Misaligned;
    expect("", "ld.global.u32 %r2, [%rd1+2];", 1, misaligned, "ld.global.u32", "4 bytes");
    expect("", "st.global.v4.u32 [%rd1+8], {%r1, %r1, %r1, %r1};", 1, misaligned, "st.global.v4", "16 bytes");
    expect(
        ".shared .align 8 .b8 s[16];",
        "st.shared.u64 [s+4], %rd1;",
        1,
        misaligned,
        "st.shared",
        "8 bytes",
    );
    expect("", "ld.global.u64 %rd4, [%rd1+4];", 1, misaligned, "ld.global.u64", "8 bytes");
}

#[test]
fn shared_memory_is_where_it_is_declared() {
    let two = ".shared .align 4 .b8 s[8]; .shared .align 4 .b8 t[8];";
    assert!(run(two, "st.shared.u32 [s+4], 1; st.shared.u32 [t], 1;", 1).is_ok());
    expect(two, "st.shared.u32 [s+8], 1;", 1, ILLEGAL, "s+8", "in no variable");
    expect(two, "st.shared.u32 [s+-4], 1;", 1, ILLEGAL, "s+-4", "in no variable");
    expect(
        two,
        "mov.u32 %r2, t; st.shared.v2.u32 [%r2+8], {%r1, %r1};",
        1,
        ILLEGAL,
        "st.shared",
        "in no variable",
    );
    let generic = "mov.u64 %rd4, s; cvta.shared.u64 %rd5, %rd4; st.u32 [%rd5+4], 3; ld.u32 %r2, [%rd5+4];
                   st.global.u32 [%rd1], %r2; cvta.to.shared.u64 %rd6, %rd5; ld.shared.u32 %r3, [%rd6+4];";
    assert_eq!(run(two, generic, 1).unwrap()[0], 3);
    let beyond = "mov.u64 %rd4, s; cvta.shared.u64 %rd5, %rd4; st.u32 [%rd5+8], 3;";
    expect(two, beyond, 1, ILLEGAL, "st.u32", "in no variable");
    expect(
        two,
        "cvta.to.shared.u64 %rd4, %rd1; ld.shared.u32 %r2, [%rd4];",
        1,
        Status::Misaligned,
        "ld.shared",
        "",
    );
}

#[test]
fn local_memory_is_of_its_size() {
    let array = ".local .align 4 .b8 a[16];";
    let own = "mov.u64 %rd4, a; add.s64 %rd5, %rd4, %rd2; st.local.u32 [%rd5], %r1; ld.local.u32 %r2, [%rd5];
               st.global.u32 [%rd3], %r2;";
    assert_eq!(run(array, own, 4).unwrap()[..4], [0, 1, 2, 3]);
    expect(array, own, 5, ILLEGAL, "st.local", "in no variable");
}

#[test]
fn operands_of_products_are_short_floats() {
    let body = "mov.b32 %f1, 0f3F800001; mov.b32 %r2, %f1; mov.b32 %f4, 0f00000000;
                mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f5,%f6,%f7,%f8},{%r3,%r3,%r2,%r3},{%r3,%r3},{%f4,%f4,%f4,%f4};";
    expect("", body, 32, FAILED, "mma", "0x3f800001 of mma is no tf32");
    assert!(run("", &body.replace("0f3F800001", "0f3F802000"), 32).is_ok());
}

#[test]
fn traps_end_a_kernel() {
    expect("", "trap;", 1, FAILED, "trap", "");
}

#[test]
fn constants_are_not_written() {
    let text = kernel("", "mov.u64 %rd4, c; st.global.u32 [%rd4+4], 1;")
        .replace(".visible", ".const .align 4 .b8 c[8] = {1, 2, 3, 4, 5};\n.visible");
    let mut bench = Bench::new(&text, 0);
    let memory = bench.room(4);
    assert!(bench.fault("k", [1, 1, 1], 1, &[Wide(memory)]).what.contains("constant"));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let mut device = Device::new(1 << 20, 0);
    let mut refused = |body: &str, text: &str| {
        let refusal = device.load(&kernel("", body)).expect_err("a refusal");
        assert_eq!(refusal.line, 18, "{refusal}");
        assert!(refusal.why.contains(text) && refusal.text.contains(body), "{refusal}");
    };
    refused("wgmma.fence.sync.aligned;", "`wgmma.fence.sync.aligned` is not supported");
    refused("add.f16x2 %r2, %r1, %r1;", "`add.f16x2` is not supported");
    refused("ld.global.b128 %rd2, [%rd1];", "`ld.global.b128` is not supported");
    refused("call (%r2), f, (%r1);", "`call` is not supported");
    refused("bra NOWHERE;", "unknown label");
    refused("mov.u32 %r2, %nowhere;", "`%nowhere` is not supported");
    refused("bar.sync 0, 32;", "a part of the block");
    refused("cvt.rn.relu.f32.f64 %f1, %rd1;", "`cvt.rn.relu.f32.f64` is not supported");
    assert_eq!(device.room().0, 1 << 20);
    assert!(device.load(".version 9.0\n.func f() { ret; }").is_err());
}

#[test]
fn launches_have_a_sensible_shape() {
    let text = kernel("", "").replace(")\n{", ")\n.maxntid 64, 1, 1\n{");
    let mut device = Device::new(1 << 20, 0);
    let module = device.load(&text).unwrap();
    let kernel = module.kernel("k").unwrap();
    let mut launch = |grid, block, dynamic, bytes: usize| {
        device.launch(kernel, Shape { grid, block, dynamic }, &vec![0; bytes]).is_ok()
    };
    assert!(launch([1, 1, 1], [64, 1, 1], 0, 8));
    assert!(!launch([1, 1, 1], [65, 1, 1], 0, 8));
    assert!(!launch([0, 1, 1], [64, 1, 1], 0, 8));
    assert!(!launch([1, 65536, 1], [64, 1, 1], 0, 8));
    assert!(!launch([1, 1, 1], [64, 1, 1], 1 << 20, 8));
    assert!(!launch([1, 1, 1], [64, 1, 1], 0, 4));
}
