//! The estimate of what is not attended.

use super::{
    bench::{Bench, Work},
    check,
    results::Shape,
};
use a2ats_kernel::{
    Elements, Kernels,
    attention::Partial,
    estimate::{STRIP, Scratch, Sums, Table, Unattended},
    rows::{Rows, Run, Runs},
};
use a2ats_tests::{calls, inputs::Noise, reference::to_f64};
use half::bf16;
use rayon::prelude::*;
use std::hint::black_box;

const CODEWORDS: usize = 4096;
const GROUP: usize = 4;
const HEAD_DIM: usize = 128;
/// Tables of sums that a run goes through, 512 KiB each: more together than an L3 cache holds.
const HEADS: usize = 1024;
/// Rows that are attended.
const ROWS: usize = 64;

/// The scale of all sums.
const SCALE: f32 = 1.0 / 24.0;

/// Sums up to 5.
fn numbers(noise: &mut Noise, codes: usize) -> Vec<i8> {
    noise.vector(codes * HEAD_DIM, 5.0 / SCALE).into_iter().map(|x| x as i8).collect()
}

/// What the heads have in common.
struct Inputs {
    codes: Vec<u16>,
    counts: Vec<u32>,
    shares: Vec<f32>,
    scales: Vec<f32>,
    scores: Vec<f32>,
    rows: Vec<bf16>,
    queries: Vec<f32>,
}

impl Inputs {
    fn new(noise: &mut Noise, codes: usize) -> Self {
        Self {
            codes: (0..codes as u16).collect(),
            counts: (0..codes).map(|_| 1 + noise.below(60) as u32).collect(),
            shares: (0..codes).map(|_| noise.below(5) as f32 / 4.0).collect(),
            scales: vec![SCALE; codes],
            scores: noise.vector(GROUP * codes, 1.0),
            rows: noise.vector(ROWS * 2 * HEAD_DIM, 1.0).into_iter().map(bf16::from_f32).collect(),
            queries: noise.vector(GROUP * HEAD_DIM, 1.0),
        }
    }

    fn rows(&self) -> Rows<'_> {
        Rows::new(Elements::Bf16(&self.rows), HEAD_DIM).expect("whole rows")
    }

    /// The estimate from one table.
    fn estimate(&self, kernels: &dyn Kernels, numbers: &[i8], scratch: &mut Scratch, out: &mut Partial) {
        let sums = Sums::Int8 { numbers, scales: &self.scales };
        let (areas, tables) = ([self.rows()], [Table { sums, codes: &self.codes, counts: &self.counts }]);
        let what = Unattended {
            tables: &tables,
            rows: Runs::new(&areas, &[]).expect("no runs"),
            row_codes: &[],
            shares: &self.shares,
            scores: &self.scores,
            offsets: &[0.0; GROUP],
            scale: 1.0,
        };
        kernels.estimate(&what, &what.whole(), scratch, out).expect("shapes fit together");
    }

    fn attended(&self, kernels: &dyn Kernels) -> Partial {
        calls::attend(kernels, self.rows(), &[Run::new(0, 0..ROWS)], &self.queries, 0.1)
            .expect("shapes fit together")
    }
}

/// Estimates from the sums of all codes, tables of many heads in turn.
pub fn estimate(bench: &mut Bench) {
    if !bench.begins("estimate") {
        return;
    }
    let mut noise = Noise::new(41);
    let inputs = Inputs::new(&mut noise, CODEWORDS);
    let table = numbers(&mut noise, CODEWORDS);
    let mut memory = memmap2::MmapOptions::new()
        .len(HEADS * CODEWORDS * HEAD_DIM)
        .map_anon()
        .expect("half a GiB of memory");
    let _ = memory.advise(memmap2::Advice::HugePage);
    let tables: &mut [i8] = bytemuck::cast_slice_mut(&mut memory);
    for to in tables.chunks_exact_mut(table.len()) {
        to.copy_from_slice(&table);
    }
    let tables = &*tables;
    for &kernels in &bench.kernels.clone() {
        check_estimate(kernels);
        for pool in 0..bench.pools.len() {
            let pool = &bench.pools[pool];
            let timing = bench.budget.time_on(pool, |_| {
                let tables = tables.par_chunks(CODEWORDS * HEAD_DIM);
                tables.for_each_init(
                    || (Scratch::default(), Partial::default()),
                    |(scratch, out), sums| {
                        inputs.estimate(kernels, sums, scratch, out);
                        black_box(&out);
                    },
                );
            });
            let shape = Shape {
                dtype: Some("int8"),
                kv_heads: Some(HEADS),
                group: Some(GROUP),
                head_dim: Some(HEAD_DIM),
                codewords: Some(CODEWORDS),
                ..Shape::default()
            };
            let bytes = Work::Bytes(size_of_val(tables));
            bench.record("estimate", kernels.name(), pool.current_num_threads(), shape, timing, bytes);
        }
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
    let mut estimate = Partial::default();
    inputs.estimate(kernels, &numbers, &mut Scratch::default(), &mut estimate);
    whole.merge(&estimate).expect("the same shape");
    whole.finish(&mut after).expect("the output's shape");
    let keys: Vec<f64> = inputs.rows.iter().map(|x| f64::from(x.to_f32())).collect();
    for head in 0..GROUP {
        let query = to_f64(&inputs.queries[head * HEAD_DIM..][..HEAD_DIM]);
        let of_row =
            |row: &[f64]| (query.iter().zip(row).map(|(q, k)| q * k).sum::<f64>() * f64::from(0.1_f32)).exp();
        let attended: f64 = keys.chunks_exact(2 * HEAD_DIM).map(|row| of_row(&row[..HEAD_DIM])).sum();
        let weight = |slot: usize| {
            let code = usize::from(inputs.codes[slot]);
            f64::from(inputs.scores[head * codes + code]).exp() * f64::from(inputs.shares[code])
        };
        let left: f64 = (0..codes).map(|slot| weight(slot) * f64::from(inputs.counts[slot])).sum();
        let want = (0..HEAD_DIM).map(|at| {
            let rest: f64 = (0..codes)
                .map(|slot| {
                    weight(slot) * f64::from(numbers[(at / STRIP * codes + slot) * STRIP + at % STRIP])
                })
                .sum();
            (attended * f64::from(before[head * HEAD_DIM + at]) + rest * f64::from(SCALE)) / (attended + left)
        });
        let got = &after[head * HEAD_DIM..][..HEAD_DIM];
        check::close(&format!("the estimate on {}", kernels.name()), got, &want.collect::<Vec<_>>(), 1e-2);
    }
}
