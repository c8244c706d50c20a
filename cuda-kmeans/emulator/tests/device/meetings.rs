//! Threads that should have waited for others, or wait in vain.

use crate::{
    bench::{
        Bench,
        Parameter::{self, Wide, Word},
        numbers,
    },
    checks::{FAILED, expect, kernel, run},
};

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
fn readers_of_two_warps_are_not_forgotten() {
    // Lane 5 of the first warp writes once both warps have read: it waits for that, but in no way that orders anything.
    let body = "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [s], 1; @%p1 st.global.u32 [%rd1], 0; bar.sync 0;
                ld.shared.u32 %r2, [s]; bar.warp.sync -1; setp.ge.u32 %p2, %r1, 32; @%p2 bra SECOND;
                setp.ne.u32 %p3, %r1, 5; @%p3 ret; WAIT: ld.volatile.global.u32 %r3, [%rd1]; setp.lt.u32 %p4, %r3, 32;
                @%p4 bra WAIT; st.shared.u32 [s], 2; ret; SECOND: red.global.add.u32 [%rd1], 1;";
    let text = kernel(".shared .align 4 .b8 s[4];", body);
    for seed in 0..8 {
        let mut bench = Bench::new(&text, seed);
        let memory = bench.room(4);
        let fault = bench.fault("k", [1, 1, 1], 64, &[Wide(memory)]);
        assert!(
            fault.text.contains("st.shared.u32 [s], 2") && fault.what.contains("was read by thread"),
            "{fault}"
        );
    }
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
    let fault = run(include_str!("../ptx/product_without_wait.ptx"));
    assert!(fault.text.contains("ldmatrix") && fault.what.contains("not awaited"), "{fault}");
    let fault = run(include_str!("../ptx/product_without_barrier.ptx"));
    assert!(fault.what.contains("race") || fault.what.contains("not awaited"), "{fault}");
}

#[test]
fn a_missing_barrier_of_a_reduction() {
    for seed in 0..8 {
        let mut bench = Bench::new(include_str!("../ptx/blocks_without_barrier.ptx"), seed);
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
