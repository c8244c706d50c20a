//! Instructions on whole numbers and bits, against plain Rust.

use crate::{
    bench::numbers,
    table::{Operands, check},
};

/// Operands where something special happens, and some where nothing does.
fn operands() -> Vec<Operands> {
    let edges = [
        0,
        1,
        5,
        31,
        33,
        0x7FFF,
        0x8000,
        0xFFFF,
        0x7FFF_FFFF,
        0x8000_0000,
        0xFFFF_FFFF,
        0x8000_0000_0000_0000,
        0xFFFF_FFFF_FFFF_FFFF,
        0x1234_5678_9ABC_DEF0,
    ];
    let mut next = numbers(1);
    let mut any = || u64::from(next()) << 33 ^ u64::from(next());
    let mut all = Vec::new();
    for a in edges {
        for b in edges {
            all.push([a, b, edges[(any() % 14) as usize]]);
        }
    }
    all.extend((0..50).map(|_| [any(), any(), any() % 70]));
    all
}

macro_rules! check_types {
    ($all:expr, $suffix:literal, $register:literal, $type:ty, $unsigned:ty) => {
        let (all, r) = (&$all, $register);
        let check = |opcode: &str, count: usize, expected: fn($type, $type, $type) -> $type| {
            let names: String = (1..=count).map(|n| format!(", {r}{n}")).collect();
            let instruction = format!("{opcode}.{} {r}0{names}", $suffix);
            check(&instruction, all, |[a, b, c]| {
                u64::from(expected(a as $type, b as $type, c as $type) as $unsigned)
            });
        };
        check("add", 2, |a, b, _| a.wrapping_add(b));
        check("sub", 2, |a, b, _| a.wrapping_sub(b));
        check("mul.lo", 2, |a, b, _| a.wrapping_mul(b));
        check("mul.hi", 2, |a, b, _| ((i128::from(a).wrapping_mul(i128::from(b))) >> <$type>::BITS) as $type);
        check("mad.lo", 3, |a, b, c| a.wrapping_mul(b).wrapping_add(c));
        check("mad.hi", 3, |a, b, c| {
            (((i128::from(a).wrapping_mul(i128::from(b))) >> <$type>::BITS) as $type).wrapping_add(c)
        });
        check("div", 2, |a, b, _| if b == 0 { !0 } else { a.wrapping_div(b) });
        check("rem", 2, |a, b, _| if b == 0 { a } else { a.wrapping_rem(b) });
        check("min", 2, |a, b, _| a.min(b));
        check("max", 2, |a, b, _| a.max(b));
        check("sad", 3, |a, b, c| {
            c.wrapping_add((if a > b { a.wrapping_sub(b) } else { b.wrapping_sub(a) }) as $type)
        });
        let shift = format!("shr.{} {r}0, {r}1, %r2", $suffix);
        crate::table::check(&shift, all, |[a, b, _]| {
            let (a, by) = (a as $type, b as u32);
            let all_signs = if a < (0 as $type) { !0 } else { 0 };
            u64::from(if by >= <$type>::BITS { all_signs } else { a >> by } as $unsigned)
        });
        for (comparison, holds) in [
            ("eq", (|a, b| a == b) as fn(&$type, &$type) -> bool),
            ("ne", |a, b| a != b),
            ("lt", |a, b| a < b),
            ("le", |a, b| a <= b),
            ("gt", |a, b| a > b),
            ("ge", |a, b| a >= b),
        ] {
            let compare = format!("setp.{comparison}.{} %p0, {r}1, {r}2", $suffix);
            crate::table::check(&compare, all, |[a, b, _]| u64::from(holds(&(a as $type), &(b as $type))));
        }
    };
}

#[test]
fn arithmetic_and_comparisons() {
    let all = operands();
    check_types!(all, "u16", "%rs", u16, u16);
    check_types!(all, "s16", "%rs", i16, u16);
    check_types!(all, "u32", "%r", u32, u32);
    check_types!(all, "s32", "%r", i32, u32);
    check_types!(all, "u64", "%rd", u64, u64);
    check_types!(all, "s64", "%rd", i64, u64);
}

#[test]
fn one_operand() {
    let all = &operands();
    check("abs.s32 %r0, %r1", all, |[a, ..]| u64::from((a as i32).unsigned_abs()));
    check("abs.s64 %rd0, %rd1", all, |[a, ..]| (a as i64).unsigned_abs());
    check("neg.s16 %rs0, %rs1", all, |[a, ..]| u64::from((a as u16).wrapping_neg()));
    check("neg.s32 %r0, %r1", all, |[a, ..]| u64::from((a as u32).wrapping_neg()));
    check("neg.s64 %rd0, %rd1", all, |[a, ..]| a.wrapping_neg());
    check("not.b16 %rs0, %rs1", all, |[a, ..]| u64::from(!a as u16));
    check("not.b32 %r0, %r1", all, |[a, ..]| u64::from(!a as u32));
    check("not.b64 %rd0, %rd1", all, |[a, ..]| !a);
    check("not.pred %p0, %p1", all, |[a, ..]| !a & 1);
    check("cnot.b32 %r0, %r1", all, |[a, ..]| u64::from(a as u32 == 0));
    check("popc.b32 %r0, %r1", all, |[a, ..]| u64::from((a as u32).count_ones()));
    check("popc.b64 %r0, %rd1", all, |[a, ..]| u64::from(a.count_ones()));
    check("clz.b32 %r0, %r1", all, |[a, ..]| u64::from((a as u32).leading_zeros()));
    check("clz.b64 %r0, %rd1", all, |[a, ..]| u64::from(a.leading_zeros()));
    check("brev.b32 %r0, %r1", all, |[a, ..]| u64::from((a as u32).reverse_bits()));
    check("brev.b64 %rd0, %rd1", all, |[a, ..]| a.reverse_bits());
    check("bfind.u32 %r0, %r1", all, |[a, ..]| u64::from(31_u32.wrapping_sub((a as u32).leading_zeros())));
    check("bfind.u64 %r0, %rd1", all, |[a, ..]| u64::from(63_u32.wrapping_sub(a.leading_zeros())));
    check("bfind.s32 %r0, %r1", all, |[a, ..]| {
        let a = a as i32;
        u64::from(31_u32.wrapping_sub(if a < 0 { !a } else { a }.leading_zeros()))
    });
    check("bfind.shiftamt.u32 %r0, %r1", all, |[a, ..]| {
        u64::from(if a as u32 == 0 { u32::MAX } else { (a as u32).leading_zeros() })
    });
}

#[test]
fn bits_of_two_words() {
    let all = &operands();
    check("and.b32 %r0, %r1, %r2", all, |[a, b, _]| u64::from((a & b) as u32));
    check("or.b64 %rd0, %rd1, %rd2", all, |[a, b, _]| a | b);
    check("xor.b16 %rs0, %rs1, %rs2", all, |[a, b, _]| u64::from((a ^ b) as u16));
    check("xor.pred %p0, %p1, %p2", all, |[a, b, _]| (a ^ b) & 1);
    check("shl.b32 %r0, %r1, %r2", all, |[a, b, _]| u64::from((a as u32).checked_shl(b as u32).unwrap_or(0)));
    check("shl.b64 %rd0, %rd1, %r2", all, |[a, b, _]| a.checked_shl(b as u32).unwrap_or(0));
    check("mul.wide.u16 %r0, %rs1, %rs2", all, |[a, b, _]| {
        u64::from(u32::from(a as u16) * u32::from(b as u16))
    });
    check("mul.wide.s32 %rd0, %r1, %r2", all, |[a, b, _]| (i64::from(a as i32) * i64::from(b as i32)) as u64);
    check("mul.wide.u32 %rd0, %r1, %r2", all, |[a, b, _]| u64::from(a as u32) * u64::from(b as u32));
    check("mad.wide.s32 %rd0, %r1, %r2, %rd3", all, |[a, b, c]| {
        (i64::from(a as i32) * i64::from(b as i32)).wrapping_add(c as i64) as u64
    });
    check("mad.wide.u32 %rd0, %r1, %r2, %rd3", all, |[a, b, c]| {
        (u64::from(a as u32) * u64::from(b as u32)).wrapping_add(c)
    });
    check(
        "add.sat.s32 %r0, %r1, %r2",
        all,
        |[a, b, _]| u64::from((a as i32).saturating_add(b as i32) as u32),
    );
    check("selp.b32 %r0, %r1, %r2, %p3", all, |[a, b, c]| u64::from(if c & 1 == 1 { a } else { b } as u32));
    check("slct.u64.s32 %rd0, %rd1, %rd2, %r3", all, |[a, b, c]| if (c as i32) < 0 { b } else { a });
    check(
        "set.lt.u32.s32 %r0, %r1, %r2",
        all,
        |[a, b, _]| if (a as i32) < b as i32 { 0xFFFF_FFFF } else { 0 },
    );
    check(
        "set.ge.f32.u32 %f0, %r1, %r2",
        all,
        |[a, b, _]| if a as u32 >= b as u32 { 0x3F80_0000 } else { 0 },
    );
}

#[test]
fn logic_of_three_words() {
    for table in [0x00_u8, 0x80, 0xFE, 0x96, 0xE8, 0xCA, 0x1B, 0xFF] {
        check(&format!("lop3.b32 %r0, %r1, %r2, %r3, {table}"), &operands(), |[a, b, c]| {
            (0..32).fold(0, |all, bit| {
                let at = |x: u64| x >> bit & 1;
                let row = at(a) << 2 | at(b) << 1 | at(c);
                all | u64::from(table >> row & 1) << bit
            })
        });
    }
}

#[test]
fn fields_and_bytes() {
    let mut next = numbers(2);
    let any: Vec<Operands> = (0..400)
        .map(|_| {
            [u64::from(next()) << 33 ^ u64::from(next()), u64::from(next() % 40), u64::from(next() % 40)]
        })
        .collect();
    check("bfe.u32 %r0, %r1, %r2, %r3", &any, |[a, start, length]| {
        u64::from(a as u32) >> start & ((1 << length) - 1)
    });
    check("bfe.s32 %r0, %r1, %r2, %r3", &any, |[a, start, length]| {
        let bit = |at: u64| u64::from(a as u32) >> at.min(31) & 1;
        (0..32).fold(0, |all, at| {
            let from = if length == 0 { return 0 } else { start + u64::min(at, length - 1) };
            all | bit(from) << at
        })
    });
    check("bfe.u64 %rd0, %rd1, %r2, %r3", &any, |[a, start, length]| a >> start & ((1 << length) - 1));
    let moved: Vec<Operands> =
        any.iter().map(|&[a, start, length]| [a, !a.rotate_left(9), start << 32 | length]).collect();
    for (start, length) in [(0, 0), (0, 32), (3, 7), (30, 5), (31, 1), (32, 4), (8, 60), (40, 3)] {
        let expected = |bits: u64| {
            move |[a, b, _]: Operands| {
                (0..bits).fold(0, |all, at| {
                    let inside = at >= start && at < start + length;
                    all | (if inside { a >> (at - start) } else { b >> at } & 1) << at
                })
            }
        };
        check(&format!("bfi.b32 %r0, %r1, %r2, {start}, {length}"), &moved, expected(32));
        check(&format!("bfi.b64 %rd0, %rd1, %rd2, {start}, {length}"), &moved, expected(64));
    }
    check("prmt.b32 %r0, %r1, %r2, 0x5140", &moved, |[a, b, _]| {
        let byte = |x: u64, at: u64| x >> (8 * at) & 0xFF;
        byte(a, 0) | byte(b, 0) << 8 | byte(a, 1) << 16 | byte(b, 1) << 24
    });
    check("prmt.b32 %r0, %r1, %r2, 0x8F37", &moved, |[a, b, _]| {
        let byte = |x: u64, at: u64| x >> (8 * at) & 0xFF;
        let sign = |byte: u64| if byte >= 0x80 { 0xFF } else { 0 };
        byte(b, 3) | byte(a, 3) << 8 | sign(byte(b, 3)) << 16 | sign(byte(a, 0)) << 24
    });
}

#[test]
fn funnels() {
    let pair = |a: u64, b: u64| u64::from(b as u32) << 32 | u64::from(a as u32);
    let all = &operands();
    check("shf.l.wrap.b32 %r0, %r1, %r2, %r3", all, |[a, b, c]| (pair(a, b) << (c & 31)) >> 32);
    check("shf.r.wrap.b32 %r0, %r1, %r2, %r3", all, |[a, b, c]| (pair(a, b) >> (c & 31)) & 0xFFFF_FFFF);
    check("shf.l.clamp.b32 %r0, %r1, %r2, %r3", all, |[a, b, c]| {
        let by = (c as u32).min(32);
        if by == 32 { u64::from(a as u32) } else { (pair(a, b) << by) >> 32 }
    });
    check("shf.r.clamp.b32 %r0, %r1, %r2, %r3", all, |[a, b, c]| {
        (pair(a, b) >> (c as u32).min(32)) & 0xFFFF_FFFF
    });
}

#[test]
fn parts_of_registers() {
    let all = &operands();
    check("mov.b64 {%r0, %r4}, %rd1", all, |[a, ..]| a & 0xFFFF_FFFF);
    check("mov.b64 {_, %r0}, %rd1", all, |[a, ..]| a >> 32);
    check("mov.b64 %rd0, {%r1, %r2}", all, |[a, b, _]| u64::from(a as u32) | b << 32);
    check("mov.b32 %r0, {%rs1, %rs2}", all, |[a, b, _]| u64::from(a as u16) | u64::from(b as u16) << 16);
    check("mov.b64 %rd0, {%rs1, %rs2, %rs3, %rs1}", all, |[a, b, c]| {
        let low = |x: u64| x & 0xFFFF;
        low(a) | low(b) << 16 | low(c) << 32 | low(a) << 48
    });
    check("mov.b32 %f0, {0, %rs1}", all, |[a, ..]| (a & 0xFFFF) << 16);
}

#[test]
fn joined_comparisons() {
    let all = &operands();
    check("setp.lt.and.s32 %p0|%p4, %r1, %r2, %p3", all, |[a, b, c]| {
        u64::from((a as i32) < b as i32) & c & 1
    });
    check("setp.lt.or.s32 %p4|%p0, %r1, %r2, %p3", all, |[a, b, c]| u64::from(a as i32 >= b as i32) | c & 1);
    check("@%p3 setp.lt.s32 %p3|%p0, %r1, %r2", all, |[a, b, c]| {
        u64::from(c & 1 == 1 && a as i32 >= b as i32)
    });
    check("@%p3 setp.lt.s32 %p0|%p3, %r1, %r2", all, |[a, b, c]| {
        u64::from(c & 1 == 1 && (a as i32) < b as i32)
    });
    check("setp.eq.xor.u64 %p0, %rd1, %rd2, !%p3", all, |[a, b, c]| u64::from(a == b) ^ (!c & 1));
}
