//! Runs single instructions on given operands.

use crate::bench::{Bench, Parameter::Wide};
use std::fmt::Write as _;

/// Operands of an instruction: `%r1`, `%rd1`, `%f1`, and so on hold the first of these, and likewise the others. `%p1` to `%p3`
/// are their lowest bits.
pub type Operands = [u64; 3];

/// What is in the register that an instruction sets, which has the number zero, for each of the operands.
pub fn results(instruction: &str, operands: &[Operands]) -> Vec<u64> {
    let names = instruction.split(|c: char| !c.is_ascii_alphanumeric() && c != '%');
    let target = names.filter(|name| name.starts_with('%')).find_map(|name| name[1..].strip_suffix('0'));
    let keep = match target {
        Some("p") => "selp.b64 %rd0, 1, 0, %p0;",
        Some("rs") => "cvt.u64.u16 %rd0, %rs0;",
        Some("r") => "cvt.u64.u32 %rd0, %r0;",
        Some("f") => "mov.b32 %r0, %f0; cvt.u64.u32 %rd0, %r0;",
        Some("fd") => "mov.b64 %rd0, %fd0;",
        _ => "",
    };
    // What a guard leaves out is zero.
    let clear = "setp.ne.u32 %p0, 0, 0;";
    let mut body = String::new();
    for (at, operands) in operands.iter().enumerate() {
        for (number, bits) in operands.iter().enumerate() {
            let n = number + 1;
            let _ = writeln!(
                body,
                "mov.b64 %rd{n}, {bits}; mov.b64 %fd{n}, %rd{n}; cvt.u32.u64 %r{n}, %rd{n}; mov.b32 %f{n}, %r{n};
                 cvt.u16.u32 %rs{n}, %r{n}; and.b32 %r9, %r{n}, 1; setp.ne.u32 %p{n}, %r9, 0;"
            );
        }
        let _ = writeln!(body, "{clear} {instruction}; {keep} st.global.u64 [%rd9+{}], %rd0;", 8 * at);
    }
    let text = format!(
        ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 to) {{
         .reg .pred %p<10>; .reg .b16 %rs<10>; .reg .b32 %r<10>; .reg .b64 %rd<10>; .reg .f32 %f<10>; .reg .f64 %fd<10>;
         ld.param.u64 %rd9, [to];\n{body} ret; }}"
    );
    let mut bench = Bench::new(&text, 0);
    let to = bench.room(operands.len() * 8);
    bench.run("k", [1, 1, 1], 1, 0, &[Wide(to)]).unwrap_or_else(|error| panic!("{instruction}: {error}"));
    bench.download(to, operands.len(), u64::from_le_bytes)
}

/// Compares an instruction with what it should do.
pub fn check(instruction: &str, operands: &[Operands], expected: impl Fn(Operands) -> u64) {
    for (&operands, result) in operands.iter().zip(results(instruction, operands)) {
        let expected = expected(operands);
        assert_eq!(result, expected, "{instruction}: {operands:#x?} gives {result:#x}, not {expected:#x}");
    }
}
