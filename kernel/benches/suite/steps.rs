//! Whole decode steps of one layer over context lengths: dense, and a2ats with its parts.

use super::{
    attention::{attend_heads, output},
    bench::{Bench, Work},
    contexts::{CODEWORDS, codebook, codes, dense, queries, sorted},
    results::{Parts, Shape},
    timing::Timing,
};
use a2ats_kernel::{
    Codebook, Dtype, Kernels,
    attention::Partial,
    codebook::{BestCode, Probes},
    decode::{Choice, Estimate, Sparsity},
    estimate::{self, Sums},
    rows::Run,
    store::{Base, BaseMemory, Parts as BaseParts, Store},
};
use a2ats_tests::inputs::Noise;
use memmap2::MmapMut;
use rayon::prelude::*;
use std::{hint::black_box, sync::Arc, time::Instant};

const KV_HEADS: usize = 8;
const GROUP: usize = 4;
const HEAD_DIM: usize = 128;
/// Layers whose codebooks and sums are gone through in turn: those of an 8B model, 256 and 128 MiB.
const LAYERS: usize = 32;
const SCALE: f32 = 0.088;
/// The context that figures are quoted for.
const QUOTED: usize = 128 << 10;

/// Working memory of a kv head.
#[derive(Default)]
struct Working {
    probes: Probes,
    scores: Vec<f32>,
    choice: Choice,
    of_estimate: estimate::Scratch,
    rest: Partial,
}

/// Layers of an 8B model: what they keep of a context, and what goes in.
struct Layers {
    /// `[KV_HEADS]`, or `[LAYERS][KV_HEADS]`, which are gone through in turn.
    stores: Vec<Store>,
    sparsity: Sparsity,
    working: Vec<Working>,
    /// `[LAYERS][KV_HEADS]`
    books: Vec<Codebook>,
    /// By step: the group's queries, and a key that serves as value as well.
    inputs: Vec<(Vec<f32>, Vec<f32>)>,
}

/// Steps at 1K, 4K, … tokens; the longest context first, so that its rows serve the shorter ones.
pub fn decode_steps(bench: &mut Bench) {
    let steps = [
        "decode_step_dense",
        "decode_step_a2ats",
        "decode_step_estimate",
        "decode_step_averaged",
        "decode_step_sorting",
    ];
    if !steps.iter().any(|step| bench.options.wants(step)) {
        return;
    }
    bench.begins("decode_step_a2ats");
    let longest = if bench.options.quick { QUOTED } else { 1 << 20 };
    let mut noise = Noise::new(37);
    let codes: Vec<Vec<u16>> = (0..KV_HEADS).map(|_| codes(&mut noise, CODEWORDS, longest)).collect();
    let mut books = vec![codebook(&mut noise, CODEWORDS, HEAD_DIM, Dtype::Bf16); LAYERS * KV_HEADS];
    Codebook::gather(&mut books).expect("memory for the codebooks of all layers");
    let all = dense(Dtype::Bf16, HEAD_DIM, longest, KV_HEADS);
    let mut layers = Layers {
        stores: Vec::new(),
        sparsity: Sparsity::default(),
        working: (0..KV_HEADS).map(|_| Working::default()).collect(),
        books,
        inputs: (0..64)
            .map(|_| (queries(&mut noise, GROUP, HEAD_DIM), noise.vector(HEAD_DIM, 1.0)))
            .collect(),
    };
    let lengths =
        [1 << 20, 512 << 10, 256 << 10, QUOTED, 64 << 10, 32 << 10, 16 << 10, 8 << 10, 4096, 2048, 1024];
    for tokens in lengths.into_iter().filter(|&tokens| tokens <= longest) {
        let codes: Vec<Vec<u16>> = codes.iter().map(|codes| codes[..tokens].to_vec()).collect();
        let stores = sorted(Dtype::Bf16, HEAD_DIM, &codes);
        let many = if tokens == QUOTED { of_layers(&stores) } else { Vec::new() };
        for &kernels in &bench.kernels.clone() {
            // The curve is drawn for the best backend; the others are compared where figures are quoted.
            if kernels.name() != bench.kernels[0].name() && tokens != QUOTED {
                continue;
            }
            time_dense(bench, kernels, &layers, &all, tokens);
            let stores = if tokens == QUOTED { &many } else { &stores };
            let mut with = |operation, estimate, retrieve| {
                if bench.options.wants(operation) {
                    layers.stores =
                        stores.iter().map(|store| store.fork().expect("memory for a fork")).collect();
                    layers.sparsity = Sparsity { estimate, retrieve, ..Sparsity::default() };
                    time_a2ats(bench, kernels, &mut layers, tokens, operation);
                }
            };
            with("decode_step_a2ats", Estimate::Off, 0.03);
            if tokens == QUOTED {
                with("decode_step_estimate", Estimate::Fixed, 0.03);
                with("decode_step_estimate", Estimate::Fixed, 0.01);
                with("decode_step_averaged", Estimate::Averaged, 0.03);
            }
        }
        layers.stores.clear();
        drop(many);
        if tokens == QUOTED && bench.options.wants("decode_step_sorting") {
            // Bases that nobody shares, so that they are laid out anew.
            layers.stores = stores;
            layers.sparsity = Sparsity::default();
            for &kernels in &bench.kernels.clone() {
                time_sorting(bench, kernels, &mut layers);
            }
        }
    }
}

/// A base of which another layer has the rows too, but not the sums.
struct OtherSums {
    rows: Base,
    numbers: Arc<MmapMut>,
    at: usize,
}

impl BaseMemory for OtherSums {
    fn parts(&self) -> BaseParts<'_> {
        let parts = self.rows.parts().expect("a whole base");
        let Sums::Int8 { numbers, scales } = parts.sums else { panic!("rows are bf16") };
        let own = &self.numbers[self.at..self.at + numbers.len()];
        BaseParts { sums: Sums::Int8 { numbers: bytemuck::cast_slice(own), scales }, ..parts }
    }
}

/// The stores of many layers, which share their rows: an 8B model's would take 16 GiB.
fn of_layers(stores: &[Store]) -> Vec<Store> {
    let bytes = CODEWORDS * HEAD_DIM;
    let mut memory = memmap2::MmapOptions::new().len(LAYERS * KV_HEADS * bytes).map_anon().expect("128 MiB");
    let _ = memory.advise(memmap2::Advice::HugePage);
    memory.iter_mut().enumerate().for_each(|(i, x)| *x = (i * 37 % 251) as u8);
    let memory = Arc::new(memory);
    let of_layer = |number: usize| {
        let store = &stores[number % KV_HEADS];
        let rows = store.bases()[0].clone();
        let (layout, positions) = (store.layout(), rows.positions());
        let other = OtherSums { rows, numbers: Arc::clone(&memory), at: number * bytes };
        let base = Base::new(layout, positions, Arc::new(other)).expect("parts of a base");
        let zeros = vec![0.0; layout.window.max(layout.sinks) * HEAD_DIM];
        let tokens =
            |count: usize| (&zeros[..count * HEAD_DIM], &zeros[..count * HEAD_DIM], &[0; 64][..count]);
        let (first, last) = (tokens(layout.sinks), tokens(layout.window));
        Store::from_base(base, store.capacity(), first, last).expect("room for sinks and window")
    };
    (0..LAYERS * KV_HEADS).into_par_iter().map(of_layer).collect()
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

fn time_dense(bench: &mut Bench, kernels: &dyn Kernels, layers: &Layers, stores: &[Store], tokens: usize) {
    let (pool, threads) = (bench.all_threads(), bench.all_threads().current_num_threads());
    let run = [Run::new(0, 0..tokens)];
    let timing = bench.budget.time_on(pool, |run_number| {
        let (queries, _) = &layers.inputs[run_number % layers.inputs.len()];
        finish(attend_heads(kernels, stores, &[&run[..]; KV_HEADS], queries));
    });
    bench.record("decode_step_dense", kernels.name(), threads, shape(tokens), timing, Work::Time);
}

fn time_a2ats(
    bench: &mut Bench,
    kernels: &dyn Kernels,
    layers: &mut Layers,
    tokens: usize,
    operation: &'static str,
) {
    let (pool, threads) = (bench.all_threads(), bench.all_threads().current_num_threads());
    // What grows to its size does so before.
    pool.install(|| (0..LAYERS).for_each(|run| layers.step(kernels, run)));
    let timing = bench.budget.time_on(pool, |run| layers.step(kernels, run));
    let attended =
        layers.working.iter().map(|working| working.choice.amount().attended).sum::<usize>() / KV_HEADS;
    let score = bench.budget.time_on(pool, |run| layers.score(kernels, run)).best;
    let retrieve = bench.budget.time_on(pool, |run| layers.choose(kernels, run)).best;
    let shape = Shape { attended: Some(attended), codewords: Some(CODEWORDS), ..shape(tokens) };
    bench.record(operation, kernels.name(), threads, shape, timing, Work::Time);
    let attend = (timing.best - score - retrieve).max(0.0);
    bench.add_parts(Parts { score, retrieve, attend });
}

/// Steps through all layers while logs of 2K tokens are laid out by code with their bases, a little after each step, and as many
/// without it: the longest one, in the place of the best, and the median. Of some rounds that with the shortest longest step counts: what
/// other programs of the machine do is not in all of them.
fn time_sorting(bench: &mut Bench, kernels: &dyn Kernels, layers: &mut Layers) {
    const STEPS: usize = 30;
    const ROUNDS: usize = 3;
    let threads = bench.all_threads().current_num_threads();
    let mut noise = Noise::new(53);
    let more = QUOTED / 64;
    let numbers = noise.vector(more * HEAD_DIM, 1.0);
    for sorts in [false, true] {
        for store in &mut layers.stores {
            // Once before, so that the system's memory is warm.
            store.sort(kernels).expect("memory for another base");
            let codes = codes(&mut noise, CODEWORDS, more);
            store.append(&numbers, &numbers, &codes).expect("the store has room");
        }
        bench.all_threads().install(|| (0..LAYERS).for_each(|layer| layers.step(kernels, layer)));
        let round = |_| {
            let step = |_| {
                let start = Instant::now();
                let attended = (0..LAYERS).map(|layer| {
                    layers.step(kernels, layer);
                    layers.working.iter().map(|working| working.choice.amount().attended).sum::<usize>()
                });
                // As many as `a2ats` takes.
                let rows = 64 + (attended.sum::<usize>() / 48).min(72 * layers.stores.len());
                if let Some(store) = layers.stores.iter_mut().find(|store| sorts && store.wants_sorting()) {
                    store.sort_some(kernels, rows).expect("memory for another base");
                }
                start.elapsed().as_secs_f64()
            };
            let mut seconds: Vec<f64> = (0..STEPS).map(step).collect();
            seconds.sort_by(f64::total_cmp);
            Timing { best: seconds[STEPS - 1], median: seconds[STEPS / 2] }
        };
        let rounds = bench.all_threads().install(|| (0..ROUNDS).map(round).collect::<Vec<_>>());
        let of_round = |timing: &&Timing| timing.best / timing.median;
        let timing = *rounds.iter().min_by(|a, b| of_round(a).total_cmp(&of_round(b))).expect("some rounds");
        let shape =
            Shape { inputs: Some(if sorts { more } else { 0 }), codewords: Some(CODEWORDS), ..shape(QUOTED) };
        bench.record("decode_step_sorting", kernels.name(), threads, shape, timing, Work::Time);
    }
}

fn finish(heads: Vec<Partial>) {
    for whole in heads {
        black_box(output(&whole, GROUP * HEAD_DIM));
    }
}

impl Layers {
    /// Scores, appends, chooses: what comes before attention.
    fn begin(&mut self, kernels: &dyn Kernels, run: usize) {
        let Self { stores, sparsity, working, books, inputs } = self;
        let first = run * KV_HEADS % stores.len();
        let books = &books[run % LAYERS * KV_HEADS..][..KV_HEADS];
        let (queries, key) = &inputs[run % inputs.len()];
        let heads = stores[first..first + KV_HEADS].par_iter_mut().zip(working).zip(books);
        heads.with_max_len(1).for_each(|((store, working), book)| {
            let code = working.score(kernels, book, sparsity, queries, key);
            store.append(key, key, &[code]).expect("the store has room");
            let scores = &working.scores[..GROUP * CODEWORDS];
            working.choice.choose(kernels, store, sparsity, scores).expect("shapes fit together");
        });
    }

    /// Score, retrieve, attend, and estimate the rest if that is wanted.
    fn step(&mut self, kernels: &dyn Kernels, run: usize) {
        self.begin(kernels, run);
        let Self { stores, working, books, inputs, .. } = self;
        let first = run * KV_HEADS % stores.len();
        let stores = &stores[first..first + KV_HEADS];
        let books = &books[run % LAYERS * KV_HEADS..][..KV_HEADS];
        let (queries, _) = &inputs[run % inputs.len()];
        let runs: Vec<&[Run]> = working.iter().map(|working| working.choice.runs()).collect();
        let mut heads = attend_heads(kernels, stores, &runs, queries);
        let rest = heads.par_iter_mut().zip(stores).zip(working).zip(books);
        rest.with_max_len(1).for_each(|(((whole, store), working), book)| {
            working.estimate(kernels, store, book, queries, whole);
        });
        finish(heads);
    }

    fn score(&mut self, kernels: &dyn Kernels, run: usize) {
        let Self { sparsity, working, books, inputs, .. } = self;
        let (queries, key) = &inputs[run % inputs.len()];
        let books = &books[run % LAYERS * KV_HEADS..][..KV_HEADS];
        working.par_iter_mut().zip(books).with_max_len(1).for_each(|(working, book)| {
            black_box(working.score(kernels, book, sparsity, queries, key));
        });
    }

    /// Retrieval with the scores that are there.
    fn choose(&mut self, kernels: &dyn Kernels, run: usize) {
        let Self { stores, sparsity, working, .. } = self;
        let first = run * KV_HEADS % stores.len();
        let heads = stores[first..first + KV_HEADS].par_iter_mut().zip(working);
        heads.with_max_len(1).for_each(|(store, working)| {
            let scores = &working.scores[..GROUP * CODEWORDS];
            black_box(working.choice.choose(kernels, store, sparsity, scores).expect("shapes fit together"));
        });
    }
}

impl Working {
    fn score(
        &mut self,
        kernels: &dyn Kernels,
        book: &Codebook,
        sparsity: &Sparsity,
        queries: &[f32],
        key: &[f32],
    ) -> u16 {
        let Self { probes, scores, .. } = self;
        let both = [queries, queries].concat();
        let queries = if sparsity.estimate == Estimate::Averaged { &both } else { queries };
        scores.resize(queries.len() / HEAD_DIM * CODEWORDS, 0.0);
        let mut best = [BestCode::default()];
        kernels.prepare_probes(book, queries, key, probes).expect("shapes fit together");
        let done = kernels.codeword_scores(book, probes, 0..CODEWORDS, scores, &mut best);
        done.expect("shapes fit together");
        best[0].code()
    }

    fn estimate(
        &mut self,
        kernels: &dyn Kernels,
        store: &Store,
        book: &Codebook,
        queries: &[f32],
        whole: &mut Partial,
    ) {
        let Self { choice, scores, of_estimate, rest, .. } = self;
        if choice.leaves() {
            let (part, by) =
                (choice.whole_estimate(), (queries, &scores[scores.len() - GROUP * CODEWORDS..]));
            let done = choice.estimate(kernels, store, book, &part, by, SCALE, of_estimate, rest);
            done.and_then(|()| whole.merge(rest)).expect("shapes fit together");
        }
    }
}
