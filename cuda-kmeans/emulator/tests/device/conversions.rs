//! `cvt` between all types.

use crate::{
    bench::numbers,
    table::{Operands, check, results},
};

/// Bits where something special happens, for any type.
fn operands() -> Vec<Operands> {
    let mut all: Vec<u64> =
        vec![0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF];
    all.extend([
        1 << 63,
        !0,
        (1 << 63) - 1,
        0x0100_0001,
        0x0100_0003,
        0x20_0000_0000_0001,
        0x20_0000_0000_0003,
    ]);
    let mut next = numbers(1);
    all.extend((0..60).map(|_| (u64::from(next()) << 33 ^ u64::from(next())) >> (next() % 60)));
    all.into_iter().map(|bits| [bits, 0, 0]).collect()
}

/// Values of 32-bit floats.
fn singles() -> Vec<f32> {
    let mut all =
        vec![0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49, -0.51, 127.5, 128.0, -129.0, 255.5, 65535.5];
    all.extend([
        2147483520.0,
        2147483648.0,
        -2147483648.0,
        -3e9,
        4294967040.0,
        5e9,
        9.3e18,
        1.9e19,
        -1e19,
        1e30,
    ]);
    all.extend([
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MIN_POSITIVE,
        1e-40,
        f32::MAX,
        1e-7,
        6e-8,
        65519.9,
        65520.0,
    ]);
    let mut next = numbers(2);
    all.extend((0..200).map(|_| f32::from_bits(next() << 1 ^ next())));
    all
}

fn operands_of(values: &[f32]) -> Vec<Operands> {
    values.iter().map(|value| [u64::from(value.to_bits()), 0, 0]).collect()
}

/// A register and the value of it as a whole number, for each type of whole numbers.
type Whole = (&'static str, &'static str, fn(u64) -> i128, u32);

const WHOLE: [Whole; 8] = [
    ("u8", "%rs", |bits| i128::from(bits as u8), 8),
    ("s8", "%rs", |bits| i128::from(bits as i8), 8),
    ("u16", "%rs", |bits| i128::from(bits as u16), 16),
    ("s16", "%rs", |bits| i128::from(bits as i16), 16),
    ("u32", "%r", |bits| i128::from(bits as u32), 32),
    ("s32", "%r", |bits| i128::from(bits as i32), 32),
    ("u64", "%rd", |bits| i128::from(bits), 64),
    ("s64", "%rd", |bits| i128::from(bits as i64), 64),
];

/// Least and greatest value.
fn range((name, _, _, width): Whole) -> (i128, i128) {
    if name.starts_with('u') { (0, (1 << width) - 1) } else { (-(1 << (width - 1)), (1 << (width - 1)) - 1) }
}

/// What a register holds of a value of a type: values of 8 bits are extended to the 16 of the register.
fn held((_, register, value, _): Whole, bits: i128) -> u64 {
    let width = match register {
        "%rs" => 16,
        "%r" => 32,
        _ => 64,
    };
    value(bits as u64) as u64 & (!0 >> (64 - width))
}

#[test]
fn whole_numbers() {
    let all = &operands();
    for from in WHOLE {
        for to in WHOLE {
            let plain = format!("cvt.{}.{} {}0, {}1", to.0, from.0, to.1, from.1);
            check(&plain, all, |[bits, ..]| held(to, from.2(bits)));
            let (least, most) = range(to);
            let clamped = format!("cvt.sat.{}.{} {}0, {}1", to.0, from.0, to.1, from.1);
            check(&clamped, all, |[bits, ..]| held(to, from.2(bits).clamp(least, most)));
        }
    }
}

/// How a value is made whole.
type Rounding = fn(f64) -> f64;

#[test]
fn floats_to_whole_numbers() {
    let values = singles();
    let modes: [(&str, Rounding); 4] =
        [("rni", f64::round_ties_even), ("rzi", f64::trunc), ("rmi", f64::floor), ("rpi", f64::ceil)];
    for to in WHOLE {
        let (least, most) = range(to);
        for (mode, rounded) in modes {
            let expected = |x: f64, double: bool| match x.is_nan() {
                true if to.3 == 64 || double => held(to, 1 << (to.3 - 1)),
                true => 0,
                false => held(to, (rounded(x) as i128).clamp(least, most)),
            };
            let instruction = format!("cvt.{mode}.{}.f32 {}0, %f1", to.0, to.1);
            check(&instruction, &operands_of(&values), |[bits, ..]| {
                expected(f64::from(f32::from_bits(bits as u32)), false)
            });
            let doubles: Vec<Operands> =
                values.iter().map(|&value| [(f64::from(value) * 1.000_000_01).to_bits(), 0, 0]).collect();
            let instruction = format!("cvt.{mode}.{}.f64 {}0, %fd1", to.0, to.1);
            check(&instruction, &doubles, |[bits, ..]| expected(f64::from_bits(bits), true));
        }
    }
}

#[test]
fn whole_numbers_to_floats() {
    let all = &operands();
    for from in WHOLE {
        let name = from.0;
        let single = format!("cvt.rn.f32.{name} %f0, {}1", from.1);
        check(&single, all, |[bits, ..]| u64::from((from.2(bits) as f32).to_bits()));
        let double = format!("cvt.rn.f64.{name} %fd0, {}1", from.1);
        check(&double, all, |[bits, ..]| (from.2(bits) as f64).to_bits());
        for mode in ["rz", "rm", "rp"] {
            let instruction = format!("cvt.{mode}.f32.{name} %f0, {}1", from.1);
            for (operands, result) in all.iter().zip(results(&instruction, all)) {
                let (exact, result) = (from.2(operands[0]), f32::from_bits(result as u32));
                let below = mode == "rm" || mode == "rz" && exact > 0;
                let neighbour = if below { result.next_up() } else { result.next_down() };
                let (result, neighbour) = (result as i128, neighbour as i128);
                let enclosed = if below { result <= exact } else { result >= exact };
                let near = result == exact || if below { neighbour > exact } else { neighbour < exact };
                assert!(enclosed && near, "{instruction}: {exact} gives {result}");
            }
        }
    }
}

#[test]
fn floats_to_floats() {
    let values = singles();
    let all = &operands_of(&values);
    let single = |bits: u64| f32::from_bits(bits as u32);
    check("cvt.f64.f32 %fd0, %f1", all, |[bits, ..]| f64::from(single(bits)).to_bits());
    check("cvt.rni.f32.f32 %f0, %f1", all, |[bits, ..]| match single(bits) {
        x if x.is_nan() => 0x7FFF_FFFF,
        x => u64::from(x.round_ties_even().to_bits()),
    });
    check("cvt.sat.f32.f32 %f0, %f1", all, |[bits, ..]| match single(bits) {
        x if x > 0.0 => u64::from(x.min(1.0).to_bits()),
        _ => 0,
    });

    let brain = |x: f32| match x.is_nan() {
        true => 0x7FFF,
        false => u64::from((x.to_bits() + 0x7FFF + (x.to_bits() >> 16 & 1)) >> 16),
    };
    check("cvt.rn.bf16.f32 %rs0, %f1", all, |[bits, ..]| brain(single(bits)));
    let pairs: Vec<Operands> =
        values.windows(2).map(|pair| [pair[0], pair[1], 0.0].map(|x| u64::from(x.to_bits()))).collect();
    check("cvt.rn.bf16x2.f32 %r0, %f1, %f2", &pairs, |[a, b, _]| brain(single(a)) << 16 | brain(single(b)));
    let halves: Vec<Operands> = (0..0x1_0000_u64).step_by(37).map(|bits| [bits, 0, 0]).collect();
    check("cvt.f32.bf16 %f0, %rs1", &halves, |[bits, ..]| match f32::from_bits((bits as u32) << 16) {
        x if x.is_nan() => 0x7FFF_FFFF,
        x => u64::from(x.to_bits()),
    });
}

#[test]
fn doubles_to_singles() {
    let mut next = numbers(5);
    let all: Vec<Operands> = (0..200)
        .map(|_| {
            let scale = [1.0, 1e30, 1e-30, 1e-42][next() as usize % 4];
            let x = (f64::from(next()) / 1e9 - 1.0) * scale;
            [x.to_bits(), 0, 0]
        })
        .collect();
    check("cvt.rn.f32.f64 %f0, %fd1", &all, |[bits, ..]| u64::from((f64::from_bits(bits) as f32).to_bits()));
    for (mode, sign) in [("rm", -1.0), ("rp", 1.0)] {
        for (operands, result) in all.iter().zip(results(&format!("cvt.{mode}.f32.f64 %f0, %fd1"), &all)) {
            let (exact, result) = (f64::from_bits(operands[0]), f32::from_bits(result as u32));
            let back = if sign > 0.0 { result.next_down() } else { result.next_up() };
            let (result, back) = (f64::from(result) * sign, f64::from(back) * sign);
            assert!(result >= exact * sign && back < exact * sign, "{mode} {exact:e} {result:e}");
        }
    }
    let large = [[1e300_f64.to_bits(), 0, 0]];
    assert_eq!(results("cvt.rz.f32.f64 %f0, %fd1", &large), [u64::from(f32::MAX.to_bits())]);
    assert_eq!(results("cvt.rp.f32.f64 %f0, %fd1", &large), [u64::from(f32::INFINITY.to_bits())]);
}

#[test]
fn halves() {
    let table = [
        (0.0_f32, 0x0000_u64),
        (-0.0, 0x8000),
        (1.0, 0x3C00),
        (-2.0, 0xC000),
        (65504.0, 0x7BFF),
        (65519.9, 0x7BFF),
        (65520.0, 0x7C00),
        (f32::INFINITY, 0x7C00),
        (f32::NEG_INFINITY, 0xFC00),
        (0.333_251_95, 0x3555),
        (6.103_515_6e-5, 0x0400),
        (5.960_464_5e-8, 0x0001),
        (2.980_232_2e-8, 0x0000),
        (2.98e-8, 0x0000),
        (2.99e-8, 0x0001),
        (6.097_555e-5, 0x03FF),
        (1.000_488_3, 0x3C00),
        (1.001_464_8, 0x3C02),
    ];
    for (value, half) in table {
        let operands = [[u64::from(value.to_bits()), 0, 0]];
        assert_eq!(results("cvt.rn.f16.f32 %rs0, %f1", &operands), [half], "{value}");
    }
    // Back, and again: every half is itself.
    let all: Vec<Operands> = (0..0x1_0000_u64)
        .filter(|bits| bits & 0x7C00 != 0x7C00)
        .step_by(11)
        .map(|bits| [bits, 0, 0])
        .collect();
    let values = results("cvt.f32.f16 %f0, %rs1", &all);
    let singles: Vec<Operands> = values.iter().map(|&bits| [bits, 0, 0]).collect();
    let halves: Vec<u64> = all.iter().map(|operands| operands[0]).collect();
    assert_eq!(results("cvt.rn.f16.f32 %rs0, %f1", &singles), halves);
    assert_eq!(
        results("cvt.f32.f16 %f0, %rs1", &[[0x3555, 0, 0], [0x0001, 0, 0], [0xFBFF, 0, 0]]),
        [0x3EAA_A000, 0x3380_0000, 0xC77F_E000,]
    );
}
