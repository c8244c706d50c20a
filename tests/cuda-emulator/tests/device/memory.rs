//! Kernels that do something wrong with memory: each is found out, at its line.

use crate::bench::{FAILED, ILLEGAL, device, expect, kernel, launch, run};
use emulated_cuda::Status;

#[test]
fn global_memory_ends_after_its_last_element() {
    assert!(run("", "st.global.u32 [%rd3], 1;", 64).is_ok());
    let past = "0 bytes past the end of the 256 bytes";
    let fault = expect("", "st.global.u32 [%rd3], 1;", 65, ILLEGAL, "st.global.u32", past);
    assert_eq!(fault.thread, [64, 0, 0]);
    expect("", "ld.global.u32 %r2, [%rd1+256];", 1, ILLEGAL, "ld.global.u32", "past the end");
    expect("", "ld.global.u32 %r2, [%rd1+-4];", 1, ILLEGAL, "ld.global.u32", "4 bytes before the start");
    expect("", "st.global.v2.u32 [%rd1+256], {%r1, %r1};", 1, ILLEGAL, "st.global.v2", "past the end");
    expect("", "mov.u64 %rd4, 0; atom.global.add.u32 %r2, [%rd4], 1;", 1, ILLEGAL, "atom", "in no memory");
}

#[test]
fn freed_memory_is_gone() {
    let (mut device, address) = device(&[7], 0);
    assert!(device.memory.free(address) && !device.memory.free(address));
    assert_ne!(device.memory.allocate(4), Some(address));
    let fault = launch(&mut device, &kernel("", "ld.global.u32 %r2, [%rd1];"), 1, 1, address).unwrap_err();
    assert!(fault.status == ILLEGAL && fault.what.contains("freed"), "{fault}");
}

#[test]
fn unwritten_memory_is_not_read() {
    assert!(run("", "ld.global.nc.u32 %r2, [%rd1+124];", 1).is_ok());
    expect("", "ld.global.u32 %r2, [%rd1+128];", 1, FAILED, "ld.global", "never written");
    let vector = "st.global.u32 [%rd1+128], 1; ld.global.nc.v4.f32 {%f2, %f3, %f4, %f5}, [%rd1+128];";
    expect("", vector, 1, FAILED, "ld.global", "never written");
    let pair = ".shared .align 4 .b8 s[8];";
    assert!(run(pair, "st.shared.u32 [s+4], 1; ld.shared.u32 %r2, [s+4];", 1).is_ok());
    expect(pair, "st.shared.u32 [s], 1; ld.shared.u32 %r2, [s+4];", 1, FAILED, "ld.shared", "never written");
}

#[test]
fn shared_memory_does_not_outlive_its_block() {
    let body =
        "mov.u32 %r2, %ctaid.x; setp.eq.u32 %p1, %r2, 0; @%p1 st.shared.u32 [s], 1; ld.shared.u32 %r3, [s];";
    let text = kernel(".shared .align 4 .b8 s[4];", body);
    let (mut device, address) = device(&[7], 0);
    assert!(launch(&mut device, &text, 1, 1, address).is_ok());
    assert_eq!(launch(&mut device, &text, 2, 1, address).unwrap_err().block, [1, 0, 0]);
}

#[test]
fn addresses_are_aligned() {
    let misaligned = Status::Misaligned;
    expect("", "ld.global.u32 %r2, [%rd1+2];", 1, misaligned, "ld.global.u32", "4 bytes");
    expect("", "st.global.v2.u32 [%rd1+4], {%r1, %r1};", 1, misaligned, "st.global.v2", "8 bytes");
    let shared = ".shared .align 8 .b8 s[16];";
    expect(shared, "st.shared.f64 [s+4], %fd1;", 1, misaligned, "st.shared", "8 bytes");
}

#[test]
fn shared_memory_is_where_it_is_declared() {
    let two = ".shared .align 4 .b8 s[8];\n.shared .align 4 .b8 t[8];";
    assert!(run(two, "st.shared.u32 [s+4], 1; st.shared.u32 [t], 1;", 1).is_ok());
    expect(two, "st.shared.u32 [s+8], 1;", 1, ILLEGAL, "s+8", "in no variable");
    expect(two, "st.shared.u32 [s+-4], 1;", 1, ILLEGAL, "s+-4", "in no variable");
    let beyond = "mov.u32 %r2, t; st.shared.v2.u32 [%r2+8], {%r1, %r1};";
    expect(two, beyond, 1, ILLEGAL, "st.shared", "in no variable");
    expect(two, "mov.u32 %r2, 0; st.shared.u32 [%r2], 1;", 1, ILLEGAL, "st.shared", "in no variable");
}

#[test]
fn vectors_are_elements_in_their_order() {
    let body = "st.global.v2.u32 [%rd1], {1, 2}; ld.global.nc.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];
                st.global.f32 [%rd1+16], %f2; st.global.f32 [%rd1+20], %f4; ld.global.f64 %fd1, [%rd1];
                st.global.f64 [%rd1+24], %fd1;";
    assert_eq!(run("", body, 1).unwrap()[..8], [1, 2, 7, 7, 2, 7, 1, 2]);
}
