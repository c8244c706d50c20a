//! Whole decode steps of one layer over context lengths: dense, and a2ats with its parts.

use super::{
    attention::{attend_heads, output},
    bench::{Bench, Work},
    contexts::{codebook, codes, kv_rows, no_rows, queries},
    results::{Parts, Shape},
};
use a2ats_kernel::{
    Codebook, Dtype, Kernels,
    attention::{Partial, Selection},
    decode::{HeadIndex, Sparsity, StepInput, StepScratch, Tail, attend_rest, choose_rows},
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
    /// `[KV_HEADS]`, or `[LAYERS][KV_HEADS]`: those are gone through in turn.
    indices: Vec<HeadIndex>,
    scratch: Vec<StepScratch>,
    /// `[LAYERS][KV_HEADS]`
    books: Vec<Codebook>,
    /// By step: the group's queries, and a key that serves as value as well.
    inputs: Vec<(Vec<f32>, Vec<f32>)>,
}

/// Steps at 1K, 4K, … tokens; the longest context first, so that its rows serve the shorter ones.
pub fn decode_steps(bench: &mut Bench) {
    let steps = ["decode_step_dense", "decode_step_a2ats", "decode_step_tail", "decode_step_tail_averaged"];
    if !steps.iter().any(|step| bench.options.wants(step)) {
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
                // Where figures are quoted, posting lists of all layers are gone through, like codebooks.
                let layers = if tokens == 128 << 10 { LAYERS } else { 1 };
                let sparsity = Sparsity { tail: Tail::Off, ..Sparsity::default() };
                layer.index(kernels, &codes, tokens, sparsity, layers);
                time_a2ats(bench, kernels, &mut layer, tokens);
            }
            if tokens == 128 << 10 {
                for (operation, tail, retrieve) in [
                    ("decode_step_tail", Tail::Fixed, 0.03),
                    ("decode_step_tail", Tail::Fixed, 0.01),
                    ("decode_step_tail_averaged", Tail::Averaged, 0.03),
                ] {
                    layer.rows.iter_mut().for_each(|rows| rows.truncate(tokens));
                    let sparsity = Sparsity { retrieve, tail, ..Sparsity::default() };
                    layer.index(kernels, &codes, tokens, sparsity, LAYERS);
                    time_tail(bench, kernels, &mut layer, tokens, operation);
                }
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
        finish(attend_heads(kernels, &layer.rows, &selections, queries));
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

fn time_tail(
    bench: &mut Bench,
    kernels: &dyn Kernels,
    layer: &mut Layer,
    tokens: usize,
    operation: &'static str,
) {
    let (pool, threads) = (bench.all_threads(), bench.all_threads().current_num_threads());
    let timing = bench.budget.time_on(pool, |run| layer.step(kernels, run));
    let attended = layer.scratch.iter().map(|scratch| scratch.positions().len()).sum::<usize>() / KV_HEADS;
    let shape = Shape { attended: Some(attended), codewords: Some(CODEWORDS), ..shape(tokens) };
    bench.record(operation, kernels.name(), threads, shape, timing, Work::Time);
}

fn finish(heads: Vec<Partial>) {
    for whole in heads {
        black_box(output(&whole, GROUP * HEAD_DIM));
    }
}

impl Layer {
    /// Makes the indices of some layers for a context, and takes a step with each: the first one indexes everything, and what was copied
    /// gets room to grow.
    fn index(
        &mut self,
        kernels: &dyn Kernels,
        codes: &[Vec<u16>],
        tokens: usize,
        sparsity: Sparsity,
        layers: usize,
    ) {
        let heads = codes.par_iter().zip(&self.rows).map(|(codes, rows)| {
            let mut index = HeadIndex::new(CODEWORDS, sparsity).expect("shares in range");
            index.append(&codes[..tokens]);
            let (scores, mut scratch) = (vec![0.0; CODEWORDS], RetrievalScratch::default());
            index
                .choose(kernels, rows.rows(), &scores, &mut scratch, &mut Vec::new())
                .expect("shapes fit together");
            index
        });
        let heads: Vec<HeadIndex> = heads.collect();
        self.indices = (0..layers).flat_map(|_| heads.clone()).collect();
        (0..layers).for_each(|run| self.step(kernels, run));
    }

    /// The codebooks of the layer that is to be thought of in this run.
    fn books(&self, run: usize) -> &[Codebook] {
        &self.books[run % LAYERS * KV_HEADS..][..KV_HEADS]
    }

    /// Score, retrieve, attend, and estimate the rest where there are sums of values.
    fn step(&mut self, kernels: &dyn Kernels, run: usize) {
        let Self { rows, indices, scratch, books, inputs } = self;
        let first = run * KV_HEADS % indices.len();
        let indices = &mut indices[first..first + KV_HEADS];
        // Positions go on in other layers' rows: all hold the same context, longer by what other runs have added.
        let tokens = indices[0].codes().len();
        rows.iter_mut().for_each(|rows| rows.truncate(tokens));
        let (queries, key) = &inputs[run % inputs.len()];
        let books = &books[run % LAYERS * KV_HEADS..][..KV_HEADS];
        let is_averaged = indices[0].sparsity().tail == Tail::Averaged;
        let input = StepInput {
            queries,
            windowed_queries: queries,
            averaged_queries: if is_averaged { queries } else { &[] },
            key,
            rotated_key: key,
            value: key,
        };
        rows.par_iter_mut().zip(&mut *indices).zip(&mut *scratch).zip(books).with_max_len(1).for_each(
            |(((rows, index), scratch), book)| {
                choose_rows(kernels, book, rows, index, &input, scratch).expect("shapes fit together");
            },
        );
        let selections: Vec<_> =
            scratch.iter().map(|scratch| Selection::Positions(scratch.positions())).collect();
        let mut heads = attend_heads(kernels, rows, &selections, queries);
        let scale = 1.0 / (HEAD_DIM as f32).sqrt();
        heads.par_iter_mut().zip(rows).zip(indices).zip(scratch).with_max_len(1).for_each(
            |(((whole, rows), index), scratch)| {
                let codes = attend_rest(kernels, rows.rows(), index, scale, scratch, whole);
                black_box(codes.expect("shapes fit together"));
            },
        );
        finish(heads);
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
        self.indices[..KV_HEADS].par_iter_mut().with_max_len(1).for_each_init(
            working,
            |(scratch, positions), index| {
                black_box(
                    index
                        .choose(kernels, no_rows(), scores, scratch, positions)
                        .expect("shapes fit together"),
                );
            },
        );
    }
}
