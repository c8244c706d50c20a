//! Causal attention of a chunk of queries over a long past.

use super::{
    bench::{Bench, Work},
    check,
    contexts::dense,
    products::{precision_name, precisions},
    results::Shape,
};
use a2ats_kernel::{
    Dtype, Kernels,
    attention::{Causal, Scratch},
    linear::Precision,
    rows::Rows,
    store::Store,
};
use a2ats_tests::{
    inputs::{Noise, Stored, rounded},
    reference::{attention::causal as reference, to_f64},
};
use rayon::prelude::*;

const TOKENS: usize = 32 << 10;
const POSITIONS: usize = 2048;
const GROUP: usize = 4;
const HEAD_DIM: usize = 128;
const KV_HEADS: usize = 2;
/// Query positions of one task.
const TASK: usize = 64;

/// The last 2048 tokens of a context of 32K, which attend to all before them; bf16 rows.
pub fn prefill_attention(bench: &mut Bench) {
    if !bench.begins("prefill_attention") {
        return;
    }
    let rows = dense(Dtype::Bf16, HEAD_DIM, TOKENS, KV_HEADS);
    // In quick runs fewer queries see the same past.
    let positions = if bench.options.quick { POSITIONS / 8 } else { POSITIONS };
    let queries = Noise::new(29).vector(positions * GROUP * HEAD_DIM, 1.0);
    let mut out = vec![0.0; KV_HEADS * queries.len()];
    for &kernels in &bench.kernels.clone() {
        check_causal(kernels);
        if kernels.name() == "portable" && bench.options.quick {
            continue;
        }
        for (&precision, pool) in precisions(kernels).iter().flat_map(|one| [(one, 0), (one, 1)]) {
            let Some(pool) = bench.pools.get(pool) else { continue };
            let timing =
                bench.budget.time_on(pool, |_| attend(kernels, &rows, &queries, precision, &mut out));
            let pairs = positions * (TOKENS - positions) + positions * (positions + 1) / 2;
            let flops = KV_HEADS * GROUP * pairs * 4 * HEAD_DIM;
            let shape = Shape {
                dtype: Some("bf16"),
                tokens: Some(TOKENS),
                kv_heads: Some(KV_HEADS),
                group: Some(GROUP),
                head_dim: Some(HEAD_DIM),
                inputs: Some(positions),
                precision: Some(precision_name(precision)),
                ..Shape::default()
            };
            let threads = pool.current_num_threads();
            bench.record("prefill_attention", kernels.name(), threads, shape, timing, Work::Flops(flops));
        }
    }
}

fn attend(kernels: &dyn Kernels, rows: &[Store], queries: &[f32], precision: Precision, out: &mut [f32]) {
    let task = TASK * GROUP * HEAD_DIM;
    let first = rows[0].len() - queries.len() / (GROUP * HEAD_DIM);
    out.par_chunks_mut(queries.len()).zip(rows).for_each(|(out, rows)| {
        out.par_chunks_mut(task).zip(queries.par_chunks(task)).enumerate().for_each(
            |(number, (out, queries))| {
                attend_task(kernels, rows.areas()[0], first + number * TASK, queries, precision, out);
            },
        );
    });
}

fn attend_task(
    kernels: &dyn Kernels,
    rows: Rows<'_>,
    first: usize,
    queries: &[f32],
    precision: Precision,
    out: &mut [f32],
) {
    let scale = 1.0 / (HEAD_DIM as f32).sqrt();
    let request = Causal { past: None, rows, first, group: GROUP, queries, scale, precision };
    kernels.attend_causal(&request, &mut Scratch::default(), out).expect("shapes fit together");
}

fn check_causal(kernels: &dyn Kernels) {
    let (mut noise, tokens, positions) = (Noise::new(31), 300, 70);
    let keys = rounded(Dtype::Bf16, &noise.vector(tokens * HEAD_DIM, 1.0));
    let values = rounded(Dtype::Bf16, &noise.vector(tokens * HEAD_DIM, 1.0));
    let queries = noise.vector(positions * GROUP * HEAD_DIM, 1.0);
    let stored = Stored::rows(Dtype::Bf16, &keys, &values, HEAD_DIM, 0);
    let rows = Rows::new(stored.elements(), HEAD_DIM).expect("whole rows");
    let mut out = vec![0.0; queries.len()];
    let first = tokens - positions;
    attend_task(kernels, rows, first, &queries, Precision::Rounded, &mut out);
    let scale = f64::from(1.0 / (HEAD_DIM as f32).sqrt());
    let want = reference(&to_f64(&queries), GROUP, &to_f64(&keys), &to_f64(&values), HEAD_DIM, scale, first);
    check::close(&format!("prefill attention on {}", kernels.name()), &out, &want, 2e-2);
}
