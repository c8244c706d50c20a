//! Single instructions on given operands, against plain Rust.

use crate::bench::{device, kernel, launch, numbers, words};

/// Operands of an instruction: `%r1`, `%rd1`, `%f1`, and so on hold the first of these, and likewise the others. `%p1` to `%p3`
/// are their lowest bits.
type Operands = [u64; 3];

/// What is in the register that an instruction sets, which has the number zero, for each of the operands.
fn results(instruction: &str, operands: &[Operands]) -> Vec<u64> {
    let target = instruction.split(' ').nth(1).expect("a target").trim_end_matches("0,");
    let keep = match target {
        "%p" => "selp.b32 %r0, 1, 0, %p0; cvt.u64.u32 %rd0, %r0;",
        "%r" => "cvt.u64.u32 %rd0, %r0;",
        "%f" => "mov.b32 %r0, %f0; cvt.u64.u32 %rd0, %r0;",
        "%fd" => "mov.b64 %rd0, %fd0;",
        _ => "",
    };
    let load = |n: u64| {
        format!(
            "ld.global.u64 %rd{n}, [%rd20+{}]; mov.b64 %fd{n}, %rd{n}; cvt.u32.u64 %r{n}, %rd{n}; mov.b32 %f{n}, %r{n};
             and.b32 %r9, %r{n}, 1; setp.ne.s32 %p{n}, %r9, 0;\n",
            8 * (n - 1)
        )
    };
    let body = format!(
        "mul.wide.u32 %rd10, %r1, 24; add.s64 %rd20, %rd1, %rd10; {} {} {} {instruction}; {keep} st.global.u64 [%rd20], %rd0;",
        load(1),
        load(2),
        load(3)
    );
    let halves = |bits: &u64| [*bits as u32, (*bits >> 32) as u32];
    let all: Vec<u32> = operands.iter().flatten().flat_map(halves).collect();
    let (mut device, address) = device(&all, 0);
    launch(&mut device, &kernel("", &body), 1, operands.len() as u32, address)
        .unwrap_or_else(|fault| panic!("{instruction}: {fault}"));
    let results = words(&device, address, all.len());
    results.chunks(6).map(|words| u64::from(words[1]) << 32 | u64::from(words[0])).collect()
}

/// Compares an instruction with what it should do.
fn check(instruction: &str, operands: &[Operands], expected: impl Fn(Operands) -> u64) {
    for (&operands, result) in operands.iter().zip(results(instruction, operands)) {
        let expected = expected(operands);
        assert_eq!(result, expected, "{instruction}: {operands:#x?} gives {result:#x}, not {expected:#x}");
    }
}

/// Operands where something special happens, and some where nothing does.
fn whole() -> Vec<Operands> {
    let (word, wide) = (0xFFFF_FFFF_u64, 1_u64 << 63);
    let edges =
        [0, 1, 31, 33, 0x7FFF, 0xFFFF, word >> 1, word ^ word >> 1, word, wide, !0, 0x1234_5678_9ABC_DEF0];
    let mut next = numbers(1);
    let mut any = || u64::from(next()) << 33 ^ u64::from(next());
    let pairs = edges.iter().flat_map(|&a| edges.iter().map(move |&b| (a, b)));
    let mut all: Vec<Operands> = pairs.map(|(a, b)| [a, b, edges[(any() % 12) as usize]]).collect();
    all.extend((0..50).map(|_| [any(), any(), any() % 70]));
    all
}

#[test]
fn arithmetic() {
    let all = &whole();
    check("add.s32 %r0, %r1, %r2", all, |[a, b, _]| u64::from((a as u32).wrapping_add(b as u32)));
    check("add.s64 %rd0, %rd1, %rd2", all, |[a, b, _]| a.wrapping_add(b));
    check("sub.s32 %r0, %r1, %r2", all, |[a, b, _]| u64::from((a as u32).wrapping_sub(b as u32)));
    check("mul.lo.s32 %r0, %r1, %r2", all, |[a, b, _]| u64::from((a as u32).wrapping_mul(b as u32)));
    check("mul.lo.s64 %rd0, %rd1, %rd2", all, |[a, b, _]| a.wrapping_mul(b));
    check("mul.wide.u32 %rd0, %r1, %r2", all, |[a, b, _]| u64::from(a as u32) * u64::from(b as u32));
    check("mul.wide.s32 %rd0, %r1, %r2", all, |[a, b, _]| (i64::from(a as i32) * i64::from(b as i32)) as u64);
    check("mad.lo.s32 %r0, %r1, %r2, %r3", all, |[a, b, c]| {
        u64::from((a as u32).wrapping_mul(b as u32).wrapping_add(c as u32))
    });
    check("rem.u64 %rd0, %rd1, %rd2", all, |[a, b, _]| if b == 0 { a } else { a % b });
    check("min.u32 %r0, %r1, %r2", all, |[a, b, _]| u64::from((a as u32).min(b as u32)));
    check("max.u32 %r0, %r1, %r2", all, |[a, b, _]| u64::from((a as u32).max(b as u32)));
    check("max.s32 %r0, %r1, %r2", all, |[a, b, _]| u64::from((a as i32).max(b as i32) as u32));
}

#[test]
fn bits() {
    let all = &whole();
    let low = |bits: u64| bits & 0xFFFF_FFFF;
    check("and.b32 %r0, %r1, %r2", all, |[a, b, _]| low(a & b));
    check("or.b32 %r0, %r1, -2", all, |[a, ..]| low(a | !1));
    check("xor.b64 %rd0, %rd1, %rd2", all, |[a, b, _]| a ^ b);
    check("not.b32 %r0, %r1", all, |[a, ..]| low(!a));
    check("or.pred %p0, %p1, %p2", all, |[a, b, _]| (a | b) & 1);
    check("and.pred %p0, %p1, %p2", all, |[a, b, _]| a & b & 1);
    check("mov.pred %p0, -1", all, |_| 1);
    check("shl.b32 %r0, %r1, %r2", all, |[a, b, _]| u64::from((a as u32).checked_shl(b as u32).unwrap_or(0)));
    check("shl.b64 %rd0, %rd1, %r2", all, |[a, b, _]| a.checked_shl(b as u32).unwrap_or(0));
    check("shr.u32 %r0, %r1, %r2", all, |[a, b, _]| u64::from((a as u32).checked_shr(b as u32).unwrap_or(0)));
    check("shr.u64 %rd0, %rd1, %r2", all, |[a, b, _]| a.checked_shr(b as u32).unwrap_or(0));
    check("popc.b32 %r0, %r1", all, |[a, ..]| u64::from((a as u32).count_ones()));
    check("clz.b32 %r0, %r1", all, |[a, ..]| u64::from((a as u32).leading_zeros()));
    check("brev.b32 %r0, %r1", all, |[a, ..]| u64::from((a as u32).reverse_bits()));
    check("bfind.shiftamt.u32 %r0, %r1", all, |[a, ..]| match a as u32 {
        0 => u64::from(u32::MAX),
        a => u64::from(a.leading_zeros()),
    });
    for (start, length) in [(0, 0), (0, 32), (3, 7), (30, 5), (31, 1), (32, 4), (8, 60), (40, 3)] {
        check(&format!("bfi.b32 %r0, %r1, %r2, {start}, {length}"), all, |[a, b, _]| {
            let inside = |at| at >= start && at < start + length;
            (0..32).fold(0, |all, at| all | (if inside(at) { a >> (at - start) } else { b >> at } & 1) << at)
        });
    }
    check("selp.b32 %r0, %r1, %r2, %p3", all, |[a, b, c]| low(if c & 1 == 1 { a } else { b }));
    check("cvt.u64.u32 %rd0, %r1", all, |[a, ..]| low(a));
    check("cvta.to.global.u64 %rd0, %rd1", all, |[a, ..]| a);
    check("mov.b64 %fd0, {%r1, %r2}", all, |[a, b, _]| low(a) | b << 32);
    check("mov.b64 {%r4, %r5}, %fd1; xor.b32 %r0, %r4, %r5; cvt.u64.u32 %rd0, %r0", all, |[a, ..]| {
        low(a ^ a >> 32)
    });
}

/// Values where something special happens, and some where nothing does, in all pairs.
fn floats() -> Vec<[f32; 3]> {
    let (tiny, inf) = (f32::MIN_POSITIVE, f32::INFINITY);
    let values = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        3.25,
        f32::MAX,
        tiny,
        tiny / 4.0,
        inf,
        -inf,
        f32::NAN,
        1e-20,
        16_777_217.0,
        0.1,
    ];
    let pairs = values.iter().flat_map(|&a| values.iter().map(move |&b| (a, b)));
    pairs.flat_map(|(a, b)| [-0.3, 7e10, f32::NAN].map(|c| [a, b, c])).collect()
}

/// The bits of a result; there is one NaN.
fn single(x: f32) -> u64 {
    if x.is_nan() { 0x7FFF_FFFF } else { u64::from(x.to_bits()) }
}

/// The same for doubles.
fn double(x: f64) -> u64 {
    if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() }
}

#[test]
fn arithmetic_of_floats() {
    let check_single = |instruction: &str, expected: fn(f32, f32, f32) -> f32| {
        let all: Vec<Operands> =
            floats().iter().map(|values| values.map(|x| u64::from(x.to_bits()))).collect();
        check(instruction, &all, |operands| {
            let [a, b, c] = operands.map(|bits| f32::from_bits(bits as u32));
            single(expected(a, b, c))
        });
    };
    check_single("add.f32 %f0, %f1, %f2", |a, b, _| a + b);
    check_single("sub.f32 %f0, %f1, %f2", |a, b, _| a - b);
    check_single("mul.f32 %f0, %f1, %f2", |a, b, _| a * b);
    check_single("fma.rn.f32 %f0, %f1, %f2, %f3", |a, b, c| a.mul_add(b, c));
    let all: Vec<Operands> =
        floats().iter().map(|values| values.map(|x| (f64::from(x) * 1.000_000_001).to_bits())).collect();
    let check_double = |instruction: &str, expected: fn(f64, f64, f64) -> f64| {
        for (operands, result) in all.iter().zip(results(instruction, &all)) {
            let [a, b, c] = operands.map(f64::from_bits);
            let expected = double(expected(a, b, c));
            assert_eq!(double(f64::from_bits(result)), expected, "{instruction}: {a:e} {b:e} {c:e}");
        }
    };
    check_double("add.f64 %fd0, %fd1, %fd2", |a, b, _| a + b);
    check_double("sub.f64 %fd0, %fd1, %fd2", |a, b, _| a - b);
    check_double("mul.f64 %fd0, %fd1, %fd2", |a, b, _| a * b);
    check_double("fma.rn.f64 %fd0, %fd1, %fd2, %fd3", |a, b, c| a.mul_add(b, c));
    check_double("div.rn.f64 %fd0, %fd1, %fd2", |a, b, _| a / b);
    check_double("sqrt.rn.f64 %fd0, %fd1", |a, _, _| a.sqrt());
    check("cvt.rn.f32.f64 %f0, %fd1", &all, |[a, ..]| single(f64::from_bits(a) as f32));
    check("cvt.f64.f32 %fd0, %f3", &all, |[.., c]| f64::from(f32::from_bits(c as u32)).to_bits());
    check("cvt.rn.f64.u64 %fd0, %rd1", &whole(), |[a, ..]| (a as f64).to_bits());
}

#[test]
fn floats_of_tensor_cores() {
    let all: Vec<Operands> = floats().iter().map(|values| values.map(|x| u64::from(x.to_bits()))).collect();
    check("cvt.rna.tf32.f32 %r0, %f1", &all, |[a, ..]| match f32::from_bits(a as u32) {
        x if x.is_nan() => 0x7FFF_E000,
        _ => (a + 0x1000) & 0xFFFF_E000,
    });
}

#[test]
fn comparisons() {
    let all = &whole();
    for (name, order) in [("eq", "="), ("ne", "<>"), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")] {
        let holds = |ordering: std::cmp::Ordering| {
            u64::from(order.contains(["<", "=", ">"][(ordering as i8 + 1) as usize]))
        };
        let check = |suffix: &str, register: &str, expected: &dyn Fn(u64, u64) -> u64, all: &[Operands]| {
            let instruction = format!("setp.{name}{suffix} %p0, {register}1, {register}2");
            check(&instruction, all, |[a, b, _]| expected(a, b));
        };
        check(".u32", "%r", &|a, b| holds((a as u32).cmp(&(b as u32))), all);
        check(".s32", "%r", &|a, b| holds((a as i32).cmp(&(b as i32))), all);
        check(".s64", "%rd", &|a, b| holds((a as i64).cmp(&(b as i64))), all);
        let float = |bits: u64| f32::from_bits(bits as u32);
        let singles: Vec<Operands> =
            floats().iter().map(|values| values.map(|x| u64::from(x.to_bits()))).collect();
        check(".f32", "%f", &|a, b| float(a).partial_cmp(&float(b)).map_or(0, holds), &singles);
        check("u.f32", "%f", &|a, b| float(a).partial_cmp(&float(b)).map_or(1, holds), &singles);
        let doubles: Vec<Operands> =
            floats().iter().map(|values| values.map(|x| f64::from(x).to_bits())).collect();
        let double = f64::from_bits;
        check(".f64", "%fd", &|a, b| double(a).partial_cmp(&double(b)).map_or(0, holds), &doubles);
        check("u.f64", "%fd", &|a, b| double(a).partial_cmp(&double(b)).map_or(1, holds), &doubles);
    }
}
