//! Codeword scores, retrieval, and what a store costs.

use super::{
    bench::{Bench, Work},
    check,
    contexts::{CODEWORDS, codebook, codes, queries, sorted},
    results::Shape,
};
use a2ats_kernel::{
    Codebook, Dtype, Kernels,
    codebook::{BestCode, Probes},
    decode::Sparsity,
    retrieval,
    store::Store,
};
use a2ats_tests::{
    calls,
    inputs::{Noise, rounded},
    reference::{linear::matvec, retrieval::take_count, to_f64},
};
use rayon::prelude::*;
use std::hint::black_box;

const GROUP: usize = 4;
const HEAD_DIM: usize = 128;
/// Codebooks that a run goes through, 1 MiB each: more together than an L3 cache holds.
const HEADS: usize = 512;
/// Sequences that share a codebook.
const SEQUENCES: usize = 8;

/// Scores of the group and the code of the newest key, codebooks of many heads in turn; for one sequence, and for some that share
/// each pass.
pub fn codeword_scores(bench: &mut Bench) {
    if !bench.begins("codeword_scores") {
        return;
    }
    for dtype in [Dtype::Bf16, Dtype::F16] {
        let mut noise = Noise::new(11);
        let book = codebook(&mut noise, CODEWORDS, HEAD_DIM, dtype);
        // Clones share their table until each gets its own.
        let mut books = vec![book.clone(); HEADS];
        Codebook::gather(&mut books).expect("half a GiB of memory for codebooks");
        for &kernels in &bench.kernels.clone() {
            check_scores(kernels, dtype);
            for (sequences, operation) in [(1, "codeword_scores"), (SEQUENCES, "codeword_scores_shared")] {
                let queries = queries(&mut noise, GROUP * sequences, HEAD_DIM);
                let keys = noise.vector(HEAD_DIM * sequences, 1.0);
                for pool in 0..bench.pools.len() {
                    let pool = &bench.pools[pool];
                    let timing = bench.budget.time_on(pool, |_| score_all(kernels, &books, &queries, &keys));
                    let (threads, shape) = (pool.current_num_threads(), shape(dtype));
                    let shape = Shape { inputs: (sequences > 1).then_some(sequences), ..shape };
                    let bytes = Work::Bytes(HEADS * book.table_bytes());
                    bench.record(operation, kernels.name(), threads, shape, timing, bytes);
                }
            }
        }
    }
}

fn shape(dtype: Dtype) -> Shape {
    Shape {
        dtype: Some(dtype.name()),
        kv_heads: Some(HEADS),
        group: Some(GROUP),
        head_dim: Some(HEAD_DIM),
        codewords: Some(CODEWORDS),
        ..Shape::default()
    }
}

fn score_all(kernels: &dyn Kernels, books: &[Codebook], queries: &[f32], keys: &[f32]) {
    let (of_queries, of_keys) = (queries.len() / HEAD_DIM, keys.len() / HEAD_DIM);
    books.par_iter().for_each_init(
        || (Probes::default(), vec![0.0; CODEWORDS * of_queries]),
        |(probes, scores), book| {
            let mut best = vec![BestCode::default(); of_keys];
            kernels.prepare_probes(book, queries, keys, probes).expect("shapes fit together");
            let done = kernels.codeword_scores(book, probes, 0..CODEWORDS, scores, &mut best);
            done.expect("shapes fit together");
            black_box((best, scores));
        },
    );
}

fn check_scores(kernels: &dyn Kernels, dtype: Dtype) {
    let (mut noise, codes) = (Noise::new(13), 512);
    // Codewords whose mean is zero: the kernels store them less their mean, and score them so.
    let half = noise.vector(codes / 2 * HEAD_DIM, 1.0);
    let table: Vec<f32> = half.iter().copied().chain(half.iter().map(|x| -x)).collect();
    let unit = a2ats_tests::inputs::unit_matrix(HEAD_DIM);
    let book = Codebook::new(&table, &unit, HEAD_DIM, dtype).expect("random numbers make a codebook");
    let queries = queries(&mut noise, GROUP, HEAD_DIM);
    // A codeword's own code is its own number.
    let newest = &table[77 * HEAD_DIM..78 * HEAD_DIM];
    let (scores, code) = calls::scores(kernels, &book, &queries, newest).expect("shapes fit together");
    assert_eq!(code, [77], "{}: the code of a codeword", kernels.name());
    let stored = to_f64(&rounded(dtype, &table));
    for (head, query) in queries.chunks_exact(HEAD_DIM).enumerate() {
        let want = matvec(&stored, codes, HEAD_DIM, &to_f64(query));
        let got = &scores[head * codes..(head + 1) * codes];
        check::close(&format!("codeword scores on {}", kernels.name()), got, &want, 1e-3);
    }
}

/// Contexts that retrieval is timed in, with the share that each query head takes: 3%, and the same number of tokens
/// in a short and a long context.
const RETRIEVALS: [(usize, f64); 3] = [(128 << 10, 0.03), (64 << 10, 0.03), (1 << 20, 0.03 / 16.0)];

/// The union of what each head of a group takes, as numbers of tokens by code.
pub fn retrieve(bench: &mut Bench) {
    if !bench.begins("retrieve") {
        return;
    }
    let mut noise = Noise::new(17);
    let book = codebook(&mut noise, CODEWORDS, HEAD_DIM, Dtype::F16);
    for (tokens, share) in RETRIEVALS {
        let (mut store, mut counts) = (codes_only(&codes(&mut noise, CODEWORDS, tokens)), Vec::new());
        store.counts(&mut counts).expect("memory for the counts");
        let take = take_count(share, tokens);
        for &kernels in &bench.kernels.clone() {
            let scores: Vec<Vec<f32>> = (0..16)
                .map(|_| {
                    let queries = queries(&mut noise, GROUP, HEAD_DIM);
                    calls::scores(kernels, &book, &queries, &[]).expect("shapes fit together").0
                })
                .collect();
            let (mut scratch, mut prefixes) = (retrieval::Scratch::default(), Vec::new());
            let timing = bench.budget.time(|run| {
                let scores = &scores[run % scores.len()];
                retrieval::retrieve(kernels, scores, &counts, take, &store, &mut scratch, &mut prefixes)
                    .expect("shapes fit together");
                black_box(&prefixes);
            });
            let shape = Shape {
                tokens: Some(tokens),
                attended: Some(prefixes.iter().map(|&taken| taken as usize).sum()),
                kv_heads: Some(1),
                ..shape(Dtype::F16)
            };
            bench.record("retrieve", kernels.name(), 1, shape, timing, Work::Time);
        }
    }
}

/// A store whose rows are as short as they can be.
fn codes_only(codes: &[u16]) -> Store {
    let layout = Sparsity { window: 1, sinks: 0, ..Sparsity::default() }.layout(Dtype::F16, 16, CODEWORDS);
    let mut store = Store::new(layout, 1 << 21).expect("address space");
    let zeros = vec![0.0; 16 * codes.len()];
    store.append(&zeros, &zeros, codes).expect("the store has room");
    store.sort(a2ats_kernel::available()[0]).expect("memory for the rows laid out by code");
    store
}

/// Laying out by code, per row: at the end of prefill, and again with a base there is.
pub fn sort(bench: &mut Bench) {
    if !bench.begins("sort") {
        return;
    }
    let tokens = 128 << 10;
    let codes = codes(&mut Noise::new(19), CODEWORDS, tokens + (8 << 10));
    let first = sorted(Dtype::Bf16, HEAD_DIM, &[codes[..tokens].to_vec()]);
    let rows = Noise::new(20).vector(codes.len() * HEAD_DIM, 1.0);
    for &kernels in &bench.kernels.clone() {
        for more in [0, 8 << 10] {
            let timing = bench.budget.time(|_| {
                let mut store = if more > 0 {
                    first[0].fork().expect("memory for a fork")
                } else {
                    Store::new(first[0].layout(), tokens).expect("address space")
                };
                let new = store.len()..tokens + more;
                let numbers = &rows[new.start * HEAD_DIM..new.end * HEAD_DIM];
                store.append(numbers, numbers, &codes[new]).expect("the store has room");
                store.sort(kernels).expect("memory for the rows laid out by code");
                black_box(&store);
            });
            let shape = Shape {
                tokens: Some(tokens),
                inputs: Some(more),
                codewords: Some(CODEWORDS),
                ..Shape::default()
            };
            bench.record("sort", kernels.name(), 1, shape, timing, Work::Time);
        }
    }
}
