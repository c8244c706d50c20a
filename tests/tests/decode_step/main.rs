//! Whole decode steps against the reference: score, retrieve, attend, estimate, wherever the tokens lie.

mod sequence;

use a2ats_kernel::{
    Codebook, Dtype, Kernels,
    attention::{self, Partial, segment_rows},
    codebook::{BestCode, Probes},
    decode::{Amount, Choice, Estimate, Sparsity, StepScratch, decode_step, rows_per_task},
    estimate::{self, Part},
    store::Store,
};
use a2ats_tests::{
    backends::on_every_backend,
    inputs::{Noise, config, dtypes, estimates, groups, head_dims, unit_matrix},
    reference::{codebook::Codebook as Reference, to_f64},
};
use proptest::{prelude::*, sample::select};
use sequence::{Sequence, Token};

/// Whole codewords in pairs of opposites, many of them the same: their mean is zero, and scores tie.
fn opposites(noise: &mut Noise, pairs: usize, head_dim: usize) -> Vec<f32> {
    let kinds = noise.whole_numbers((1 + pairs / 2) * head_dim, 2);
    let pair = |pair: usize| &kinds[pair / 2 * head_dim..][..head_dim];
    (0..pairs)
        .flat_map(|i| [1.0, -1.0].map(|sign| pair(i).iter().map(|x| sign * x).collect::<Vec<_>>()).concat())
        .collect()
}

fn sparsities() -> impl Strategy<Value = Sparsity> {
    let share = prop_oneof![select(vec![0.0, 0.03, 0.2, 1.0, 1.5]), 0.0..0.5_f64];
    let fields = (share, 1_usize..=70, 0_usize..=10, estimates());
    fields.prop_map(|(retrieve, window, sinks, estimate)| Sparsity { retrieve, window, sinks, estimate })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn steps_of_whole_numbers_choose_what_the_reference_chooses(
        (prompt, steps, group, head_dim) in (0_usize..=200, 1_usize..=4, groups(), head_dims()),
        (pairs, sparsity) in (1_usize..=20, sparsities()),
        (dtype, codeword_dtype, seed) in (dtypes(), dtypes(), any::<u64>()),
    ) {
        let scale = 0.3 / (head_dim as f32).sqrt();
        on_every_backend(|kernels| {
            let mut noise = Noise::new(seed);
            let codewords = opposites(&mut noise, pairs, head_dim);
            let unit = unit_matrix(head_dim);
            let book = Codebook::new(&codewords, &unit, head_dim, codeword_dtype).unwrap();
            let reference = Reference {
                codes: 2 * pairs,
                head_dim,
                codewords: to_f64(&codewords),
                cholesky: to_f64(&unit),
            };
            let mut sequence = Sequence::new(book, sparsity, dtype);
            let mut keys = sequence.prefill(kernels, &mut noise, prompt);
            for _ in 0..steps {
                let token = Token::new(&mut noise, head_dim, group, sparsity);
                sequence.disturb(kernels, &mut noise);
                let (amount, out) = sequence.step(kernels, &token, scale);
                keys.extend(&token.key);
                let codes: Vec<usize> = sequence.store.codes().iter().map(|&code| code.into()).collect();
                assert_eq!(codes, reference.encode_all(&to_f64(&keys)), "{}", kernels.name());
                let windowed = to_f64(&token.windowed_queries);
                let scores: Vec<Vec<f64>> = windowed.chunks_exact(head_dim).map(|q| reference.scores(q)).collect();
                sequence.assert_step(kernels, &sequence.retrieved(&scores), &token, amount, &out, scale);
            }
        });
    }

    #[test]
    fn steps_of_any_numbers_choose_by_their_scores(
        (prompt, group, head_dim) in (0_usize..=150, groups(), head_dims()),
        (codes, sparsity) in (1_usize..=150, sparsities()),
        (dtype, codeword_dtype, seed) in (dtypes(), dtypes(), any::<u64>()),
    ) {
        let scale = 0.3 / (head_dim as f32).sqrt();
        on_every_backend(|kernels| {
            let mut noise = Noise::new(seed);
            let codewords = noise.vector(codes * head_dim, 1.0);
            let book = Codebook::new(&codewords, &noise.cholesky(head_dim), head_dim, codeword_dtype).unwrap();
            let mut sequence = Sequence::new(book, sparsity, dtype);
            sequence.prefill(kernels, &mut noise, prompt);
            sequence.disturb(kernels, &mut noise);
            let mut token = Token::new(&mut noise, head_dim, group, sparsity);
            token.windowed_queries = noise.vector(group * head_dim, 1.0);
            let (amount, out) = sequence.step(kernels, &token, scale);
            let want = sequence.retrieved_by_these_scores(kernels, &token);
            sequence.assert_step(kernels, &want, &token, amount, &out, scale);
        });
    }

    #[test]
    fn a_step_that_does_not_fit_is_an_error_and_changes_nothing(
        (group, other_group) in (0_usize..=18, 0_usize..=18),
        lengths in (0_usize..=40, 0_usize..=40, 0_usize..=40, 0_usize..=300),
        (right, odd) in (any::<[bool; 6]>(), prop_oneof![3 => Just(0_usize), 1 => Just(8)]),
        (capacity, other_window) in (1_usize..=2, prop_oneof![3 => Just(0_usize), 1 => Just(1)]),
    ) {
        let head_dim = 16;
        let given = |right: bool, needed: usize, other: usize| vec![1.0; if right { needed } else { other }];
        let token = Token {
            queries: given(right[0], group * head_dim, other_group * head_dim),
            windowed_queries: vec![1.0; group * head_dim + odd],
            averaged_queries: given(right[5], group * head_dim + odd, other_group * head_dim),
            key: given(right[1], head_dim, lengths.0),
            rotated_key: given(right[2], head_dim, lengths.1),
            value: given(right[3], head_dim, lengths.2),
        };
        on_every_backend(|kernels| {
            let book = Codebook::new(&[0.5; 32], &unit_matrix(head_dim), head_dim, Dtype::F32).unwrap();
            let sparsity = Sparsity { estimate: Estimate::Averaged, ..Sparsity::default() };
            let mut store = Store::new(sparsity.layout(Dtype::F32, head_dim, 2), capacity).unwrap();
            store.append(&[0.0; 16], &[0.0; 16], &[1]).unwrap();
            let sparsity = Sparsity { window: sparsity.window + other_window, ..sparsity };
            let mut out = given(right[4], group * head_dim, lengths.3);
            let fits = (1..=16).contains(&group)
                && odd == 0
                && [&token.queries, &token.averaged_queries, &out].iter().all(|x| x.len() == group * head_dim)
                && [&token.key, &token.rotated_key, &token.value].iter().all(|x| x.len() == head_dim)
                && (capacity, other_window) == (2, 0);
            let before = out.clone();
            let mut scratch = StepScratch::default();
            let done = decode_step(kernels, &book, &mut store, &sparsity, &token.input(), 1.0, &mut scratch, &mut out);
            assert_eq!(done.is_ok(), fits, "{done:?}");
            assert!(done.is_ok() || out == before);
            assert_eq!(store.len(), if fits { 2 } else { 1 });
        });
    }
}

/// A step as an engine of many sequences takes it, in so many parts.
fn in_parts(
    kernels: &dyn Kernels,
    (book, sparsity): (&Codebook, &Sparsity),
    store: &mut Store,
    token: &Token,
    scale: f32,
    parts: usize,
) -> Vec<f32> {
    let queries = [&token.windowed_queries[..], &token.averaged_queries].concat();
    let (mut probes, mut scores) = (Probes::default(), vec![vec![]; queries.len() / book.head_dim()]);
    kernels.prepare_probes(book, &queries, &token.key, &mut probes).unwrap();
    let cut = |all: usize, part: usize| all * part / parts..all * (part + 1) / parts;
    let mut code = BestCode::default();
    for part in 0..parts {
        let range = cut(book.codes(), part);
        let (mut of_part, mut best) = (vec![0.0; probes.queries() * range.len()], [BestCode::default()]);
        kernels.codeword_scores(book, &probes, range.clone(), &mut of_part, &mut best).unwrap();
        scores
            .iter_mut()
            .zip(of_part.chunks(range.len().max(1)))
            .for_each(|(all, of_part)| all.extend(of_part));
        code.merge(&best[0]);
    }
    let scores = scores.concat();
    store.append(&token.rotated_key, &token.value, &[code.code()]).unwrap();
    let mut choice = Choice::default();
    let by_group = token.queries.len() / book.head_dim() * book.codes();
    let rows = choice.choose(kernels, store, sparsity, &scores[..by_group]).unwrap().attended;
    let mut partials = Vec::new();
    let of_part = rows_per_task(rows, 1, parts);
    for start in (0..rows).step_by(of_part) {
        let part = start..rows.min(start + of_part);
        let (mut out, mut scratch) = (Partial::default(), attention::Scratch::default());
        choice.attend(kernels, store, part, &token.queries, scale, &mut scratch, &mut out).unwrap();
        partials.push(out);
    }
    for part in (0..parts).filter(|_| choice.leaves()) {
        let scored = match sparsity.estimate {
            Estimate::Averaged => (&token.averaged_queries[..], &scores[by_group..]),
            _ => (&token.windowed_queries[..], &scores[..by_group]),
        };
        let (mut out, mut scratch) = (Partial::default(), estimate::Scratch::default());
        let part = Part { slots: cut(choice.slots(), part), rows: part == 0 };
        choice.estimate(kernels, store, book, &part, scored, scale, &mut scratch, &mut out).unwrap();
        partials.push(out);
    }
    let whole = partials.into_iter().reduce(|mut whole, part| {
        whole.merge(&part).unwrap();
        whole
    });
    let mut out = vec![f32::NAN; token.queries.len()];
    whole.unwrap().finish(&mut out).unwrap();
    out
}

#[test]
fn a_long_step_is_close_to_the_reference_and_its_parts_give_its_bits() {
    let (head_dim, group, scale) = (32, 3, 0.1);
    for (dtype, estimate) in [
        (Dtype::F32, Estimate::Off),
        (Dtype::Bf16, Estimate::Off),
        (Dtype::F32, Estimate::Fixed),
        (Dtype::F32, Estimate::Averaged),
        (Dtype::Bf16, Estimate::Averaged),
    ] {
        let sparsity = Sparsity { retrieve: 0.1, window: 1500, sinks: 600, estimate };
        on_every_backend(|kernels| {
            let mut noise = Noise::new(11);
            let codewords = opposites(&mut noise, 40, head_dim);
            let book = Codebook::new(&codewords, &unit_matrix(head_dim), head_dim, dtype).unwrap();
            let mut sequence = Sequence::new(book, sparsity, dtype);
            // Each base is shared with a fork, so that the next one is laid out beside it.
            let mut forks = Vec::new();
            for tokens in [2300, 400, 500] {
                sequence.prefill(kernels, &mut noise, tokens);
                sequence.store.sort(kernels).unwrap();
                forks.push(sequence.store.fork().unwrap());
            }
            assert_eq!(sequence.store.bases().len(), 3);
            sequence.prefill(kernels, &mut noise, 299);
            let token = Token::new(&mut noise, head_dim, group, sparsity);
            let before = sequence.store.fork().unwrap();
            let (amount, out) = sequence.step(kernels, &token, scale);
            assert!(amount.attended > segment_rows(amount.attended), "{amount:?}");
            let want = sequence.retrieved_by_these_scores(kernels, &token);
            sequence.assert_step(kernels, &want, &token, amount, &out, scale);

            let what = (&sequence.book, &sparsity);
            let one = in_parts(kernels, what, &mut before.fork().unwrap(), &token, scale, 1);
            assert_eq!(one, out, "{}", kernels.name());
            let seven = in_parts(kernels, what, &mut before.fork().unwrap(), &token, scale, 7);
            sequence.assert_step(kernels, &want, &token, amount, &seven, scale);
            assert!(seven == out || estimate.is_on(), "{}", kernels.name());
        });
    }
}

#[test]
fn eight_heads_are_work_for_sixty_four_threads() {
    assert_eq!(rows_per_task(8192, 8, 64), 1024);
    assert_eq!(rows_per_task(1 << 17, 8, 64), 8192);
    assert_eq!(rows_per_task(1 << 17, 8, 2), 1 << 17);
    assert_eq!(rows_per_task(500, 8, 64), 512);
}

#[test]
fn dense_attention_after_another_leaves_nothing_to_estimate() {
    let sparsity = Sparsity { retrieve: 0.1, window: 4, sinks: 2, estimate: Estimate::Fixed };
    let (kernels, mut noise) = (a2ats_kernel::available()[0], Noise::new(9));
    let mut store = Store::new(sparsity.layout(Dtype::Bf16, 16, 10), 100).unwrap();
    let numbers = noise.vector(100 * 16, 1.0);
    store.append(&numbers, &numbers, &noise.codes(100, 10)).unwrap();
    store.sort(kernels).unwrap();
    let mut choice = Choice::default();
    choice.choose(kernels, &mut store, &sparsity, &noise.vector(2 * 10, 1.0)).unwrap();
    assert!(choice.leaves());
    let amount = choice.choose_all(&store);
    assert_eq!(amount, Amount { tokens: 100, attended: 100, picked: 100 });
    assert_eq!(choice.amount(), amount);
    assert!(!choice.leaves());
    assert_eq!((choice.slots(), choice.estimate_bytes(&store)), (0, 0));
    let mut positions = store.positions(choice.runs()).unwrap();
    positions.sort_unstable();
    assert_eq!(positions, (0..100).collect::<Vec<_>>());
}

/// Values of the tokens that are in no sums, and sums of all others: keys are not read.
#[test]
fn an_estimate_reads_values_or_sums() {
    let sparsity = Sparsity { retrieve: 0.0, window: 4, sinks: 2, estimate: Estimate::Fixed };
    let (kernels, mut noise) = (a2ats_kernel::available()[0], Noise::new(9));
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let layout = sparsity.layout(dtype, 16, 10);
        let mut store = Store::new(layout, 100).unwrap();
        let numbers = noise.vector(100 * 16, 1.0);
        store.append(&numbers, &numbers, &noise.codes(100, 10)).unwrap();
        let (scores, mut choice) = (noise.vector(2 * 10, 1.0), Choice::default());
        choice.choose(kernels, &mut store, &sparsity, &scores).unwrap();
        let of_value = layout.width() * dtype.size();
        assert_eq!((choice.slots(), choice.estimate_bytes(&store)), (0, 94 * of_value));
        store.sort(kernels).unwrap();
        choice.choose(kernels, &mut store, &sparsity, &scores).unwrap();
        let slots = store.bases()[0].slots().len();
        assert_eq!((choice.slots(), choice.estimate_bytes(&store)), (slots, slots * layout.sum_bytes()));
    }
}

/// A choice is of one store; with others, and with other shapes, its parts are errors or numbers, never a panic.
#[test]
fn a_choice_with_another_store_does_no_harm() {
    let (head_dim, group, kernels) = (32, 2, a2ats_kernel::available()[0]);
    let mut noise = Noise::new(71);
    let sparsity = Sparsity { retrieve: 0.2, window: 4, sinks: 2, ..Sparsity::default() };
    let mut store = |codes: usize, dtype, tokens: usize, sorted: bool| {
        let mut store = Store::new(sparsity.layout(dtype, head_dim, codes), 1000).unwrap();
        let numbers = noise.vector(tokens * head_dim, 1.0);
        store.append(&numbers, &numbers, &noise.codes(tokens, codes)).unwrap();
        if sorted {
            store.sort(kernels).unwrap();
        }
        store
    };
    let book = Codebook::new(&[0.25; 20 * 32], &unit_matrix(head_dim), head_dim, Dtype::F32).unwrap();
    let mut own = store(20, Dtype::F32, 300, true);
    own.append(&[0.5; 32], &[0.5; 32], &[3]).unwrap();
    let others = [
        store(20, Dtype::F32, 30, true),
        store(20, Dtype::F32, 299, false),
        store(20, Dtype::Bf16, 300, true),
        store(7, Dtype::F32, 300, true),
        store(20, Dtype::F32, 0, false),
    ];
    let (scores, queries) = (vec![0.5; group * 20], vec![0.5; group * head_dim]);
    let mut choice = Choice::default();
    choice.choose(kernels, &mut own, &sparsity, &scores).unwrap();
    let (mut of_attention, mut of_estimate) = (attention::Scratch::default(), estimate::Scratch::default());
    let mut out = Partial::default();
    for other in others.iter().chain([&own]) {
        for (start, end) in [(0, choice.amount().attended), (0, usize::MAX), (usize::MAX, 0), (5, 3)] {
            for queries in [&queries[..], &queries[1..], &[]] {
                let _ = choice.attend(kernels, other, start..end, queries, 1.0, &mut of_attention, &mut out);
            }
        }
        for (start, end) in [(0, choice.slots()), (0, usize::MAX), (usize::MAX, 0), (5, 3)] {
            for (queries, scores) in
                [(&queries[..], &scores[..]), (&queries[1..], &scores), (&queries, &scores[1..]), (&[], &[])]
            {
                let part = Part { slots: start..end, rows: true };
                let _ = choice.estimate(
                    kernels,
                    other,
                    &book,
                    &part,
                    (queries, scores),
                    1.0,
                    &mut of_estimate,
                    &mut out,
                );
            }
        }
        assert!(other.positions(choice.runs()).is_ok() || other.len() < own.len());
    }
    for scores in [&scores[1..], &[], &[0.0; 17 * 20]] {
        assert!(choice.choose(kernels, &mut own, &sparsity, scores).is_err());
    }
    let dense = sparsity.layout(Dtype::F32, head_dim, 0);
    assert!(choice.choose(kernels, &mut Store::new(dense, 10).unwrap(), &sparsity, &scores).is_err());
}

/// Softmax weights add up to 1, whatever is retrieved and estimated.
#[test]
fn values_that_are_all_alike_come_out_as_they_are() {
    let (head_dim, group) = (64, 4);
    for (dtype, estimate) in
        [(Dtype::F32, Estimate::Fixed), (Dtype::Bf16, Estimate::Fixed), (Dtype::F16, Estimate::Averaged)]
    {
        let sparsity = Sparsity { retrieve: 0.03, estimate, ..Sparsity::default() };
        on_every_backend(|kernels| {
            let mut noise = Noise::new(3);
            let codewords = noise.vector(100 * head_dim, 1.0);
            let book = Codebook::new(&codewords, &unit_matrix(head_dim), head_dim, dtype).unwrap();
            let mut store = Store::new(sparsity.layout(dtype, head_dim, 100), 5000).unwrap();
            let keys = noise.vector(3000 * head_dim, 1.0);
            store.append(&keys, &vec![1.0; keys.len()], &noise.codes(3000, 100)).unwrap();
            for sorted in [false, true] {
                if sorted {
                    store.sort(kernels).unwrap();
                }
                let token =
                    Token { value: vec![1.0; head_dim], ..Token::new(&mut noise, head_dim, group, sparsity) };
                let (mut scratch, mut out) = (StepScratch::default(), vec![0.0; group * head_dim]);
                decode_step(
                    kernels,
                    &book,
                    &mut store,
                    &sparsity,
                    &token.input(),
                    0.125,
                    &mut scratch,
                    &mut out,
                )
                .unwrap();
                assert!(out.iter().all(|x| (x - 1.0).abs() < 2e-5), "{} {dtype} {out:?}", kernels.name());
            }
        });
    }
}
