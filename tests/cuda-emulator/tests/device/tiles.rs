//! Matrices that lanes of a warp load and multiply.

use crate::bench::{FAILED, device, expect, kernel, launch, numbers, run, words};

const VARIABLE: &str = ".shared .align 16 .b8 s[2048];";

/// Each lane writes four words of its row, which starts `stride` bytes behind that of the lane before, and loads matrices whose
/// rows these are, with the last row first.
fn loaded(stride: u32) -> (Vec<u32>, u64) {
    let body = format!(
        "mov.u32 %r2, s; mad.lo.s32 %r3, %r1, {stride}, %r2; shl.b32 %r4, %r1, 2; add.s32 %r5, %r4, 1; add.s32 %r6, %r4, 2;
         add.s32 %r7, %r4, 3; st.shared.v2.u32 [%r3], {{%r4, %r5}}; st.shared.v2.u32 [%r3+8], {{%r6, %r7}}; bar.sync 0;
         sub.s32 %r8, 31, %r1; mad.lo.s32 %r9, %r8, {stride}, %r2;
         ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r10, %r11, %r12, %r13}}, [%r9];
         mul.wide.u32 %rd4, %r1, 16; add.s64 %rd5, %rd1, %rd4; st.global.v2.u32 [%rd5], {{%r10, %r11}};
         st.global.v2.u32 [%rd5+8], {{%r12, %r13}};"
    );
    let (mut device, address) = device(&[0; 128], 0);
    let done = launch(&mut device, &kernel(VARIABLE, &body), 1, 32, address).unwrap();
    (words(&device, address, 128), done.conflicts)
}

#[test]
fn matrices_are_loaded() {
    let (words, conflicts) = loaded(16);
    for (at, word) in words.into_iter().enumerate() {
        let (lane, matrix) = (at / 4, at % 4);
        let row = 31 - (8 * matrix + lane / 4);
        assert_eq!(word as usize, 4 * row + lane % 4, "lane {lane}, matrix {matrix}");
    }
    assert_eq!(conflicts, 0);
    // Eight rows that are 64 bytes apart are in two groups of banks.
    assert_eq!(loaded(64).1, 4 * 3);
    let torn = "mov.u32 %r2, s; ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r3, %r4, %r5, %r6}, [%r2];";
    expect(VARIABLE, torn, 32, FAILED, "ldmatrix", "never written");
}

/// A product of tiles: each lane gives ten words.
const PRODUCT: &str = "mul.wide.u32 %rd4, %r1, 40; add.s64 %rd5, %rd1, %rd4; ld.global.u32 %r2, [%rd5];
    ld.global.u32 %r3, [%rd5+4]; ld.global.u32 %r4, [%rd5+8]; ld.global.u32 %r5, [%rd5+12]; ld.global.u32 %r6, [%rd5+16];
    ld.global.u32 %r7, [%rd5+20]; ld.global.f32 %f1, [%rd5+24]; ld.global.f32 %f2, [%rd5+28];
    ld.global.f32 %f3, [%rd5+32]; ld.global.f32 %f4, [%rd5+36];
    mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1,%f2,%f3,%f4},{%r2,%r3,%r4,%r5},{%r6,%r7},{%f1,%f2,%f3,%f4};
    st.global.f32 [%rd5+24], %f1; st.global.f32 [%rd5+28], %f2; st.global.f32 [%rd5+32], %f3; st.global.f32 [%rd5+36], %f4;";

#[test]
fn products() {
    let mut next = numbers(4);
    // Whole numbers, whose products are exact.
    let mut matrix =
        |rows: usize| -> Vec<f32> { (0..rows * 8).map(|_| (next() % 64) as f32 - 32.0).collect() };
    let (a, b) = (matrix(16), matrix(8));
    let places =
        |lane: usize| [(0, 0), (0, 1), (8, 0), (8, 1)].map(|(r, c)| (lane / 4 + r, 2 * (lane % 4) + c));
    let lane_words = |lane: usize| {
        let (group, member) = (lane / 4, lane % 4);
        let of_a = [(0, 0), (8, 0), (0, 4), (8, 4)].map(|(row, k)| a[8 * (group + row) + member + k]);
        let of_b = [0, 4].map(|k| b[8 * group + member + k]);
        let sums = places(lane).map(|(row, column)| (8 * row + column) as f32);
        of_a.into_iter().chain(of_b).chain(sums).map(f32::to_bits).collect::<Vec<u32>>()
    };
    let (mut device, address) = device(&(0..32).flat_map(lane_words).collect::<Vec<u32>>(), 0);
    launch(&mut device, &kernel("", PRODUCT), 1, 32, address).unwrap();
    for (lane, own) in words(&device, address, 320).chunks(10).enumerate() {
        for (number, (row, column)) in places(lane).into_iter().enumerate() {
            let products = (0..8).map(|k| a[8 * row + k] * b[8 * column + k]);
            assert_eq!(f32::from_bits(own[6 + number]), products.sum::<f32>() + (8 * row + column) as f32);
        }
    }
}

/// One plus eight products, all in one element: of 2^-13 and another value.
fn one_and_more(other: &str) -> f32 {
    let body = format!(
        "mov.u32 %r2, 0x39000000; mov.u32 %r3, {other}; mov.f32 %f1, 0f3F800000;
         mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {{%f5,%f6,%f7,%f8}},{{%r2,%r2,%r2,%r2}},{{%r3,%r3}},{{%f1,%f1,%f1,%f1}};
         st.global.f32 [%rd3], %f5;"
    );
    f32::from_bits(run("", &body, 32).unwrap()[0])
}

#[test]
fn sums_of_products_are_cut_off() {
    // Eight times 2^-26 is one of the last digit; three quarters of that are lost.
    assert_eq!(one_and_more("0x39000000"), 1.0 + f32::EPSILON);
    assert_eq!(one_and_more("0x38C00000"), 1.0);
}

#[test]
fn operands_of_products_are_short_floats() {
    let body = "mov.u32 %r2, VALUE; mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32
                {%f5,%f6,%f7,%f8},{%r3,%r3,%r2,%r3},{%r3,%r3},{%f4,%f4,%f4,%f4};";
    expect("", &body.replace("VALUE", "0x3F800001"), 32, FAILED, "mma", "0x3f800001 of mma is no tf32");
    assert!(run("", &body.replace("VALUE", "0x3F802000"), 32).is_ok());
}
