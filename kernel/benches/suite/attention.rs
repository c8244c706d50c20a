//! Decode attention over all rows and over retrieved ones.

use super::{
    bench::{Bench, Work},
    check,
    contexts::{CODEWORDS, codebook, codes, dense, queries, sorted},
    results::Shape,
};
use a2ats_kernel::{
    Dtype, Kernels,
    attention::{Partial, Scratch},
    decode::{Choice, Estimate, Sparsity, rows_per_task},
    rows::{Rows, Run, Runs},
    store::Store,
};
use a2ats_tests::{
    calls,
    inputs::{Noise, Stored, rounded},
    reference::{attention::attend as reference, to_f64},
};
use rayon::prelude::*;
use std::{hint::black_box, ops::Range};

const TOKENS: usize = 128 << 10;
const KV_HEADS: usize = 8;

/// Rows that fit the second cache beside everything else: what the arithmetic alone takes.
const CACHED_TOKENS: usize = 1024;

/// What is varied; the first is the one that figures are quoted for.
const SHAPES: [(Dtype, usize, usize); 7] = [
    (Dtype::Bf16, 128, 4),
    (Dtype::Bf16, 128, 8),
    (Dtype::Bf16, 128, 7),
    (Dtype::Bf16, 128, 3),
    (Dtype::Bf16, 128, 1),
    (Dtype::F16, 128, 4),
    (Dtype::Bf16, 64, 4),
];

/// Attention over every row, kv heads in turn, split over threads by (kv head, range).
pub fn dense_decode(bench: &mut Bench) {
    if !bench.begins("dense_decode") {
        return;
    }
    over_shapes(bench, "dense_decode", |dtype, head_dim| {
        let stores = dense(dtype, head_dim, TOKENS, KV_HEADS);
        let chosen = vec![stores.iter().map(all_rows).collect()];
        (stores, chosen)
    });
}

/// The same where memory is not in the way.
pub fn cached_decode(bench: &mut Bench) {
    if !bench.begins("cached_decode") {
        return;
    }
    for (dtype, head_dim, group) in SHAPES.into_iter().take(3) {
        let stores = dense(dtype, head_dim, CACHED_TOKENS, 1);
        let chosen = vec![vec![all_rows(&stores[0])]];
        for &kernels in &bench.kernels.clone() {
            time(bench, "cached_decode", kernels, 0, (&stores, &chosen), group);
        }
    }
}

/// Attention over what retrieval chose from stores laid out by code, other rows in every run, so that no cache holds them.
pub fn selective(bench: &mut Bench) {
    if !bench.begins("selective") {
        return;
    }
    let kernels = bench.kernels[0];
    over_shapes(bench, "selective", |dtype, head_dim| {
        let mut noise = Noise::new(5);
        let codes: Vec<_> = (0..KV_HEADS).map(|_| codes(&mut noise, CODEWORDS, TOKENS)).collect();
        let mut stores = sorted(dtype, head_dim, &codes);
        let chosen = retrieved(kernels, &mut stores, 12);
        (stores, chosen)
    });
}

/// What a step attends to, by run of the benchmark and kv head.
type Chosen = Vec<Vec<Vec<Run>>>;

fn all_rows(store: &Store) -> Vec<Run> {
    let mut runs = Vec::new();
    store.all_rows(&mut runs);
    runs
}

fn over_shapes(bench: &mut Bench, operation: &str, make: impl Fn(Dtype, usize) -> (Vec<Store>, Chosen)) {
    let mut made: Option<(Dtype, usize, (Vec<Store>, Chosen))> = None;
    for (number, (dtype, head_dim, group)) in SHAPES.into_iter().enumerate() {
        if made.as_ref().is_none_or(|(of, dim, _)| (*of, *dim) != (dtype, head_dim)) {
            drop(made.take());
            made = Some((dtype, head_dim, make(dtype, head_dim)));
        }
        let Some((.., (stores, chosen))) = &made else { continue };
        for &kernels in &bench.kernels.clone() {
            if number > 0 && kernels.name() == "portable" {
                continue;
            }
            check_attention(kernels, dtype, head_dim, group);
            let pools = bench.pools.len();
            let first = if number > 0 && bench.options.quick { pools - 1 } else { 0 };
            for pool in first..pools {
                time(bench, operation, kernels, pool, (stores, chosen), group);
            }
        }
    }
}

fn time(
    bench: &mut Bench,
    operation: &str,
    kernels: &dyn Kernels,
    pool: usize,
    (stores, chosen): (&[Store], &Chosen),
    group: usize,
) {
    let layout = stores[0].layout();
    let pool = &bench.pools[pool];
    let queries: Vec<f32> = queries(&mut Noise::new(3), group, layout.head_dim);
    let timing = bench.budget.time_on(pool, |run| {
        let runs: Vec<&[Run]> = chosen[run % chosen.len()].iter().map(Vec::as_slice).collect();
        for whole in attend_heads(kernels, stores, &runs, &queries) {
            black_box(output(&whole, queries.len()));
        }
    });
    let rows = |runs: &Vec<Run>| runs.iter().map(|run| run.len as usize).sum::<usize>();
    let attended: usize = chosen.iter().flatten().map(rows).sum::<usize>() / chosen.len();
    let shape = Shape {
        dtype: Some(layout.dtype.name()),
        tokens: Some(stores[0].len()),
        attended: (operation == "selective").then_some(attended / stores.len()),
        kv_heads: Some(stores.len()),
        group: Some(group),
        head_dim: Some(layout.head_dim),
        ..Shape::default()
    };
    let threads = pool.current_num_threads();
    let work = if operation == "cached_decode" {
        Work::Flops(attended * group * 4 * layout.head_dim)
    } else {
        Work::Bytes(attended * layout.row_bytes())
    };
    bench.record(operation, kernels.name(), threads, shape, timing, work);
}

/// Attention of every kv head, as an engine spreads it over threads: so many rows a task, partials merged in order.
pub fn attend_heads(
    kernels: &dyn Kernels,
    stores: &[Store],
    runs: &[&[Run]],
    queries: &[f32],
) -> Vec<Partial> {
    let rows = |runs: &[Run]| runs.iter().map(|run| run.len as usize).sum::<usize>();
    let tasks: Vec<(usize, Range<usize>)> = runs
        .iter()
        .enumerate()
        .flat_map(|(head, runs)| {
            let (rows, task) =
                (rows(runs), rows_per_task(rows(runs), stores.len(), rayon::current_num_threads()));
            (0..rows).step_by(task).map(move |at| (head, at..rows.min(at + task)))
        })
        .collect();
    let scale = 1.0 / (stores[0].layout().head_dim as f32).sqrt();
    let partials: Vec<Partial> = tasks
        .par_iter()
        .map_init(Scratch::default, |scratch, (head, part)| {
            let (areas, mut partial) = (stores[*head].areas(), Partial::default());
            let rows = Runs::new(&areas, runs[*head]).expect("runs lie in their store");
            let done = kernels.attend(&rows, part.clone(), queries, scale, scratch, &mut partial);
            done.expect("shapes fit together");
            partial
        })
        .collect();
    let mut merged: Vec<Option<Partial>> = vec![None; stores.len()];
    for ((head, _), partial) in tasks.into_iter().zip(partials) {
        match &mut merged[head] {
            Some(whole) => whole.merge(&partial).expect("partials of one head have one shape"),
            none => *none = Some(partial),
        }
    }
    merged.into_iter().flatten().collect()
}

/// What a partial amounts to, `[group, head_dim]`.
pub fn output(whole: &Partial, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    whole.finish(&mut out).expect("the output has the queries' shape");
    out
}

/// What retrieval chooses in a context of [`TOKENS`].
fn retrieved(kernels: &dyn Kernels, stores: &mut [Store], runs: usize) -> Chosen {
    let mut noise = Noise::new(5);
    let (group, head_dim) = (4, stores[0].layout().head_dim);
    let book = codebook(&mut noise, CODEWORDS, head_dim, Dtype::F16);
    let sparsity = Sparsity { estimate: Estimate::Off, ..Sparsity::default() };
    let mut choose = |store: &mut Store| {
        let queries = queries(&mut noise, group, head_dim);
        let (scores, _) = calls::scores(kernels, &book, &queries, &[]).expect("shapes fit together");
        let mut choice = Choice::default();
        choice.choose(kernels, store, &sparsity, &scores).expect("shapes fit together");
        choice.runs().to_vec()
    };
    (0..runs).map(|_| stores.iter_mut().map(&mut choose).collect()).collect()
}

/// Attention over some hundred rows, all and a choice of them, against the reference.
fn check_attention(kernels: &dyn Kernels, dtype: Dtype, head_dim: usize, group: usize) {
    let (mut noise, tokens) = (Noise::new(7), 1000);
    let keys = rounded(dtype, &noise.vector(tokens * head_dim, 1.0));
    let values = rounded(dtype, &noise.vector(tokens * head_dim, 1.0));
    let queries = queries(&mut noise, group, head_dim);
    let stored = Stored::rows(dtype, &keys, &values, head_dim, 0);
    let rows = Rows::new(stored.elements(), head_dim).expect("whole rows");
    for chosen in [(0..tokens as u32).collect(), noise.positions(tokens)] {
        let mask: Vec<bool> = (0..tokens as u32).map(|position| chosen.contains(&position)).collect();
        let scale = 1.0 / (head_dim as f32).sqrt();
        let whole = calls::attend(kernels, rows, &calls::runs_of(&chosen), &queries, scale);
        let out = output(&whole.expect("shapes fit together"), queries.len());
        let scale = f64::from(scale);
        let want = reference(&to_f64(&queries), &to_f64(&keys), &to_f64(&values), head_dim, scale, &mask);
        check::close(&format!("attention on {}", kernels.name()), &out, &want, 2e-2);
    }
}
