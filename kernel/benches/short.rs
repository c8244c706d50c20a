//! `cargo bench -p a2ats-kernel --bench short`: what takes microseconds, on every backend that this CPU has, with
//! Criterion's statistics. Differences of a few percent are real here and noise in the suite.
//!
//! Sizes are those of one token of an 8B model: hidden size 4096, 8 kv heads with 4 query heads of 128 each, an intermediate
//! size of 14336, 4096 codewords.

use a2ats_kernel::{
    Codebook, Dtype, Kernels, available,
    decode::{Choice, Sparsity},
    elementwise::Rotation,
    retrieval::{Scratch, retrieve},
    store::Store,
};
use a2ats_tests::inputs::{Noise, unit_matrix};
use criterion::{Criterion, criterion_group, criterion_main};

const HIDDEN: usize = 4096;
const INTERMEDIATE: usize = 14336;
const HEADS: usize = 32;
const GROUP: usize = 4;
const HEAD_DIM: usize = 128;
const CODEWORDS: usize = 4096;

/// Runs `run` under the name of each backend.
fn on_each(
    criterion: &mut Criterion,
    operation: &str,
    mut run: impl FnMut(&mut criterion::Bencher<'_>, &'static dyn Kernels),
) {
    let mut group = criterion.benchmark_group(operation);
    for kernels in available() {
        group.bench_function(kernels.name(), |bencher| run(bencher, kernels));
    }
    group.finish();
}

fn elementwise(criterion: &mut Criterion) {
    let mut noise = Noise::new(41);
    let (x, weight) = (noise.vector(HIDDEN, 1.0), noise.vector(HIDDEN, 1.0));
    // Copied anew each time: in place again and again, small numbers would lose their normal range.
    let mut working = x.clone();
    on_each(criterion, "rms_norm", |bencher, kernels| {
        bencher.iter(|| {
            working.copy_from_slice(&x);
            kernels.rms_norm(&mut working, &weight, 1e-5).expect("as many weights as numbers");
        });
    });
    let frequencies: Vec<f64> =
        (0..HEAD_DIM / 2).map(|i| 500_000_f64.powf(-(i as f64) / (HEAD_DIM / 2) as f64)).collect();
    let rotation = Rotation::new(100_000, &frequencies);
    let mut heads = noise.vector(HEADS * HEAD_DIM, 1.0);
    on_each(criterion, "rotate", |bencher, kernels| {
        bencher.iter(|| kernels.rotate(&mut heads, &rotation).expect("whole heads"));
    });
    let (gate, up) = (noise.vector(INTERMEDIATE, 1.0), noise.vector(INTERMEDIATE, 1.0));
    let mut working = gate.clone();
    on_each(criterion, "silu_mul", |bencher, kernels| {
        bencher.iter(|| {
            working.copy_from_slice(&gate);
            kernels.silu_mul(&mut working, &up).expect("as many numbers");
        });
    });
    on_each(criterion, "softmax", |bencher, kernels| {
        bencher.iter(|| {
            working.copy_from_slice(&gate);
            kernels.softmax(&mut working);
        });
    });
}

/// What the choice of rows costs a kv head, with 128K tokens of which each query head takes 3%.
fn choice(criterion: &mut Criterion) {
    let mut noise = Noise::new(43);
    let tokens = 128 << 10;
    let codes: Vec<u16> = (0..tokens).map(|_| noise.below(CODEWORDS) as u16).collect();
    let sparsity = Sparsity { window: 1, sinks: 0, ..Sparsity::default() };
    let mut store = Store::new(sparsity.layout(Dtype::Bf16, 16, CODEWORDS), tokens).expect("address space");
    let zeros = vec![0.0; 16 * tokens];
    store.append(&zeros, &zeros, &codes).expect("the store has room");
    store.sort(available()[0]).expect("memory for the rows laid out by code");
    // Sums of uniform numbers are spread as scores are: nearly normally.
    let mut scores = vec![0.0; GROUP * CODEWORDS];
    for _ in 0..6 {
        scores.iter_mut().zip(noise.vector(GROUP * CODEWORDS, 1.0)).for_each(|(sum, x)| *sum += x);
    }
    let (mut counts, mut prefixes, mut scratch) = (Vec::new(), Vec::new(), Scratch::default());
    store.counts(&mut counts).expect("memory for the counts");
    on_each(criterion, "retrieve", |bencher, kernels| {
        bencher.iter(|| {
            let take = tokens * 3 / 100;
            retrieve(kernels, &scores, &counts, take, &store, &mut scratch, &mut prefixes)
                .expect("whole heads");
        });
    });
    let mut choice = Choice::default();
    on_each(criterion, "choose", |bencher, kernels| {
        bencher.iter(|| choice.choose(kernels, &mut store, &sparsity, &scores).expect("whole heads"));
    });
}

/// The code of one key, from a codebook that stays in the caches: what a token costs that is prefilled.
fn encode(criterion: &mut Criterion) {
    let mut noise = Noise::new(47);
    let table = noise.vector(CODEWORDS * HEAD_DIM, 1.0);
    let book = Codebook::new(&table, &unit_matrix(HEAD_DIM), HEAD_DIM, Dtype::F16).expect("finite numbers");
    let keys = noise.vector(60 * HEAD_DIM, 1.0);
    let mut codes = vec![0; 60];
    on_each(criterion, "encode_60_keys", |bencher, kernels| {
        bencher.iter(|| kernels.encode(&book, &keys, &mut codes).expect("whole keys"));
    });
}

criterion_group!(benches, elementwise, choice, encode);
criterion_main!(benches);
