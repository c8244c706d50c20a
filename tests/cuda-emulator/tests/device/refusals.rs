//! Kernels and launches that are refused as such.

use crate::bench::{device, kernel};
use emulated_cuda::{Module, Shape};

#[test]
fn what_is_not_supported_is_refused_by_name_and_line() {
    let refused = |body: &str, text: &str| {
        let refusal = Module::load(&kernel("", body)).expect_err("a refusal");
        assert_eq!(refusal.line, 19, "{refusal}");
        assert!(refusal.why.contains(text) && refusal.text.contains(body), "{refusal}");
    };
    refused("wgmma.fence.sync.aligned;", "`wgmma.fence.sync.aligned` is not supported");
    refused("sin.approx.f32 %f1, %f1;", "`sin.approx.f32` is not supported");
    refused("add.rz.f32 %f1, %f1, %f1;", "`add.rz.f32` is not supported");
    refused("cvt.rz.f32.f64 %f1, %fd1;", "`cvt.rz.f32.f64` is not supported");
    refused("ld.global.u8 %rs1, [%rd1];", "`ld.global.u8` is not supported");
    refused("ld.local.u32 %r1, [%rd1];", "`ld.local.u32` is not supported");
    refused("atom.shared.add.u32 %r2, [%r1], 1;", "`atom.shared.add.u32` is not supported");
    refused("shfl.sync.down.b32 %r1|%p1, %r1, 1, 31, -1;", "`shfl.sync.down.b32` is not supported");
    refused("setp.lt.and.s32 %p1, %r1, %r2, %p3;", "`setp.lt.and.s32` is not supported");
    refused("bar.sync 1;", "`bar.sync` is not supported");
    refused("call (%r2), f, (%r1);", "`call` is not supported");
    refused("bra NOWHERE;", "unknown label");
    refused("mov.u32 %r2, %clock;", "`%clock` is not supported");
    refused(".local .align 4 .b8 a[4];", "not supported in a kernel");
    assert_eq!(Module::load(".version 7.0\n.func f() { ret; }").unwrap_err().line, 2);
}

#[test]
fn launches_have_a_sensible_shape() {
    let text = kernel("", "").replace(")\n{", ")\n.maxntid 64, 1, 1\n{");
    let (mut device, address) = device(&[0], 0);
    let module = Module::load(&text).unwrap();
    let kernel = module.kernel("k").unwrap();
    let mut launch =
        |grid, block, parameters: &[u64]| device.launch(kernel, Shape { grid, block }, parameters).is_ok();
    assert!(launch([1, 1, 1], [64, 1, 1], &[address]));
    assert!(!launch([1, 1, 1], [65, 1, 1], &[address]));
    assert!(!launch([0, 1, 1], [64, 1, 1], &[address]));
    assert!(!launch([1, 65536, 1], [64, 1, 1], &[address]));
    assert!(!launch([1, 1, 1], [64, 1, 1], &[]));
}
