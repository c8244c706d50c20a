//! Arithmetic and comparisons of floats.

use crate::{
    bench::numbers,
    table::{Operands, check, results},
};
use std::cmp::Ordering;

/// Values where something special happens, and some where nothing does, in all pairs; as 32-bit floats.
fn singles() -> Vec<Operands> {
    let values = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        3.25,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::MIN_POSITIVE / 4.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1e-20,
        16_777_217.0,
        0.1,
    ];
    let mut all = Vec::new();
    for a in values {
        for b in values {
            for c in [0.0, -0.3, 7e10, f32::NAN] {
                all.push([a, b, c].map(|x: f32| u64::from(x.to_bits())));
            }
        }
    }
    all
}

/// The same as 64-bit floats.
fn doubles() -> Vec<Operands> {
    let wide = |bits: u64| f64::from(f32::from_bits(bits as u32));
    singles()
        .into_iter()
        .map(|operands| operands.map(|bits| (wide(bits) * 1.000_000_001).to_bits()))
        .collect()
}

/// The bits of a result; there is one NaN.
fn bits(x: f32) -> u64 {
    if x.is_nan() { 0x7FFF_FFFF } else { u64::from(x.to_bits()) }
}

fn single(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// What is left of a value whose subnormals are zero.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

#[test]
fn singles_to_nearest() {
    let all = &singles();
    let check = |instruction: &str, expected: fn(f32, f32, f32) -> f32| {
        check(instruction, all, |[a, b, c]| bits(expected(single(a), single(b), single(c))));
    };
    check("add.f32 %f0, %f1, %f2", |a, b, _| a + b);
    check("add.rn.f32 %f0, %f1, %f2", |a, b, _| a + b);
    check("sub.f32 %f0, %f1, %f2", |a, b, _| a - b);
    check("mul.f32 %f0, %f1, %f2", |a, b, _| a * b);
    check("fma.rn.f32 %f0, %f1, %f2, %f3", |a, b, c| a.mul_add(b, c));
    check("div.rn.f32 %f0, %f1, %f2", |a, b, _| a / b);
    check("rcp.rn.f32 %f0, %f1", |a, _, _| 1.0 / a);
    check("sqrt.rn.f32 %f0, %f1", |a, _, _| a.sqrt());
    check("add.ftz.f32 %f0, %f1, %f2", |a, b, _| flushed(flushed(a) + flushed(b)));
    check("mul.ftz.f32 %f0, %f1, %f2", |a, b, _| flushed(flushed(a) * flushed(b)));
    check("add.sat.f32 %f0, %f1, %f2", |a, b, _| if a + b > 0.0 { (a + b).min(1.0) } else { 0.0 });
    check("ex2.approx.f32 %f0, %f1", |a, _, _| f64::from(a).exp2() as f32);
    check("lg2.approx.ftz.f32 %f0, %f1", |a, _, _| flushed(f64::from(flushed(a)).log2() as f32));
    check("rsqrt.approx.f32 %f0, %f1", |a, _, _| (1.0 / f64::from(a).sqrt()) as f32);
}

#[test]
fn least_and_greatest() {
    let all = &singles();
    let order = |a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
        (true, _) => (b, b),
        (_, true) => (a, a),
        _ if a.total_cmp(&b).is_lt() => (a, b),
        _ => (b, a),
    };
    check("min.f32 %f0, %f1, %f2", all, |[a, b, _]| bits(order(single(a), single(b)).0));
    check("max.f32 %f0, %f1, %f2", all, |[a, b, _]| bits(order(single(a), single(b)).1));
    let either = |a: f32, b: f32| a.is_nan() || b.is_nan();
    check("min.NaN.f32 %f0, %f1, %f2", all, |[a, b, _]| match (single(a), single(b)) {
        (a, b) if either(a, b) => 0x7FFF_FFFF,
        (a, b) => bits(order(a, b).0),
    });
    check("abs.f32 %f0, %f1", all, |[a, ..]| a & 0x7FFF_FFFF);
    check("neg.f32 %f0, %f1", all, |[a, ..]| a ^ 0x8000_0000);
    check("copysign.f32 %f0, %f1, %f2", all, |[a, b, _]| u64::from(single(b).copysign(single(a)).to_bits()));
    check("max.f64 %fd0, %fd1, %fd2", &doubles(), |[a, b, _]| {
        let (x, y) = (f64::from_bits(a), f64::from_bits(b));
        match (x.is_nan(), y.is_nan()) {
            (true, _) => b,
            (_, true) => a,
            _ => {
                if x.total_cmp(&y).is_gt() {
                    a
                } else {
                    b
                }
            }
        }
    });
}

#[test]
fn doubles_to_nearest() {
    let all: &Vec<Operands> = &doubles();
    let check = |instruction: &str, expected: fn(f64, f64, f64) -> f64| {
        for (operands, result) in all.iter().zip(results(instruction, all)) {
            let [a, b, c] = operands.map(f64::from_bits);
            let (result, expected) = (f64::from_bits(result), expected(a, b, c));
            let same = result.to_bits() == expected.to_bits() || result.is_nan() && expected.is_nan();
            assert!(same, "{instruction}: {a:e} {b:e} {c:e} gives {result:e}, not {expected:e}");
        }
    };
    check("add.f64 %fd0, %fd1, %fd2", |a, b, _| a + b);
    check("sub.f64 %fd0, %fd1, %fd2", |a, b, _| a - b);
    check("mul.f64 %fd0, %fd1, %fd2", |a, b, _| a * b);
    check("fma.rn.f64 %fd0, %fd1, %fd2, %fd3", |a, b, c| a.mul_add(b, c));
    check("div.rn.f64 %fd0, %fd1, %fd2", |a, b, _| a / b);
    check("sqrt.rn.f64 %fd0, %fd1", |a, _, _| a.sqrt());
    check("neg.f64 %fd0, %fd1", |a, _, _| -a);
    check("abs.f64 %fd0, %fd1", |a, _, _| a.abs());
    check("rcp.approx.ftz.f64 %fd0, %fd1", |a, _, _| f64::from_bits((1.0 / a).to_bits() >> 32 << 32));
}

/// Whether a comparison holds.
type Comparison = fn(f64, f64) -> bool;

#[test]
fn comparisons() {
    let nan = |a: f32, b: f32| a.is_nan() || b.is_nan();
    let (all, wide) = (&singles(), &doubles());
    let table: [(&str, Comparison); 6] = [
        ("eq", |a, b| a == b),
        ("ne", |a, b| a.partial_cmp(&b).is_some_and(Ordering::is_ne)),
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
    ];
    for (name, holds) in table {
        let of_singles = |a: u64, b: u64| holds(f64::from(single(a)), f64::from(single(b)));
        let unordered = |a: u64, b: u64| nan(single(a), single(b)) || of_singles(a, b);
        check(&format!("setp.{name}.f32 %p0, %f1, %f2"), all, |[a, b, _]| u64::from(of_singles(a, b)));
        check(&format!("setp.{name}u.f32 %p0, %f1, %f2"), all, |[a, b, _]| u64::from(unordered(a, b)));
        check(&format!("setp.{name}.f64 %p0, %fd1, %fd2"), wide, |[a, b, _]| {
            u64::from(holds(f64::from_bits(a), f64::from_bits(b)))
        });
        check(&format!("setp.{name}u.f64 %p0, %fd1, %fd2"), wide, |[a, b, _]| {
            let (a, b) = (f64::from_bits(a), f64::from_bits(b));
            u64::from(a.is_nan() || b.is_nan() || holds(a, b))
        });
    }
    check("setp.num.f32 %p0, %f1, %f2", all, |[a, b, _]| u64::from(!nan(single(a), single(b))));
    check("setp.nan.f32 %p0, %f1, %f2", all, |[a, b, _]| u64::from(nan(single(a), single(b))));
    check("setp.eq.ftz.f32 %p0, %f1, %f2", all, |[a, b, _]| {
        u64::from(flushed(single(a)) == flushed(single(b)))
    });
    check("testp.finite.f32 %p0, %f1", all, |[a, ..]| u64::from(single(a).is_finite()));
    check("testp.infinite.f32 %p0, %f1", all, |[a, ..]| u64::from(single(a).is_infinite()));
    check("testp.notanumber.f64 %p0, %fd1", wide, |[a, ..]| u64::from(f64::from_bits(a).is_nan()));
    check("testp.subnormal.f32 %p0, %f1", all, |[a, ..]| u64::from(single(a).is_subnormal()));
    check("slct.f32.f32 %f0, %f1, %f2, %f3", all, |[a, b, c]| if single(c) >= 0.0 { a } else { b });
}

/// Random values whose sums and products 64-bit floats have exactly.
fn near() -> Vec<Operands> {
    let mut next = numbers(3);
    let mut value = move || {
        let x = (1.0 + next() as f32 / (1_u64 << 31) as f32) * [1.0, -2.0, 16.0, -0.125][next() as usize % 4];
        u64::from(x.to_bits())
    };
    (0..300).map(|_| [value(), value(), value()]).collect()
}

/// A result that is exact.
type Exact = fn(f64, f64, f64) -> f64;

#[test]
fn directed_modes_enclose_the_exact_result() {
    let all = near();
    let table: [(&str, Exact); 4] = [
        ("add.MODE.f32 %f0, %f1, %f2", |a, b, _| a + b),
        ("sub.MODE.f32 %f0, %f1, %f2", |a, b, _| a - b),
        ("mul.MODE.f32 %f0, %f1, %f2", |a, b, _| a * b),
        ("div.MODE.f32 %f0, %f1, %f2", |a, b, _| a / b),
    ];
    for (instruction, exact) in table {
        let of = |mode: &str| results(&instruction.replace("MODE", mode), &all);
        let (down, up, zero) = (of("rm"), of("rp"), of("rz"));
        for (at, operands) in all.iter().enumerate() {
            let [a, b, c] = operands.map(|bits| f64::from(single(bits)));
            let exact = exact(a, b, c);
            let (down, up, zero) = (single(down[at]), single(up[at]), single(zero[at]));
            assert!(
                f64::from(down) <= exact && f64::from(down.next_up()) > exact,
                "{instruction} down {exact} {down}"
            );
            assert!(
                f64::from(up) >= exact && f64::from(up.next_down()) < exact,
                "{instruction} up {exact} {up}"
            );
            assert_eq!(zero, if exact > 0.0 { down } else { up });
        }
    }
}

#[test]
fn directed_modes_with_nothing_between() {
    let one = 1.0_f64.to_bits();
    let tiny = 1e-30_f64.to_bits();
    let of =
        |instruction: &str, a: u64, b: u64, c: u64| f64::from_bits(results(instruction, &[[a, b, c]])[0]);
    assert_eq!(of("add.rp.f64 %fd0, %fd1, %fd2", one, tiny, 0), 1.0_f64.next_up());
    assert_eq!(of("add.rm.f64 %fd0, %fd1, %fd2", one, tiny, 0), 1.0);
    assert_eq!(of("sub.rm.f64 %fd0, %fd1, %fd2", one, tiny, 0), 1.0_f64.next_down());
    assert_eq!(of("sub.rz.f64 %fd0, %fd1, %fd2", one, tiny, 0), 1.0_f64.next_down());
    assert_eq!(
        of("mul.rp.f64 %fd0, %fd1, %fd2", 0.1_f64.to_bits(), 3.0_f64.to_bits(), 0),
        0.300_000_000_000_000_04
    );
    let single = |x: f32| u64::from(x.to_bits());
    let fused = results("fma.rm.f32 %f0, %f1, %f2, %f3", &[[single(1.0), single(1.0), single(-1e-30)]]);
    assert_eq!(f32::from_bits(fused[0] as u32), 1.0_f32.next_down());
    let sum = results("add.rz.f32 %f0, %f1, %f2", &[[single(f32::MAX), single(f32::MAX), 0]]);
    assert_eq!(f32::from_bits(sum[0] as u32), f32::MAX);
}
