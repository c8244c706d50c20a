//! Kernels that do something useful, against plain Rust.

use crate::bench::{
    Bench,
    Parameter::{Wide, Word},
    numbers,
};

const PRODUCT: &str = include_str!("../ptx/product.ptx");
const BLOCKS: &str = include_str!("../ptx/blocks.ptx");

/// Rounds to 10 binary digits behind the point, ties away from zero.
fn tensor_float(x: f32) -> f32 {
    f32::from_bits((x.to_bits() + 0x1000) & !0x1FFF)
}

#[test]
fn product_of_matrices() {
    let (rows, columns, depth) = (70_usize, 45_usize, 48_usize);
    let mut next = numbers(1);
    let mut matrix = |count: usize| -> Vec<f32> {
        (0..count * depth).map(|_| next() as f32 / (1_u64 << 30) as f32 - 1.0).collect()
    };
    let (a, b) = (matrix(rows), matrix(columns));
    for seed in 0..3 {
        let mut bench = Bench::new(PRODUCT, seed);
        let parameters = [
            Wide(bench.upload(&a, f32::to_le_bytes)),
            Wide(bench.upload(&b, f32::to_le_bytes)),
            Wide(bench.room(rows * columns * 4)),
            Word(rows as u32),
            Word(columns as u32),
            Word(depth as u32),
        ];
        let done = bench.run("product", [2, 3, 1], 64, 0, &parameters).unwrap();
        assert_eq!(done.conflicts, 0);
        let Wide(results) = parameters[2] else { unreachable!() };
        let results = bench.download(results, rows * columns, f32::from_le_bytes);
        for (at, &result) in results.iter().enumerate() {
            let (row, column) = (at / columns, at % columns);
            let pairs = a[row * depth..][..depth].iter().zip(&b[column * depth..][..depth]);
            let exact: f64 =
                pairs.map(|(&x, &y)| f64::from(tensor_float(x)) * f64::from(tensor_float(y))).sum();
            assert!(
                (f64::from(result) - exact).abs() < 6.0 * 8.0 * f64::from(f32::EPSILON),
                "{at}: {result} {exact}"
            );
        }
    }
}

#[test]
fn sums_by_shuffles() {
    let count = 1000_usize;
    let mut next = numbers(2);
    let values: Vec<f32> = (0..count).map(|_| (next() % 64) as f32).collect();
    for seed in 0..3 {
        let mut bench = Bench::new(BLOCKS, seed);
        let (from, to) = (bench.upload(&values, f32::to_le_bytes), bench.room(8 * 4));
        bench.run("reduce", [8, 1, 1], 128, 0, &[Wide(from), Wide(to), Word(count as u32)]).unwrap();
        let sums: Vec<f32> = values.chunks(128).map(|block| block.iter().sum()).collect();
        assert_eq!(bench.download(to, 8, f32::from_le_bytes), sums);
    }
}

#[test]
fn stable_ranks() {
    let mut next = numbers(3);
    let keys: Vec<u8> = (0..512).map(|_| (next() % 40) as u8).collect();
    let mut bench = Bench::new(BLOCKS, 4);
    let (from, to) = (bench.upload(&keys, |key| [key]), bench.room(512 * 4));
    bench.run("rank", [2, 1, 1], 256, 0, &[Wide(from), Wide(to)]).unwrap();
    let ranks = bench.download(to, 512, u32::from_le_bytes);
    for (at, rank) in ranks.into_iter().enumerate() {
        let before = &keys[at / 256 * 256..at];
        assert_eq!(rank as usize, before.iter().filter(|&&key| key == keys[at]).count());
    }
}

#[test]
fn prefix_sums() {
    let values: Vec<f64> = (0..192).map(|at| f64::from(at * at % 37) * 0.25).collect();
    let mut bench = Bench::new(BLOCKS, 5);
    let (from, to) = (bench.upload(&values, f64::to_le_bytes), bench.room(192 * 8));
    bench.run("scan", [1, 1, 1], 192, 192 * 8, &[Wide(from), Wide(to)]).unwrap();
    let mut sum = 0.0;
    let sums: Vec<f64> = values.iter().map(|value| (sum += value, sum).1).collect();
    assert_eq!(bench.download(to, 192, f64::from_le_bytes), sums);
}

#[test]
fn atomic_totals() {
    let mut next = numbers(6);
    let values: Vec<u32> = (0..1500).map(|_| 5 + next() % 1_000_000).collect();
    let mut bench = Bench::new(BLOCKS, 7);
    let from = bench.upload(&values, u32::to_le_bytes);
    let totals = bench.upload(&[u64::from(u32::MAX), 0, 0, 0, 0, 0], u64::to_le_bytes);
    let histogram = bench.upload(&[0; 16], u32::to_le_bytes);
    let parameters = [Wide(from), Word(1500), Wide(totals), Wide(histogram)];
    bench.run("totals", [3, 1, 1], 96, 0, &parameters).unwrap();
    let words = bench.download(totals, 12, u32::from_le_bytes);
    let wide = bench.download(totals, 6, u64::from_le_bytes);
    let sum: u64 = values.iter().map(|&value| u64::from(value)).sum();
    assert_eq!(words[0], *values.iter().min().unwrap());
    assert_eq!(words[1], *values.iter().max().unwrap());
    assert_eq!(words[2], values.iter().fold(0, |all, value| all | 1 << (value % 32)));
    assert!(values.contains(&words[3]));
    assert_eq!([wide[2], wide[3]], [sum, sum]);
    assert_eq!(f32::from_bits(words[8]), values.iter().map(|value| (value % 8) as f32).sum::<f32>());
    assert_eq!(words[9], 1500 % 10);
    assert_eq!(f64::from_bits(wide[5]), sum as f64 * 0.5);
    let mut counts = vec![0; 16];
    values.iter().for_each(|value| counts[(value % 16) as usize] += 1);
    assert_eq!(bench.download(histogram, 16, u32::from_le_bytes), counts);
}

#[test]
fn votes_of_warps_and_blocks() {
    let mut next = numbers(8);
    let values: Vec<i32> = (0..96).map(|_| (next() % 200) as i32 - 100).collect();
    let mut bench = Bench::new(BLOCKS, 9);
    let (from, to) = (bench.upload(&values, i32::to_le_bytes), bench.room(96 * 12 * 4));
    bench.run("votes", [1, 1, 1], 96, 0, &[Wide(from), Wide(to)]).unwrap();
    let results = bench.download(to, 96 * 12, i32::from_le_bytes);
    for (at, own) in results.chunks(12).enumerate() {
        let warp = &values[at / 32 * 32..][..32];
        let ballot =
            warp.iter().enumerate().fold(0, |all, (lane, &value)| all | i32::from(value > 0) << lane);
        let lane = at % 32;
        let up = if lane % 8 < 3 { warp[lane] } else { warp[lane - 3] };
        let expected = [
            ballot,
            i32::from(warp.iter().any(|&value| value > 90)),
            i32::from(warp.iter().all(|&value| value > -90)),
            warp.iter().sum(),
            *warp.iter().min().unwrap(),
            warp.iter().map(|&value| value as u32).max().unwrap() as i32,
            warp.iter().fold(0, |all, value| all ^ value),
            values.iter().filter(|&&value| value > 0).count() as i32,
            i32::from(values.iter().any(|&value| value > 90)),
            i32::from(values.iter().all(|&value| value > -90)),
            // All lanes, and that they are the same.
            0,
            up + warp[lane / 16 * 16 + 5],
        ];
        assert_eq!(own, expected);
    }
}
