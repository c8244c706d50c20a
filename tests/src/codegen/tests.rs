//! The whole check on small assembly files, most of them with something wrong.

use super::{listing, report::Report, syntax::Syntax};
use std::path::Path;

const INTRINSIC: &str = "_RNvNtNtNtCsgEmfK2I1SDS_4core9core_arch3x867avx512f15__mm512_fmadd_ps";

/// The symbols of `<token as Kernels>::rotate` for the backends of a language.
const AVX512BF16: &str = "_RNvXs_NtCs1Nh1I0OnTSJ_12a2ats_kernel8dispatchNtNtNtB6_4arch10avx512bf1610Avx512Bf16NtB4_7Kernels6rotate";
const AVX512: &str =
    "_RNvXs_NtCs1Nh1I0OnTSJ_12a2ats_kernel8dispatchNtNtNtB6_4arch6avx5126Avx512NtB4_7Kernels6rotate";
const AVX2: &str =
    "_RNvXs_NtCs1Nh1I0OnTSJ_12a2ats_kernel8dispatchNtNtNtB6_4arch4avx24Avx2NtB4_7Kernels6rotate";
const NEON: &str =
    "_RNvXs_NtCsdQgKbUTgFby_12a2ats_kernel8dispatchNtNtNtB6_4arch4neon4NeonNtB4_7Kernels6rotate";
const NEONBF16: &str =
    "_RNvXs_NtCsdQgKbUTgFby_12a2ats_kernel8dispatchNtNtNtB6_4arch8neonbf168NeonBf16NtB4_7Kernels6rotate";
/// `a2ats_kernel::dots::dots::<Avx512, f32>`
const DOTS: &str = "_RINvNtCs1Nh1I0OnTSJ_12a2ats_kernel4dots4dotsNtNtNtB4_4arch6avx5126Avx512fEB4_";

/// A loop as the compiler writes it.
const ZMM_LOOP: &str = "\
	.p2align	4
.LBB7_2:                                # =>This Inner Loop Header: Depth=1
	cmpq	%rax, %rbx
	je	.LBB7_4
# %bb.3:                                #   in Loop: Header=BB7_2 Depth=1
	vmovups	(%rcx,%rax,4), %zmm0
	vfmadd231ps	(%r15,%rax,4), %zmm0, %zmm2 # zmm2 = (zmm0 * mem) + zmm2
	addq	$16, %rax
	jmp	.LBB7_2
.LBB7_4:
	vmovaps	%zmm3, 1216(%rsp)               # 64-byte Spill
	callq	*expf@GOTPCREL(%rip)
	retq
";

const NEON_LOOP: &str = "\
.LBB7_2:                                // =>This Inner Loop Header: Depth=1
	cbz	x10, .LBB7_4
// %bb.3:                               //   in Loop: Header=BB7_2 Depth=1
	ldp	q0, q4, [x12, #-16]
	fmla	v6.4s, v0.4s, v4.4s
	b	.LBB7_2
.LBB7_4:
	ret
";

fn function(symbol: &str, body: &str) -> String {
    format!("\t.type\t{symbol},@function\n{symbol}:\n{body}.Lfunc_end7:\n\t.size\t{symbol}, 8\n")
}

/// Reads an x86-64 file whose AVX-512 kernel is `body`, with good ones of the other backends, and `more` functions.
fn x86_64(body: &str, more: &str) -> Report {
    let good = |symbol| function(symbol, ZMM_LOOP);
    let avx2 = function(AVX2, &ZMM_LOOP.replace("zmm", "ymm"));
    let text = good(AVX512BF16) + &function(AVX512, body) + &avx2 + more;
    Report::new(Path::new("x.s"), Syntax::X86_64, listing::functions(&text, Syntax::X86_64))
}

fn aarch64(body: &str) -> Report {
    let text = function(NEONBF16, NEON_LOOP) + &function(NEON, body);
    Report::new(Path::new("x.s"), Syntax::AArch64, listing::functions(&text, Syntax::AArch64))
}

#[track_caller]
fn assert_fails(report: &Report, because: &str) {
    let text = report.text(false);
    assert!(report.failed() && text.contains(because), "{text}");
}

#[track_caller]
fn assert_passes(report: &Report) {
    assert!(!report.failed(), "{}", report.text(true));
}

#[test]
fn good_loops_pass() {
    let report = x86_64(ZMM_LOOP, "");
    assert_passes(&report);
    let list = report.text(true);
    let row = list.lines().find(|line| line.starts_with("avx512 ")).expect("a row");
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(columns[..8], ["avx512", "BB7_2", "6", "1", "2", "0", "0", "0"]);
    assert!(row.ends_with("<Avx512 as Kernels>::rotate"), "{row}");
    assert!(
        list.contains("avx2: 1 functions, 1 inner loops with 1 multiply-adds in 6 instructions"),
        "{list}"
    );
    assert_passes(&aarch64(NEON_LOOP));
}

#[test]
fn spills_in_the_loop_fail() {
    let spill = "vmovaps	%zmm3, 96(%rsp)         # 64-byte Spill\n\taddq";
    assert_fails(&x86_64(&ZMM_LOOP.replace("addq", spill), ""), "vector registers go to the stack");
    // Where there are two comments, the second one has a line of its own.
    let folded = "vaddps	96(%rsp), %zmm3, %zmm3  # 64-byte Folded Reload\n# zmm3 = x\n\taddq";
    assert_fails(&x86_64(&ZMM_LOOP.replace("addq", folded), ""), "line 27: vaddps 96(%rsp), %zmm3, %zmm3");
    let reload = "ldr	q6, [sp, #464]          // 16-byte Reload\n\tfmla";
    assert_fails(&aarch64(&NEON_LOOP.replace("fmla", reload)), "vector registers go to the stack");
}

#[test]
fn arrays_on_the_stack_and_addresses_that_are_spilled_pass() {
    assert_passes(&x86_64(&ZMM_LOOP.replace("(%r15,%rax,4)", "64(%rsp,%rax,4)"), ""));
    assert_passes(&x86_64(&ZMM_LOOP.replace("addq", "movq	8(%rsp), %r9 # 8-byte Reload\n\taddq"), ""));
    assert_passes(&aarch64(&NEON_LOOP.replace("[x12, #-16]", "[sp, #32]")));
}

#[test]
fn calls_in_the_loop_fail() {
    assert_fails(
        &x86_64(&ZMM_LOOP.replace("addq", "callq	*expf@GOTPCREL(%rip)\n\taddq"), ""),
        "calls a function",
    );
    assert_fails(
        &aarch64(&NEON_LOOP.replace("fmla", "bl	expf\n\tfmla")),
        "loop BB7_2 of 5 instructions: calls",
    );
}

#[test]
fn intrinsics_as_functions_fail() {
    let direct = ZMM_LOOP.replace("retq", &format!("callq	{INTRINSIC}"));
    assert_fails(&x86_64(&direct, ""), "line 32: _mm512_fmadd_ps");
    let through_register = ZMM_LOOP.replace("retq", &format!("movq	{INTRINSIC}@GOTPCREL(%rip), %r14"));
    assert_fails(&x86_64(&through_register, ""), "line 32: _mm512_fmadd_ps");
}

#[test]
fn pieces_of_kernels_as_functions_fail() {
    let piece = "\tvmovaps	(%rsi), %zmm0\n\tvaddps	(%rdx), %zmm0, %zmm0\n\tvmovaps	%zmm0, (%rdi)\n\tretq\n";
    assert_fails(
        &x86_64(ZMM_LOOP, &function(DOTS, piece)),
        "dots<Avx512, f32>: vector arithmetic without a loop",
    );
}

#[test]
fn missing_features_fail() {
    assert_fails(
        &x86_64(&ZMM_LOOP.replace("retq", "addps	%xmm0, %xmm1"), ""),
        "instructions older than the backend",
    );
}

#[test]
fn leftovers_beside_vectors_fail() {
    let scalar = ZMM_LOOP.replace("addq", "vfmadd231ss	%xmm0, %xmm1, %xmm2\n\taddq");
    assert_fails(&x86_64(&scalar, ""), "multiply-adds of less than a register");
    let narrow = ZMM_LOOP.replace("addq", "vfmadd231ps	%xmm0, %xmm1, %xmm2\n\taddq");
    assert_fails(&x86_64(&narrow, ""), "multiply-adds of less than a register");
    let scalar = NEON_LOOP.replace("ldp", "fmadd	s0, s1, s2, s0\n\tldp");
    assert_fails(&aarch64(&scalar), "multiply-adds of less than a register");
    let reduction = x86_64(&ZMM_LOOP.replace("addq", "vaddps	%xmm0, %xmm1, %xmm2\n\taddq"), "");
    assert_passes(&reduction);
    assert!(reduction.text(true).contains("warning: avx512: <Avx512 as Kernels>::rotate: loop BB7_2"));
}

#[test]
fn a_loop_around_others_only_warns() {
    let prefetch = "\
.LBB7_9:                                #   Parent Loop BB7_2 Depth=1
                                        # =>  This Inner Loop Header: Depth=2
	prefetcht1	(%rdi)
	jne	.LBB7_9
# %bb.10:                               #   in Loop: Header=BB7_2 Depth=1
	vmovaps	%zmm3, 96(%rsp)                 # 64-byte Spill
	addq";
    let report = x86_64(&ZMM_LOOP.replace("This Inner Loop", "This Loop").replace("addq", prefetch), "");
    assert_passes(&report);
    assert!(report.text(true).contains("warning: avx512: <Avx512 as Kernels>::rotate: loop BB7_2 of 7"));
}

#[test]
fn calls_in_a_loop_inside_of_it_fail() {
    let walk = "\
.LBB7_9:                                #   Parent Loop BB7_2 Depth=1
                                        # =>  This Inner Loop Header: Depth=2
	callq	*next@GOTPCREL(%rip)
	jne	.LBB7_9
# %bb.10:                               #   in Loop: Header=BB7_2 Depth=1
	addq";
    let report = x86_64(&ZMM_LOOP.replace("This Inner Loop", "This Loop").replace("addq", walk), "");
    assert_fails(&report, "loop BB7_9 of 2 instructions: calls a function beside multiply-adds");
}

#[test]
fn nothing_to_check_fails() {
    assert_fails(&x86_64(&ZMM_LOOP.replace("vfmadd231ps", "vaddps"), ""), "avx512: rotate: no inner loop");
    assert_fails(&aarch64(&NEON_LOOP.replace("fmla", "fadd")), "neon: rotate: no inner loop");
    let nothing = Report::new(Path::new("x.s"), Syntax::X86_64, Vec::new());
    assert_fails(&nothing, "no kernel table of backend avx512bf16");
}

#[test]
fn every_storage_type_needs_a_loop() {
    let calls = ZMM_LOOP.replace("expf", DOTS);
    assert_passes(&x86_64(&calls, &function(DOTS, ZMM_LOOP)));
    let without = function(DOTS, &ZMM_LOOP.replace("vfmadd231ps", "vaddps"));
    assert_fails(&x86_64(&calls, &without), "avx512: rotate: no inner loop with multiply-adds for f32");
}
