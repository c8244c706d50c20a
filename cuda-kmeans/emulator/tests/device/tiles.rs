//! Matrices that lanes of a warp load and multiply.

use crate::{
    bench::{Bench, Parameter::Wide, numbers},
    checks::{kernel, run},
};

/// Fills 512 halves of words with their numbers, and loads matrices of them. Lane `n` gives the address of row `31 - n`.
fn loaded(instruction: &str, count: usize) -> Vec<[u32; 32]> {
    let body = format!(
        "mov.u32 %r2, s; shl.b32 %r3, %r1, 4; add.u32 %r3, %r2, %r3; shl.b32 %r4, %r1, 3; mov.u32 %r5, 0;
         A: add.u32 %r6, %r4, 1; shl.b32 %r7, %r6, 16; or.b32 %r7, %r7, %r4; st.shared.u32 [%r3], %r7;
         add.u32 %r4, %r4, 2; add.u32 %r3, %r3, 4; add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 4; @%p1 bra A; bar.sync 0;
         sub.u32 %r8, 31, %r1; shl.b32 %r8, %r8, 4; add.u32 %r9, %r2, %r8;
         {instruction}, [%r9]; mul.wide.u32 %rd4, %r1, 16; add.s64 %rd5, %rd1, %rd4;
         st.global.v4.u32 [%rd5], {{%r10, %r11, %r12, %r13}};"
    );
    let mut bench = Bench::new(&kernel(".shared .align 16 .b8 s[512];", &body), 0);
    let to = bench.room(512);
    let done = bench.run("k", [1, 1, 1], 32, 0, &[Wide(to)]).unwrap();
    assert_eq!(done.conflicts, 0);
    let words = bench.download(to, 128, u32::from_le_bytes);
    (0..count).map(|matrix| std::array::from_fn(|lane| words[4 * lane + matrix])).collect()
}

#[test]
fn matrices_are_loaded() {
    for (count, registers) in [(1, "%r10"), (2, "%r10, %r11"), (4, "%r10, %r11, %r12, %r13")] {
        for transposed in [false, true] {
            let suffix = if transposed { ".trans" } else { "" };
            let instruction =
                format!("ldmatrix.sync.aligned.m8n8.x{count}{suffix}.shared.b16 {{{registers}}}");
            for (matrix, lanes) in loaded(&instruction, count).into_iter().enumerate() {
                let at = |row: usize, column: usize| (8 * (31 - (8 * matrix + row)) + column) as u32;
                for (lane, word) in lanes.into_iter().enumerate() {
                    let (row, column) = (lane / 4, lane % 4 * 2);
                    let halves = match transposed {
                        false => [at(row, column), at(row, column + 1)],
                        true => [at(column, row), at(column + 1, row)],
                    };
                    assert_eq!(word, halves[0] | halves[1] << 16, "{instruction}, lane {lane}");
                }
            }
        }
    }
}

#[test]
fn conflicts_are_counted() {
    // Eight rows that are 64 bytes apart are in two groups of banks.
    let body = "mov.u32 %r2, s; and.b32 %r3, %r1, 7; shl.b32 %r3, %r3, 6; add.u32 %r4, %r2, %r3; setp.lt.u32 %p1, %r1, 8;
                @%p1 st.shared.v4.u32 [%r4], {%r1, %r1, %r1, %r1}; bar.sync 0;
                ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, [%r4];";
    let mut bench = Bench::new(&kernel(".shared .align 16 .b8 s[512];", body), 0);
    let memory = bench.room(4);
    assert_eq!(bench.run("k", [1, 1, 1], 32, 0, &[Wide(memory)]).unwrap().conflicts, 3);
}

/// The float whose upper half this is.
fn brain(half: u32) -> f64 {
    f64::from(f32::from_bits(half << 16))
}

#[test]
fn products_of_brain_floats() {
    let mut next = numbers(4);
    let mut halves = |count: usize| -> Vec<u32> {
        // Whole numbers up to 32, whose products are exact.
        (0..count).map(|_| ((next() % 64) as f32 - 32.0).to_bits() >> 16).collect()
    };
    let (a, b) = (halves(16 * 16), halves(8 * 16));
    let sums: Vec<f32> = (0..16 * 8).map(|at| at as f32 * 3.0).collect();
    let mut words = Vec::new();
    for lane in 0..32 {
        let (group, member) = (lane / 4, lane % 4);
        let pair = |of: &[u32], row: usize, k: usize| of[16 * row + k] | of[16 * row + k + 1] << 16;
        for (row, k) in [(0, 0), (8, 0), (0, 8), (8, 8)] {
            words.push(pair(&a, group + row, 2 * member + k));
        }
        words.extend([pair(&b, group, 2 * member), pair(&b, group, 2 * member + 8), 0, 0]);
        for (row, column) in [(0, 0), (0, 1), (8, 0), (8, 1)] {
            words.push(sums[8 * (group + row) + 2 * member + column].to_bits());
        }
    }
    let body = "mul.wide.u32 %rd4, %r1, 48; add.s64 %rd5, %rd1, %rd4; ld.global.v4.b32 {%r2, %r3, %r4, %r5}, [%rd5];
                ld.global.v2.b32 {%r6, %r7}, [%rd5+16]; ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd5+32];
                mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1,%f2,%f3,%f4},{%r2,%r3,%r4,%r5},{%r6,%r7},{%f1,%f2,%f3,%f4};
                st.global.v4.f32 [%rd5+32], {%f1, %f2, %f3, %f4};";
    let mut bench = Bench::new(&kernel("", body), 0);
    let memory = bench.upload(&words, u32::to_le_bytes);
    bench.run("k", [1, 1, 1], 32, 0, &[Wide(memory)]).unwrap();
    let results = bench.download(memory, words.len(), u32::from_le_bytes);
    for (lane, own) in results.chunks(12).enumerate() {
        let (group, member) = (lane / 4, lane % 4);
        for (number, (row, column)) in [(0, 0), (0, 1), (8, 0), (8, 1)].into_iter().enumerate() {
            let (row, column) = (group + row, 2 * member + column);
            let pairs = (0..16).map(|k| brain(a[16 * row + k]) * brain(b[16 * column + k]));
            let expected = pairs.sum::<f64>() + f64::from(sums[8 * row + column]);
            assert_eq!(f64::from(f32::from_bits(own[8 + number])), expected);
        }
    }
}

#[test]
fn sums_of_products_are_cut_off() {
    // One, and eight products of 2^-26, which make one more of the last digit.
    let body = "mov.b32 %r2, 0f39000000; mov.b32 %r3, 0f39000000; mov.b32 %r4, 0; mov.b32 %f1, 0f3F800000;
                mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f5,%f6,%f7,%f8},{%r2,%r2,%r2,%r2},{%r3,%r3},{%f1,%f1,%f1,%f1};
                st.global.f32 [%rd3], %f5;";
    let words = run("", body, 32).unwrap();
    assert_eq!(f32::from_bits(words[0]), 1.0 + f32::EPSILON);
    let less =
        body.replace("{%r3,%r3}", "{%r3,%r4}").replace("0f39000000; mov.b32 %r3", "0f39400000; mov.b32 %r3");
    // Four products of 1.5 times 2^-26 are three quarters of the last digit.
    assert_eq!(f32::from_bits(run("", &less, 32).unwrap()[0]), 1.0);
}
