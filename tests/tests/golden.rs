//! Recorded runs of the published code through the model, on every backend and on any number of threads.

use a2ats_kernel::{
    Dtype, Kernels,
    decode::{Estimate, Sparsity},
};
use a2ats_model::{Attention, Codebooks, Model};
use a2ats_tests::{
    backends::on_backends_to_replay,
    golden::{Golden, case},
    reader::Reader,
    replay::{Storage, replay},
};
use std::sync::Arc;

/// What the published code computed in f32 may differ from f32 here, dense: the order of sums.
const DENSE: f64 = 1e-4;

/// The same sparse, with bf16 rows: their rounding, 2^−9 of every key and value.
const BF16_ROWS: f64 = 5e-2;

/// The share of keys that must get the recorded code: near ties go either way.
const CODES: f64 = 0.9999;

/// By how much the mean share of picked tokens may differ: one code in ten thousand.
const UNION: f64 = 1e-4;

/// Replays a case with rows in f32 and in bf16. `sparse` is what logits of sparse steps may differ by: a near tie that
/// goes the other way exchanges a token, and the random models attend sharply. With an estimate of what is not attended, logits
/// are at most `nearer_to_dense` times as far from those of dense attention as without.
fn check(name: &str, sparse: f64, nearer_to_dense: f64) {
    let golden = Golden::load(&case(name)).unwrap();
    on_backends_to_replay(|kernels| {
        for kv in [Dtype::F32, Dtype::Bf16] {
            let storage = Storage { kv, codewords: Dtype::F32 };
            let outcome = replay(&golden, kernels, storage, Estimate::Off).unwrap();
            println!("{name}: {outcome:?}");
            let exact = kv == Dtype::F32;
            assert!(outcome.relative_logit_error <= if exact { sparse } else { BF16_ROWS }, "{outcome:?}");
            let dense = outcome.dense_relative_logit_error.unwrap();
            assert!(dense <= if exact { DENSE } else { BF16_ROWS }, "{outcome:?}");
            assert!(outcome.code_agreement >= CODES, "{outcome:?}");
            if exact {
                assert_eq!(outcome.argmax_agreement, 1.0, "{outcome:?}");
                let union_error = (outcome.union_fraction - outcome.expected_union_fraction).abs();
                assert!(union_error <= UNION, "{outcome:?}");
                let estimated = replay(&golden, kernels, storage, Estimate::Fixed).unwrap();
                println!("{name}: {estimated:?}");
                // Near ties exchange a token less easily: it counts with the score of its code then, not with nothing.
                assert!(estimated.relative_logit_error <= sparse.min(1e-3), "{estimated:?}");
                assert_eq!(estimated.argmax_agreement, 1.0, "{estimated:?}");
                let nearer = estimated.relative_distance_from_dense / outcome.relative_distance_from_dense;
                assert!(
                    nearer <= nearer_to_dense,
                    "{nearer} times as far from dense attention: {estimated:?}"
                );
                if name == "demo-ledger" {
                    // On random weights scores say little, wherever they are taken.
                    let averaged = replay(&golden, kernels, storage, Estimate::Averaged).unwrap();
                    println!("{name}: {averaged:?}");
                    let nearer =
                        averaged.relative_distance_from_dense / estimated.relative_distance_from_dense;
                    assert!(nearer <= 0.9, "{nearer} times as far as by fixed scores: {averaged:?}");
                }
            }
        }
    });
}

#[test]
fn demo_ledger_replays() {
    check("demo-ledger", 1e-4, 0.35);
}

#[test]
fn gqa4_d128_f16_replays() {
    check("gqa4-d128-f16", 1e-3, 0.9);
}

#[test]
fn gqa4_d64_replays() {
    check("gqa4-d64", 1e-2, 1.0);
}

#[test]
fn mha_d32_tied_replays() {
    check("mha-d32-tied", 1e-3, 1.0);
}

/// The logits of a prompt of some tokens of demo-ledger and of four steps after it, on `threads` threads.
fn logits(kernels: &'static dyn Kernels, attention: Attention, prompt: usize, threads: usize) -> Vec<f32> {
    let golden = Golden::load(&case("demo-ledger")).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let model = Model::open(&golden.folder, kernels).unwrap();
        let file = golden.folder.join("codebooks_reference.safetensors");
        let books = Arc::new(Codebooks::open(&file, model.owner(), Dtype::F16).unwrap());
        let mut reader = Reader::new(&model, Some(&books), attention, Dtype::Bf16, prompt + 4).unwrap();
        let ids: Vec<u32> = golden.prompt.iter().copied().cycle().take(prompt + 4).collect();
        let mut logits = reader.read(&ids[..prompt]).unwrap();
        for &id in &ids[prompt..] {
            logits.extend(reader.step(id).unwrap());
        }
        logits
    })
}

fn assert_same_bits_on_any_number_of_threads(attention: Attention, prompt: usize) {
    on_backends_to_replay(|kernels| {
        let alone = logits(kernels, attention, prompt, 1);
        let together = logits(kernels, attention, prompt, 5);
        let same = alone.iter().zip(&together).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same && alone.len() == together.len(), "{}", kernels.name());
    });
}

#[test]
fn sparse_steps_give_the_same_bits_on_any_number_of_threads() {
    assert_same_bits_on_any_number_of_threads(Attention::A2ats(Sparsity::default()), 300);
}

/// Two segments of rows and more are attended here, by several threads each.
#[test]
fn steps_of_several_segments_give_the_same_bits_on_any_number_of_threads() {
    assert_same_bits_on_any_number_of_threads(Attention::Dense, 2100);
    let averaged = Sparsity { retrieve: 0.1, estimate: Estimate::Averaged, ..Sparsity::default() };
    assert_same_bits_on_any_number_of_threads(Attention::A2ats(averaged), 2100);
    let many = Sparsity { retrieve: 0.95, estimate: Estimate::Fixed, ..Sparsity::default() };
    assert_same_bits_on_any_number_of_threads(Attention::A2ats(many), 2200);
}
