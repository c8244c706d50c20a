//! Whole decode steps of one layer over context lengths: dense, and a2ats with its parts.

use super::{
    attention::attend_heads,
    bench::{Bench, Work},
    contexts::{codebook, codes, index, kv_rows, queries},
    results::{Parts, Shape},
};
use a2ats_kernel::{
    Codebook, Dtype, Kernels,
    attention::Selection,
    decode::{HeadIndex, StepInput, StepScratch, choose_rows},
    kv::KvRows,
    retrieval::RetrievalScratch,
};
use a2ats_tests::inputs::Noise;
use rayon::prelude::*;
use std::hint::black_box;

const KV_HEADS: usize = 8;
const GROUP: usize = 4;
const HEAD_DIM: usize = 128;
const CODEWORDS: usize = 4096;
/// Layers whose codebooks are gone through in turn: those of an 8B model, 256 MiB.
const LAYERS: usize = 32;

/// One layer of an 8B model: its caches, and what goes in.
struct Layer {
    rows: Vec<KvRows>,
    indices: Vec<HeadIndex>,
    scratch: Vec<StepScratch>,
    /// `[LAYERS][KV_HEADS]`
    books: Vec<Codebook>,
    /// By step: the group's queries, and a key that serves as value as well.
    inputs: Vec<(Vec<f32>, Vec<f32>)>,
}

/// Steps at 1K, 4K, … tokens; the longest context first, so that its rows serve the shorter ones.
pub fn decode_steps(bench: &mut Bench) {
    let wanted =
        ["decode_step_dense", "decode_step_a2ats"].iter().filter(|step| bench.options.wants(step)).count();
    if wanted == 0 {
        return;
    }
    bench.begins("decode_step_a2ats");
    let longest = if bench.options.quick { 128 << 10 } else { 1 << 20 };
    let mut noise = Noise::new(37);
    let codes: Vec<Vec<u16>> = (0..KV_HEADS).map(|_| codes(&mut noise, CODEWORDS, longest)).collect();
    let mut books = vec![codebook(&mut noise, CODEWORDS, HEAD_DIM, Dtype::Bf16); LAYERS * KV_HEADS];
    Codebook::gather(&mut books).expect("memory for the codebooks of all layers");
    let mut layer = Layer {
        rows: kv_rows(Dtype::Bf16, HEAD_DIM, longest, KV_HEADS),
        indices: Vec::new(),
        scratch: vec![StepScratch::default(); KV_HEADS],
        books,
        inputs: (0..64)
            .map(|_| (queries(&mut noise, GROUP, HEAD_DIM), noise.vector(HEAD_DIM, 1.0)))
            .collect(),
    };
    let lengths =
        [1 << 20, 512 << 10, 256 << 10, 128 << 10, 64 << 10, 32 << 10, 16 << 10, 8 << 10, 4096, 2048, 1024];
    for tokens in lengths.into_iter().filter(|&tokens| tokens <= longest) {
        for &kernels in &bench.kernels.clone() {
            // The curve is drawn for the best backend; the others are compared where figures are quoted.
            if kernels.name() == bench.kernels[0].name() || tokens == 128 << 10 {
                layer.rows.iter_mut().for_each(|rows| rows.truncate(tokens));
                time_dense(bench, kernels, &layer, tokens);
                layer.indices = codes.iter().map(|codes| index(CODEWORDS, &codes[..tokens])).collect();
                time_a2ats(bench, kernels, &mut layer, tokens);
            }
        }
    }
}

fn shape(tokens: usize) -> Shape {
    Shape {
        dtype: Some("bf16"),
        tokens: Some(tokens),
        kv_heads: Some(KV_HEADS),
        group: Some(GROUP),
        head_dim: Some(HEAD_DIM),
        ..Shape::default()
    }
}

fn time_dense(bench: &mut Bench, kernels: &dyn Kernels, layer: &Layer, tokens: usize) {
    let (pool, threads) = (bench.all_threads(), bench.all_threads().current_num_threads());
    let selections = vec![Selection::Range(0..tokens); KV_HEADS];
    let timing = bench.budget.time_on(pool, |run| {
        let (queries, _) = &layer.inputs[run % layer.inputs.len()];
        black_box(attend_heads(kernels, &layer.rows, &selections, queries));
    });
    bench.record("decode_step_dense", kernels.name(), threads, shape(tokens), timing, Work::Time);
}

fn time_a2ats(bench: &mut Bench, kernels: &dyn Kernels, layer: &mut Layer, tokens: usize) {
    let (pool, threads) = (bench.all_threads(), bench.all_threads().current_num_threads());
    let timing = bench.budget.time_on(pool, |run| layer.step(kernels, run));
    let attended = layer.scratch.iter().map(|scratch| scratch.positions().len()).sum::<usize>() / KV_HEADS;
    let score = bench.budget.time_on(pool, |run| layer.score(kernels, run)).best;
    let scores = layer.scores(kernels);
    let retrieve =
        bench.budget.time_on(pool, |run| layer.retrieve(kernels, &scores[run % scores.len()])).best;
    let shape = Shape { attended: Some(attended), codewords: Some(CODEWORDS), ..shape(tokens) };
    bench.record("decode_step_a2ats", kernels.name(), threads, shape, timing, Work::Time);
    let attend = (timing.best - score - retrieve).max(0.0);
    bench.add_parts(Parts { score, retrieve, attend });
}

impl Layer {
    /// The codebooks of the layer that is to be thought of in this run.
    fn books(&self, run: usize) -> &[Codebook] {
        &self.books[run % LAYERS * KV_HEADS..][..KV_HEADS]
    }

    /// Score, retrieve, attend.
    fn step(&mut self, kernels: &dyn Kernels, run: usize) {
        let Self { rows, indices, scratch, books, inputs } = self;
        let (queries, key) = &inputs[run % inputs.len()];
        let books = &books[run % LAYERS * KV_HEADS..][..KV_HEADS];
        let input = StepInput { queries, windowed_queries: queries, key, rotated_key: key, value: key };
        rows.par_iter_mut().zip(indices).zip(&mut *scratch).zip(books).with_max_len(1).for_each(
            |(((rows, index), scratch), book)| {
                choose_rows(kernels, book, rows, index, &input, scratch).expect("shapes fit together");
            },
        );
        let selections: Vec<_> =
            scratch.iter().map(|scratch| Selection::Positions(scratch.positions())).collect();
        black_box(attend_heads(kernels, rows, &selections, queries));
    }

    fn score(&self, kernels: &dyn Kernels, run: usize) {
        let (queries, key) = &self.inputs[run % self.inputs.len()];
        self.books(run).par_iter().with_max_len(1).for_each(|book| {
            let mut scores = vec![0.0; CODEWORDS * GROUP];
            let code = kernels.codeword_scores(book, queries, Some(key), &mut scores);
            black_box(code.expect("shapes fit together"));
        });
    }

    /// The scores of some steps.
    fn scores(&self, kernels: &dyn Kernels) -> Vec<Vec<f32>> {
        let of_queries = |(queries, _): &(Vec<f32>, Vec<f32>)| {
            let mut scores = vec![0.0; CODEWORDS * GROUP];
            kernels.codeword_scores(&self.books[0], queries, None, &mut scores).expect("shapes fit together");
            scores
        };
        self.inputs.iter().take(16).map(of_queries).collect()
    }

    /// Retrieval with scores that are there already.
    fn retrieve(&mut self, kernels: &dyn Kernels, scores: &[f32]) {
        let working = || (RetrievalScratch::default(), Vec::new());
        self.indices.par_iter_mut().with_max_len(1).for_each_init(working, |(scratch, positions), index| {
            black_box(index.choose(kernels, scores, scratch, positions).expect("shapes fit together"));
        });
    }
}
