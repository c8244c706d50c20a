//! Kernels that do something wrong: each is found out, at its line.

mod common;

use common::{
    Bench,
    Parameter::{self, Wide, Word},
    numbers,
};
use emulated_cuda::{Device, Fault, Shape, Status};

/// A kernel of one pointer, `%rd1`, whose threads have their number in `%r1` and four times that in `%rd2`.
fn kernel(variables: &str, body: &str) -> String {
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
fn run(variables: &str, body: &str, threads: u32) -> Result<Vec<u32>, Fault> {
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
fn expect(variables: &str, body: &str, threads: u32, status: Status, text: &str, what: &str) -> Fault {
    let fault = run(variables, body, threads).expect_err("a fault");
    assert_eq!(fault.status, status, "{fault}");
    assert!(fault.text.contains(text), "{fault}");
    assert!(fault.what.contains(what), "{fault}");
    assert_eq!(fault.kernel, "k");
    fault
}

const ILLEGAL: Status = Status::IllegalAddress;
const FAILED: Status = Status::LaunchFailed;

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

/// Each thread writes its word and reads its neighbour's.
fn exchange(between: &str) -> String {
    format!(
        "mov.u32 %r2, s; shl.b32 %r3, %r1, 2; add.u32 %r4, %r2, %r3; st.shared.u32 [%r4], %r1;
         {between}
         xor.b32 %r5, %r3, 4; add.u32 %r6, %r2, %r5; ld.shared.u32 %r7, [%r6];
         st.global.u32 [%rd3], %r7;"
    )
}

#[test]
fn barriers_are_missed() {
    let words = ".shared .align 4 .b8 s[256];";
    assert_eq!(run(words, &exchange("bar.sync 0;"), 64).unwrap()[33], 32);
    assert!(run(words, &exchange("bar.warp.sync -1;"), 64).is_ok());
    assert!(run(words, &exchange("shfl.sync.idx.b32 %r9, %r1, 0, 31, -1;"), 64).is_ok());
    // Whoever comes first reads what nobody has written yet, the other is found to race.
    expect(words, &exchange(""), 64, FAILED, "shared", "");
    let first =
        "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [s], 1; @%p1 st.shared.u32 [s+4], 1; bar.sync 0;";
    expect(words, &format!("{first} {}", exchange("")), 2, FAILED, "shared", "race: shared address 0x40");
    // Meeting within the warp is not enough for two warps.
    let across = exchange("bar.warp.sync -1;").replace("xor.b32 %r5, %r3, 4", "xor.b32 %r5, %r3, 128");
    let all = format!("st.shared.u32 [s], %r1; {across}");
    expect(words, &all, 64, FAILED, "shared", "race");
}

#[test]
fn races_with_many_readers_are_found() {
    let word = ".shared .align 4 .b8 s[4];";
    let rest = "ld.shared.u32 %r2, [s]; {} setp.eq.u32 %p2, %r1, 5; @%p2 st.shared.u32 [s], 2;";
    let start = "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [s], 1; bar.sync 0;";
    let body = |between: &str| format!("{start} {}", rest.replace("{}", between));
    assert!(run(word, &body("bar.warp.sync -1;"), 32).is_ok());
    expect(word, &body("bar.warp.sync -1;"), 64, FAILED, "shared", "race");
    expect(word, &body(""), 32, FAILED, "shared", "race");
    // Lane 5 has met with half of the readers only.
    let half = "setp.lt.u32 %p3, %r1, 16; @%p3 bar.warp.sync 0xFFFF; @!%p3 bar.warp.sync 0xFFFF0000;";
    expect(word, &body(half), 32, FAILED, "shared", "race");
}

#[test]
fn atomics_race_with_plain_accesses_only() {
    let word = ".shared .align 4 .b8 s[4];";
    let start =
        "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [s], 0; bar.sync 0; atom.shared.add.u32 %r2, [s], 1;";
    let body = format!("{start} bar.sync 0; ld.shared.u32 %r3, [s]; st.global.u32 [%rd3], %r3;");
    assert_eq!(run(word, &body, 64).unwrap(), [64; 64]);
    expect(
        word,
        &body.replace("add.u32 %r2, [s], 1; bar.sync 0;", "add.u32 %r2, [s], 1;"),
        64,
        FAILED,
        "shared",
        "race",
    );
    let each = "st.shared.u32 [s], %r1; bar.sync 0;";
    expect(word, each, 2, FAILED, "st.shared", "is written, and was written by thread number");
}

#[test]
fn bytes_of_a_word_are_told_apart() {
    let body =
        "mov.u32 %r2, s; add.u32 %r3, %r2, %r1; st.shared.u8 [%r3], %r1; bar.sync 0; ld.shared.u32 %r4, [s];
                st.global.u32 [%rd3], %r4;";
    assert_eq!(run(".shared .align 4 .b8 s[4];", body, 4).unwrap()[0], 0x0302_0100);
}

/// A copy of the first word to shared memory, and back.
fn copied(wait: &str) -> String {
    format!(
        "mov.u32 %r2, s; shl.b32 %r3, %r1, 2; add.u32 %r4, %r2, %r3;
         cp.async.ca.shared.global [%r4], [%rd3], 4; cp.async.commit_group;
         {wait}
         ld.shared.u32 %r5, [%r4]; st.global.u32 [%rd3+128], %r5;"
    )
}

#[test]
fn copies_are_awaited() {
    let words = ".shared .align 16 .b8 s[128];";
    assert_eq!(run(words, &copied("cp.async.wait_group 0;"), 32).unwrap()[32..], [7; 32]);
    assert!(run(words, &copied("cp.async.wait_all;"), 32).is_ok());
    expect(words, &copied(""), 32, FAILED, "ld.shared", "was not awaited");
    expect(words, &copied("cp.async.wait_group 1;"), 32, FAILED, "ld.shared", "was not awaited");
    let short = copied("cp.async.wait_all;").replace("[%rd3], 4;", "[%rd3], 4, 0;");
    assert_eq!(run(words, &short, 32).unwrap()[32..], [0; 32]);
    expect(words, &copied("cp.async.wait_all;"), 33, FAILED, "cp.async", "never written");
    let neighbour =
        copied("cp.async.wait_all;").replace("ld.shared.u32 %r5, [%r4]", "ld.shared.u32 %r5, [s+4]");
    expect(words, &neighbour, 2, FAILED, "ld.shared", "shared address");
}

#[test]
fn missing_waits_and_barriers_of_a_pipeline() {
    let mut next = numbers(1);
    let matrix: Vec<f32> = (0..32 * 48).map(|_| next() as f32).collect();
    let run = |text: &str| {
        let mut bench = Bench::new(text, 1);
        let (a, b) = (bench.upload(&matrix, f32::to_le_bytes), bench.upload(&matrix, f32::to_le_bytes));
        let parameters: [Parameter; 6] =
            [Wide(a), Wide(b), Wide(bench.room(4096)), Word(32), Word(32), Word(48)];
        bench.fault("product", [1, 1, 1], 64, &parameters)
    };
    let fault = run(include_str!("ptx/product_without_wait.ptx"));
    assert!(fault.text.contains("ldmatrix") && fault.what.contains("not awaited"), "{fault}");
    let fault = run(include_str!("ptx/product_without_barrier.ptx"));
    assert!(fault.what.contains("race") || fault.what.contains("not awaited"), "{fault}");
}

#[test]
fn a_missing_barrier_of_a_reduction() {
    for seed in 0..8 {
        let mut bench = Bench::new(include_str!("ptx/blocks_without_barrier.ptx"), seed);
        let from = bench.upload(&[1.0; 128], f32::to_le_bytes);
        let to = bench.room(4);
        let fault = bench.fault("reduce", [1, 1, 1], 128, &[Wide(from), Wide(to), Word(128)]);
        assert!(fault.what.contains("race") || fault.what.contains("never written"), "{fault}");
    }
}

#[test]
fn lanes_that_never_meet() {
    let other = "setp.lt.u32 %p1, %r1, 16; @%p1 shfl.sync.idx.b32 %r2, %r1, 0, 31, -1;
                 @!%p1 shfl.sync.idx.b32 %r3, %r1, 0, 31, -1;";
    expect("", other, 32, FAILED, "shfl.sync", "deadlock: of the block's threads 0 have ended, and");
    let halves = other
        .replace("31, -1;\n", "31, 0xFFFF;\n")
        .replace("%r3, %r1, 0, 31, -1", "%r3, %r1, 16, 31, 0xFFFF0000");
    assert!(run("", &halves, 32).is_ok());
    expect(
        "",
        "@%p1 bra A; shfl.sync.idx.b32 %r2, %r1, 0, 31, 2; A:",
        32,
        FAILED,
        "shfl",
        "not among the lanes",
    );
    expect(
        "",
        "setp.eq.u32 %p1, %r1, 3; @%p1 ret; vote.sync.any.pred %p2, %p1, -1;",
        32,
        FAILED,
        "vote",
        "ended",
    );
    expect(
        "",
        "vote.sync.any.pred %p2, %p1, -1;",
        31,
        FAILED,
        "vote",
        "lane 31 of 0xffffffff has ended or never was",
    );
    let reads = "setp.lt.u32 %p1, %r1, 16; @%p1 shfl.sync.idx.b32 %r2, %r1, 20, 31, 0xFFFF;";
    expect("", reads, 32, FAILED, "shfl", "reads lane 20");
}

#[test]
fn barriers_that_some_never_reach() {
    let early = "setp.lt.u32 %p1, %r1, 5; @%p1 ret; bar.sync 0; st.global.u32 [%rd3], 1;";
    assert!(run("", early, 64).is_ok());
    let names = "setp.lt.u32 %p1, %r1, 32; @%p1 bar.sync 1; @!%p1 bar.sync 2;";
    expect("", names, 64, FAILED, "bar.sync", "deadlock");
    let apart = "setp.lt.u32 %p1, %r1, 5; @%p1 bra A; bar.sync 0; bra B; A: bar.sync 0; B:";
    expect("", apart, 64, FAILED, "bar.sync", "divergent barrier");
    let mixed = "setp.lt.u32 %p1, %r1, 5; @%p1 bar.sync 0; @!%p1 bar.warp.sync -1;";
    expect("", mixed, 32, FAILED, "bar.warp.sync", "deadlock");
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
