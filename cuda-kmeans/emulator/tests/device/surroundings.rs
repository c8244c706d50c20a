//! What kernels find: where they are, parameters, variables, and memory of all kinds.

use crate::{
    bench::{
        Bench,
        Parameter::{Wide, Word},
    },
    checks::{FAILED, expect, run},
};

const HEADER: &str = ".version 9.0\n.target sm_80\n.address_size 64\n";

#[test]
fn threads_know_where_they_are() {
    let names = [
        "tid.x", "tid.y", "tid.z", "ctaid.x", "ctaid.y", "ctaid.z", "ntid.x", "ntid.y", "nctaid.x",
        "nctaid.z",
    ];
    let more =
        ["laneid", "warpid", "lanemask_eq", "lanemask_lt", "lanemask_le", "lanemask_gt", "lanemask_ge"];
    let all: Vec<&str> = names.into_iter().chain(more).collect();
    let stores: String = (all.iter().enumerate())
        .map(|(at, name)| format!("mov.u32 %r1, %{name};\nst.global.u32 [%rd2+{}], %r1;\n", 4 * at))
        .collect();
    let text = format!(
        "{HEADER}.visible .entry k(.param .u64 to) {{
            .reg .b32 %r<9>; .reg .b64 %rd<9>;
            ld.param.u64 %rd1, [to];
            mov.u32 %r2, %ctaid.z; mov.u32 %r3, %nctaid.y; mov.u32 %r4, %ctaid.y;
            mad.lo.u32 %r2, %r2, %r3, %r4; mov.u32 %r3, %nctaid.x; mov.u32 %r4, %ctaid.x;
            mad.lo.u32 %r2, %r2, %r3, %r4; mov.u32 %r3, %ntid.z; mov.u32 %r4, %tid.z;
            mad.lo.u32 %r2, %r2, %r3, %r4; mov.u32 %r3, %ntid.y; mov.u32 %r4, %tid.y;
            mad.lo.u32 %r2, %r2, %r3, %r4; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x;
            mad.lo.u32 %r2, %r2, %r3, %r4;
            mad.wide.u32 %rd2, %r2, {}, %rd1;
            {stores}
            ret;
        }}",
        4 * all.len()
    );
    let (grid, block) = ([2, 3, 2], [5, 4, 2]);
    let mut bench = Bench::new(&text, 0);
    let threads: u32 = grid.iter().chain(&block).product();
    let to = bench.room(threads as usize * all.len() * 4);
    bench.run_blocks("k", grid, block, 0, &[Wide(to)]).unwrap();
    let results = bench.download(to, threads as usize * all.len(), u32::from_le_bytes);
    for (number, own) in (0..).zip(results.chunks(all.len())) {
        let (index, thread) = (number / 40, number % 40);
        let (lane, x) = (thread % 32, [thread % 5, thread / 5 % 4, thread / 20]);
        let less = (1_u32 << lane) - 1;
        let expected = [x[0], x[1], x[2], index % 2, index / 2 % 3, index / 6, 5, 4, 2, 2, lane, thread / 32];
        assert_eq!(own[..12], expected);
        assert_eq!(own[12..], [1 << lane, less, less | 1 << lane, !(less | 1 << lane), !less]);
    }
}

#[test]
fn variables_of_the_module() {
    let text = format!(
        "{HEADER}.const .align 4 .b8 table[8] = {{1, 2, 3, 4, 0xFF}};
        .global .align 8 .u64 counter = 7;
        .global .align 4 .u32 matrix[2][2] = {{{{1, 2}}, {{3}}}};
        .global .align 4 .f32 half = 0f3F000000;
        .visible .entry k(.param .u64 to) {{
            .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<3>;
            ld.param.u64 %rd1, [to];
            ld.const.s8 %r1, [table+4]; st.global.u32 [%rd1], %r1;
            atom.global.add.u64 %rd2, [counter], 2; ld.global.u64 %rd3, [counter];
            st.global.v2.u64 [%rd1+16], {{%rd2, %rd3}};
            mov.u64 %rd4, matrix; ld.global.v4.u32 {{%r1, %r2, %r3, %r4}}, [%rd4];
            st.global.v4.u32 [%rd1+32], {{%r1, %r2, %r3, %r4}};
            ld.global.f32 %f1, [half]; st.global.f32 [%rd1+4], %f1;
            mov.u64 %rd5, table; cvta.const.u64 %rd6, %rd5; ld.u8 %r5, [%rd6+1]; st.global.u32 [%rd1+8], %r5;
            ret;
        }}"
    );
    let mut bench = Bench::new(&text, 0);
    let to = bench.room(48);
    bench.run("k", [1, 1, 1], 1, 0, &[Wide(to)]).unwrap();
    let words = bench.download(to, 12, u32::from_le_bytes);
    assert_eq!(words, [u32::MAX, 0x3F00_0000, 2, 0, 7, 0, 9, 0, 1, 2, 3, 0]);
}

#[test]
fn parameters_have_their_places() {
    let text = format!(
        "{HEADER}.visible .entry k(.param .u32 first, .param .u64 .ptr .align 1 to, .param .u32 last) {{
            .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .b16 %rs<9>;
            ld.param.u64 %rd1, [to];
            ld.param.u32 %r1, [first]; ld.param.v4.u8 {{%rs1, %rs2, %rs3, %rs4}}, [last];
            cvt.u32.u16 %r2, %rs2; add.u32 %r3, %r1, %r2; st.global.u32 [%rd1], %r3;
            mov.b64 %rd2, last; cvta.param.u64 %rd3, %rd2; ld.u32 %r4, [%rd3]; st.global.u32 [%rd1+4], %r4;
            ret;
        }}"
    );
    let mut bench = Bench::new(&text, 0);
    let to = bench.room(8);
    bench.run("k", [1, 1, 1], 1, 0, &[Word(1000), Wide(to), Word(0x0403_0201)]).unwrap();
    assert_eq!(bench.download(to, 2, u32::from_le_bytes), [1002, 0x0403_0201]);
}

#[test]
fn loads_extend_the_sign_and_stores_cut() {
    let body = "st.global.u32 [%rd1], 0xFFFF80FE; ld.global.s8 %rs1, [%rd1]; ld.global.s16 %r2, [%rd1]; ld.global.u8 %r3, [%rd1];
                ld.global.s8 %rd4, [%rd1+1]; cvt.u32.u16 %r4, %rs1; st.global.v2.u32 [%rd1+8], {%r2, %r3};
                st.global.u32 [%rd1+16], %r4; st.global.u64 [%rd1+24], %rd4; st.global.u8 [%rd1+4], %rd4;";
    let words = run("", body, 1).unwrap();
    assert_eq!(words[..8], [0xFFFF_80FE, 0x80, 0xFFFF_80FE, 0xFE, 0xFFFE, 7, 0xFFFF_FF80, u32::MAX]);
}

#[test]
fn atomics_on_generic_addresses() {
    let body = "st.shared.u32 [s], 5; mov.u64 %rd4, s; cvta.shared.u64 %rd5, %rd4; atom.max.s32 %r2, [%rd5], 9;
                atom.exch.b32 %r3, [%rd1], 4; ld.shared.u32 %r4, [s]; atom.global.dec.u32 %r5, [%rd1+4], 3;
                red.relaxed.gpu.global.xor.b32 [%rd1+8], 2; st.global.v4.u32 [%rd1+16], {%r2, %r3, %r4, %r5};";
    let words = run(".shared .align 4 .b8 s[4];", body, 1).unwrap();
    assert_eq!(words[..8], [4, 3, 5, 7, 5, 7, 9, 7]);
}

#[test]
fn a_thread_is_active_on_its_own() {
    let words = run("", "activemask.b32 %r2; st.global.u32 [%rd3], %r2;", 32).unwrap();
    assert!((0..32).all(|lane| words[lane] == 1 << lane));
}

#[test]
fn time_passes() {
    let body =
        "mov.u64 %rd4, %clock64; add.u32 %r2, %r1, 1; mov.u64 %rd5, %clock64; setp.lt.u64 %p1, %rd4, %rd5;
                selp.u32 %r3, 1, 0, %p1; st.global.u32 [%rd1], %r3;";
    assert_eq!(run("", body, 1).unwrap()[0], 1);
}

#[test]
fn who_waits_for_memory_lets_others_run() {
    let body = "setp.eq.u32 %p1, %r1, 33; @%p1 atom.global.exch.b32 %r2, [%rd1], 1; @%p1 bra DONE;
                WAIT: ld.volatile.global.u32 %r3, [%rd1]; setp.ne.u32 %p2, %r3, 1; @%p2 bra WAIT; DONE:";
    assert!(run("", body, 64).is_ok());
}

#[test]
fn braces_have_registers_of_their_own() {
    let body = "mov.u32 %r2, 1; { .reg .b32 %r2; mov.u32 %r2, 2; st.global.u32 [%rd1], %r2; }
                st.global.u32 [%rd1+4], %r2;";
    assert_eq!(run("", body, 1).unwrap()[..2], [2, 1]);
}

#[test]
fn loops_and_guards() {
    let body = "mov.u32 %r2, 0; mov.u32 %r3, 0; A: add.u32 %r3, %r3, %r2; add.u32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, 10;
                @%p1 bra A; setp.eq.u32 %p2, %r1, 1; @!%p2 add.u32 %r3, %r3, 100; @%p2 bra.uni B; st.global.u32 [%rd3], %r3; B:";
    assert_eq!(run("", body, 3).unwrap()[..3], [145, 7, 145]);
}

#[test]
fn zero_and_null_are_no_addresses() {
    let status = emulated_cuda::Status::IllegalAddress;
    expect("", "mov.u64 %rd4, 0; ld.u32 %r2, [%rd4];", 1, status, "ld.u32", "in no memory");
    expect(
        ".shared .align 4 .b8 s[4];",
        "mov.u32 %r2, 0; st.shared.u32 [%r2], 1;",
        1,
        status,
        "st.shared",
        "in no variable",
    );
    expect("", "mov.u64 %rd4, 0; st.local.u32 [%rd4], 1;", 1, status, "st.local", "in no variable");
    let copy = "cp.async.ca.shared.global [s], [%rd1], 4, 8;";
    expect(".shared .align 16 .b8 s[4];", copy, 1, FAILED, "cp.async", "reads 8 bytes");
}
