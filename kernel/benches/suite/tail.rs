//! The estimate of what is not attended.

use super::{
    bench::{Bench, Work},
    check,
    contexts::{codes, kv_rows},
    results::Shape,
};
use a2ats_kernel::{
    Dtype, Elements, Kernels,
    attention::{Partial, Selection},
    kv::Rows,
    tail::{Rest, STRIP, Sums, ValueSums},
};
use a2ats_tests::{inputs::Noise, reference::to_f64};
use half::bf16;
use rayon::prelude::*;
use std::hint::black_box;

const CODEWORDS: usize = 4096;
const GROUP: usize = 4;
const HEAD_DIM: usize = 128;
/// Tables of sums that a run goes through, 1 MiB each: more together than an L3 cache holds.
const HEADS: usize = 512;
/// Rows that are attended.
const ROWS: usize = 64;

/// The scale of all sums.
const SCALE: f32 = 1.0 / 4096.0;

/// Sums up to 5.
fn numbers(noise: &mut Noise, codes: usize) -> Vec<i16> {
    noise.vector(codes * HEAD_DIM, 5.0 / SCALE).into_iter().map(|x| x as i16).collect()
}

/// What the heads have in common.
struct Inputs {
    codes: Vec<u16>,
    left: Vec<u32>,
    scales: Vec<f32>,
    scores: Vec<f32>,
    rows: Vec<bf16>,
    queries: Vec<f32>,
}

impl Inputs {
    fn new(noise: &mut Noise, codes: usize) -> Self {
        Self {
            codes: (0..codes as u16).collect(),
            left: (0..codes).map(|_| 1 + noise.below(60) as u32).collect(),
            scales: vec![SCALE; codes],
            // Scores that leave no code out.
            scores: noise.vector(GROUP * codes, 1.0),
            rows: noise.vector(ROWS * 2 * HEAD_DIM, 1.0).into_iter().map(bf16::from_f32).collect(),
            queries: noise.vector(GROUP * HEAD_DIM, 1.0),
        }
    }

    fn rows(&self) -> Rows<'_> {
        Rows::new(Elements::Bf16(&self.rows), HEAD_DIM).expect("whole rows")
    }

    fn rest<'a>(&'a self, numbers: &'a [i16]) -> Rest<'a> {
        Rest {
            sums: Sums::Quantized { numbers, scales: &self.scales },
            codes: &self.codes,
            left: &self.left,
            scores: &self.scores,
            offsets: &[0.0; GROUP],
            scale: 1.0,
            rows: self.rows(),
            boundary: &[],
            boundary_slots: &[],
        }
    }

    fn attended(&self, kernels: &dyn Kernels) -> Partial {
        let mut out = Partial::default();
        kernels
            .attend(self.rows(), &Selection::Range(0..ROWS), &self.queries, 0.1, &mut out)
            .expect("shapes fit together");
        out
    }
}

/// Estimates from the sums of all codes, tables of many heads in turn.
pub fn estimate(bench: &mut Bench) {
    if !bench.begins("tail") {
        return;
    }
    let mut noise = Noise::new(41);
    let inputs = Inputs::new(&mut noise, CODEWORDS);
    let table = numbers(&mut noise, CODEWORDS);
    let mut memory = memmap2::MmapOptions::new()
        .len(HEADS * CODEWORDS * HEAD_DIM * 2)
        .map_anon()
        .expect("half a GiB of memory");
    let _ = memory.advise(memmap2::Advice::HugePage);
    let tables: &mut [i16] = bytemuck::cast_slice_mut(&mut memory);
    for to in tables.chunks_exact_mut(table.len()) {
        to.copy_from_slice(&table);
    }
    let tables = &*tables;
    for &kernels in &bench.kernels.clone() {
        check_estimate(kernels);
        let attended = inputs.attended(kernels);
        for pool in 0..bench.pools.len() {
            let pool = &bench.pools[pool];
            let timing = bench.budget.time_on(pool, |_| {
                tables.par_chunks(CODEWORDS * HEAD_DIM).for_each(|sums| {
                    let mut out = attended.clone();
                    let codes =
                        kernels.attend_rest(&inputs.rest(sums), &mut out).expect("shapes fit together");
                    assert_eq!(black_box(codes), CODEWORDS);
                });
            });
            let shape = Shape {
                dtype: Some("i16"),
                kv_heads: Some(HEADS),
                group: Some(GROUP),
                head_dim: Some(HEAD_DIM),
                codewords: Some(CODEWORDS),
                ..Shape::default()
            };
            let bytes = Work::Bytes(size_of_val(tables));
            bench.record("tail", kernels.name(), pool.current_num_threads(), shape, timing, bytes);
        }
    }
}

/// The value of a token that leaves the window, per token, in a context that has all codes.
pub fn upkeep(bench: &mut Bench) {
    if !bench.begins("tail_upkeep") {
        return;
    }
    let (mut noise, tokens) = (Noise::new(47), 1 << 17);
    let codes = codes(&mut noise, CODEWORDS, tokens);
    let rows = kv_rows(Dtype::Bf16, HEAD_DIM, tokens, 1);
    for &kernels in &bench.kernels.clone() {
        let mut sums = ValueSums::new(CODEWORDS, rows[0].rows()).expect("memory for sums");
        kernels.sum_values(&mut sums, rows[0].rows(), 0, &codes).expect("shapes fit together");
        let mut timing = bench.budget.time(|_| {
            kernels.sum_values(&mut sums, rows[0].rows(), 0, &codes).expect("shapes fit together");
            black_box(&sums);
        });
        timing.best /= tokens as f64;
        timing.median /= tokens as f64;
        let shape = Shape { tokens: Some(tokens), codewords: Some(CODEWORDS), ..Shape::default() };
        bench.record("tail_upkeep", kernels.name(), 1, shape, timing, Work::Time);
    }
}

/// A few codes, against sums in f64.
fn check_estimate(kernels: &dyn Kernels) {
    let (mut noise, codes) = (Noise::new(43), 100);
    let inputs = Inputs::new(&mut noise, codes);
    let numbers = numbers(&mut noise, codes);
    let attended = inputs.attended(kernels);
    let (mut before, mut after) = (vec![0.0; GROUP * HEAD_DIM], vec![0.0; GROUP * HEAD_DIM]);
    attended.finish(&mut before).expect("the output's shape");
    let mut whole = attended;
    kernels.attend_rest(&inputs.rest(&numbers), &mut whole).expect("shapes fit together");
    whole.finish(&mut after).expect("the output's shape");
    let keys: Vec<f64> = inputs.rows.iter().map(|x| f64::from(x.to_f32())).collect();
    for head in 0..GROUP {
        let query = to_f64(&inputs.queries[head * HEAD_DIM..][..HEAD_DIM]);
        let of_row =
            |row: &[f64]| (query.iter().zip(row).map(|(q, k)| q * k).sum::<f64>() * f64::from(0.1_f32)).exp();
        let attended: f64 = keys.chunks_exact(2 * HEAD_DIM).map(|row| of_row(&row[..HEAD_DIM])).sum();
        let weight =
            |slot: usize| f64::from(inputs.scores[head * codes + usize::from(inputs.codes[slot])]).exp();
        let left: f64 = (0..codes).map(|slot| weight(slot) * f64::from(inputs.left[slot])).sum();
        let want = (0..HEAD_DIM).map(|at| {
            let rest: f64 = (0..codes)
                .map(|slot| {
                    weight(slot) * f64::from(numbers[(at / STRIP * codes + slot) * STRIP + at % STRIP])
                })
                .sum();
            (attended * f64::from(before[head * HEAD_DIM + at]) + rest * f64::from(SCALE)) / (attended + left)
        });
        let got = &after[head * HEAD_DIM..][..HEAD_DIM];
        check::close(&format!("the tail on {}", kernels.name()), got, &want.collect::<Vec<_>>(), 1e-2);
    }
}
