//! Copies that are awaited, or not.

use crate::bench::{FAILED, expect, run};
use emulated_cuda::Status;

const VARIABLE: &str = ".shared .align 16 .b8 s[128];";

/// Each of eight threads copies 16 bytes to shared memory, reads their last word, and stores it in the upper half of memory.
fn copied(read: u32, wait: &str) -> String {
    format!(
        "mov.u32 %r2, s; shl.b32 %r3, %r1, 4; add.s32 %r4, %r2, %r3; cvt.u64.u32 %rd4, %r3; add.s64 %rd5, %rd1, %rd4;
         cp.async.cg.shared.global [%r4], [%rd5], 16, {read}; cp.async.commit_group;
         {wait}
         ld.shared.u32 %r5, [%r4+12]; st.global.u32 [%rd3+128], %r5;"
    )
}

#[test]
fn copies_are_awaited() {
    let wait = "cp.async.wait_group 0;";
    assert_eq!(run(VARIABLE, &copied(16, wait), 8).unwrap()[32..40], [7; 8]);
    assert_eq!(run(VARIABLE, &copied(0, wait), 8).unwrap()[32..40], [0; 8]);
    expect(VARIABLE, &copied(16, ""), 8, FAILED, "ld.shared", "was not awaited");
    expect(VARIABLE, &copied(16, "cp.async.wait_group 1;"), 8, FAILED, "ld.shared", "was not awaited");
    // Two groups: the first is awaited, in which each copy is.
    let later = "st.global.u32 [%rd1+128], 1; cp.async.commit_group; cp.async.wait_group 1;";
    assert!(run(VARIABLE, &copied(16, later), 8).is_ok());
    // What other threads copied is there after a barrier only.
    let other = format!("{wait} xor.b32 %r4, %r4, 16;");
    expect(VARIABLE, &copied(16, &other), 2, FAILED, "ld.shared", "shared address");
    assert!(run(VARIABLE, &copied(16, &format!("{wait} bar.sync 0; xor.b32 %r4, %r4, 16;")), 2).is_ok());
}

#[test]
fn copies_are_checked_as_accesses_are() {
    let wait = "cp.async.wait_group 0;";
    expect(VARIABLE, &copied(32, wait), 8, FAILED, "cp.async", "reads 32 bytes");
    expect(VARIABLE, &copied(16, wait), 9, FAILED, "cp.async", "never written");
    let beyond = copied(0, wait);
    expect(VARIABLE, &beyond, 9, Status::IllegalAddress, "cp.async", "in no variable");
    let odd = copied(16, wait).replace("[%rd5]", "[%rd5+4]");
    expect(VARIABLE, &odd, 1, Status::Misaligned, "cp.async", "16 bytes");
}
