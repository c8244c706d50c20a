//! Codeword scores, retrieval, and what a new token costs the index.

use super::{
    bench::{Bench, Work},
    check,
    contexts::{codebook, codes, queries},
    results::Shape,
};
use a2ats_kernel::{
    Codebook, Dtype, Kernels,
    retrieval::{RetrievalIndex, RetrievalScratch},
};
use a2ats_tests::{
    inputs::{Noise, rounded},
    reference::{linear::matvec, retrieval::take_count, to_f64},
};
use rayon::prelude::*;
use std::hint::black_box;

const CODEWORDS: usize = 4096;
const GROUP: usize = 4;
const HEAD_DIM: usize = 128;
/// Codebooks that a run goes through, 1 MiB each: more together than an L3 cache holds.
const HEADS: usize = 512;

/// Scores of the group and the code of the newest key, codebooks of many heads in turn.
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
        let (queries, key) = (queries(&mut noise, GROUP, HEAD_DIM), noise.vector(HEAD_DIM, 1.0));
        for &kernels in &bench.kernels.clone() {
            check_scores(kernels, dtype);
            for pool in 0..bench.pools.len() {
                let pool = &bench.pools[pool];
                let timing = bench.budget.time_on(pool, |_| score_all(kernels, &books, &queries, &key));
                let (threads, shape) = (pool.current_num_threads(), shape(dtype));
                let bytes = Work::Bytes(HEADS * book.table_bytes());
                bench.record("codeword_scores", kernels.name(), threads, shape, timing, bytes);
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

fn score_all(kernels: &dyn Kernels, books: &[Codebook], queries: &[f32], key: &[f32]) {
    books.par_iter().for_each_init(
        || vec![0.0; CODEWORDS * GROUP],
        |scores, book| {
            black_box(
                kernels.codeword_scores(book, queries, Some(key), scores).expect("shapes fit together"),
            );
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
    let mut scores = vec![0.0; codes * GROUP];
    // A codeword's own code is its own number.
    let newest = Some(&table[77 * HEAD_DIM..78 * HEAD_DIM]);
    let code = kernels.codeword_scores(&book, &queries, newest, &mut scores).expect("shapes fit together");
    assert_eq!(code, Some(77), "{}: the code of a codeword", kernels.name());
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

/// The union of what each head of a group takes. Retrieval is the same code on every backend; only the selection is
/// timed, positions are written by [`RetrievalIndex::write_positions`].
pub fn retrieve(bench: &mut Bench) {
    if !bench.begins("retrieve") {
        return;
    }
    let mut noise = Noise::new(17);
    let book = codebook(&mut noise, CODEWORDS, HEAD_DIM, Dtype::F16);
    for (tokens, share) in RETRIEVALS {
        let mut index = RetrievalIndex::new(CODEWORDS).expect("4096 codewords are allowed");
        index.extend(0, &codes(&mut noise, CODEWORDS, tokens)).expect("positions start at 0");
        let take = take_count(share, tokens);
        for &kernels in &bench.kernels.clone() {
            let scores: Vec<Vec<f32>> = (0..16)
                .map(|_| {
                    let mut scores = vec![0.0; CODEWORDS * GROUP];
                    let queries = queries(&mut noise, GROUP, HEAD_DIM);
                    kernels.codeword_scores(&book, &queries, None, &mut scores).expect("shapes fit together");
                    scores
                })
                .collect();
            let mut scratch = RetrievalScratch::default();
            let timing = bench.budget.time(|run| {
                let scores = &scores[run % scores.len()];
                index.select(kernels, scores, take, &mut scratch).expect("shapes fit together");
                black_box(&scratch);
            });
            let mut positions = Vec::new();
            index.write_positions(&scratch, &mut positions);
            let shape = Shape {
                tokens: Some(tokens),
                attended: Some(positions.len()),
                kv_heads: Some(1),
                ..shape(Dtype::F16)
            };
            bench.record("retrieve", kernels.name(), 1, shape, timing, Work::Time);
        }
    }
}

/// A token that leaves the window, per token, up to a million.
pub fn index_upkeep(bench: &mut Bench) {
    if !bench.begins("index_upkeep") {
        return;
    }
    let codes = codes(&mut Noise::new(19), CODEWORDS, 1 << 20);
    let mut timing = bench.budget.time(|_| {
        let mut index = RetrievalIndex::new(CODEWORDS).expect("4096 codewords are allowed");
        for (position, code) in codes.iter().enumerate() {
            index.extend(position, std::slice::from_ref(code)).expect("positions ascend");
        }
        black_box(&index);
    });
    timing.best /= codes.len() as f64;
    timing.median /= codes.len() as f64;
    let shape = Shape { tokens: Some(codes.len()), codewords: Some(CODEWORDS), ..Shape::default() };
    bench.record("index_upkeep", "every", 1, shape, timing, Work::Time);
}
