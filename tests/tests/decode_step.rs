//! Whole decode steps against the reference: score, retrieve, attend, estimate, wherever the tokens lie.

use a2ats_kernel::{
    Codebook, Dtype, Kernels,
    attention::{self, Partial},
    codebook::{self, BestCode, Probes},
    decode::{Amount, Choice, Estimate, Sparsity, StepInput, StepScratch, decode_step, rows_per_task},
    estimate::{self, Part},
    store::Store,
};
use a2ats_tests::{
    backends::on_every_backend,
    calls,
    inputs::{
        Noise, ROUNDING, assert_close, config, dtypes, estimates, groups, head_dims, query_precision,
        rounded, unit_matrix, weight_precision,
    },
    reference::{
        attention::attend,
        codebook::Codebook as Reference,
        linear::dot,
        retrieval::{Retrieved, retrieve},
        tail::{Context, attend_with_tail},
        to_f64,
    },
};
use proptest::{prelude::*, sample::select};
use std::collections::HashMap;

/// Of Σ w_j (|v_j| + |out|), for scores of a few units at most: as in attention, with the scores' share left out.
fn tolerance(kernels: &dyn Kernels, dtype: Dtype) -> f64 {
    12.0 * ROUNDING + query_precision(kernels, dtype) + weight_precision(kernels, dtype)
}

/// One kv head's sequence, with everything that was put into it.
struct Sequence {
    book: Codebook,
    store: Store,
    scratch: StepScratch,
    sparsity: Sparsity,
    dtype: Dtype,
    rotated_keys: Vec<f32>,
    values: Vec<f32>,
}

/// Projections of one token.
#[derive(Clone)]
struct Token {
    queries: Vec<f32>,
    windowed_queries: Vec<f32>,
    averaged_queries: Vec<f32>,
    key: Vec<f32>,
    rotated_key: Vec<f32>,
    value: Vec<f32>,
}

impl Token {
    fn new(noise: &mut Noise, head_dim: usize, group: usize, sparsity: Sparsity) -> Self {
        let is_averaged = sparsity.estimate == Estimate::Averaged;
        Self {
            queries: noise.vector(group * head_dim, 2.0),
            windowed_queries: noise.whole_numbers(group * head_dim, 2),
            averaged_queries: noise.vector(if is_averaged { group * head_dim } else { 0 }, 1.0),
            key: noise.whole_numbers(head_dim, 3),
            rotated_key: noise.vector(head_dim, 1.0),
            value: noise.vector(head_dim, 1.0),
        }
    }

    fn input(&self) -> StepInput<'_> {
        let Self { queries, windowed_queries, averaged_queries, key, rotated_key, value } = self;
        StepInput { queries, windowed_queries, averaged_queries, key, rotated_key, value }
    }
}

impl Sequence {
    fn new(book: Codebook, sparsity: Sparsity, dtype: Dtype) -> Self {
        let store = Store::new(sparsity.layout(dtype, book.head_dim(), book.codes()), 10_000).unwrap();
        let scratch = StepScratch::default();
        Self { book, store, scratch, sparsity, dtype, rotated_keys: vec![], values: vec![] }
    }

    fn keep(&mut self, rotated_keys: &[f32], values: &[f32]) {
        self.rotated_keys.extend(rounded(self.dtype, rotated_keys));
        self.values.extend(rounded(self.dtype, values));
    }

    /// What prefill leaves behind.
    fn prefill(&mut self, kernels: &dyn Kernels, noise: &mut Noise, tokens: usize) -> Vec<f32> {
        let d = self.book.head_dim();
        let (keys, mut codes) = (noise.whole_numbers(tokens * d, 3), vec![0; tokens]);
        let (rotated_keys, values) = (noise.vector(tokens * d, 1.0), noise.vector(tokens * d, 1.0));
        kernels.encode(&self.book, &keys, &mut codes).unwrap();
        self.store.append(&rotated_keys, &values, &codes).unwrap();
        self.keep(&rotated_keys, &values);
        keys
    }

    /// Lays tokens out in another way, or goes on with a fork; or forgets some and appends them again.
    fn disturb(&mut self, kernels: &dyn Kernels, noise: &mut Noise) {
        match noise.below(7) {
            0 => self.store.sort(kernels).unwrap(),
            1..=3 => {
                let rows = 1 + noise.below(60);
                self.store.sort_some(kernels, rows).unwrap();
            }
            4 => self.store = self.store.fork().unwrap(),
            5 => {
                let (d, codes, tokens) = (self.book.head_dim(), self.store.codes(), self.store.len());
                let kept = tokens - noise.below(tokens.min(90) + 1);
                self.store.truncate(kernels, kept).unwrap();
                let again = kept * d..tokens * d;
                self.store
                    .append(&self.rotated_keys[again.clone()], &self.values[again], &codes[kept..])
                    .unwrap();
            }
            _ => {}
        }
    }

    fn step(&mut self, kernels: &dyn Kernels, token: &Token, scale: f32) -> (Amount, Vec<f32>) {
        let mut out = vec![f32::NAN; token.queries.len()];
        let Self { book, store, scratch, sparsity, .. } = self;
        let amount =
            decode_step(kernels, book, store, sparsity, &token.input(), scale, scratch, &mut out).unwrap();
        self.keep(&token.rotated_key, &token.value);
        (amount, out)
    }

    /// Scores as a step sees them, and what the reference retrieves with those.
    fn retrieved_by_these_scores(&self, kernels: &dyn Kernels, token: &Token) -> Retrieved {
        self.retrieved(&self.scores(kernels, &token.windowed_queries, &token.key))
    }

    /// Scores of all codes by query head, as the kernels give them.
    fn scores(&self, kernels: &dyn Kernels, queries: &[f32], key: &[f32]) -> Vec<Vec<f64>> {
        let (scores, _) = calls::scores(kernels, &self.book, queries, key).unwrap();
        scores.chunks_exact(self.book.codes()).map(to_f64).collect()
    }

    fn retrieved(&self, scores: &[Vec<f64>]) -> Retrieved {
        let codes: Vec<usize> = self.store.codes().iter().map(|&code| code.into()).collect();
        let Sparsity { retrieve: share, window, sinks, .. } = self.sparsity;
        retrieve(scores, &codes, codes.len(), share, window, sinks)
    }

    fn assert_step(
        &self,
        kernels: &dyn Kernels,
        want: &Retrieved,
        token: &Token,
        amount: Amount,
        out: &[f32],
        scale: f32,
    ) {
        let mut positions = self.store.positions(self.scratch.choice().runs()).unwrap();
        positions.sort_unstable();
        let attended: Vec<u32> =
            (0..).zip(&want.attended).filter(|(_, attended)| **attended).map(|(i, _)| i).collect();
        assert_eq!(positions, attended, "{}", kernels.name());
        let picked = want.picked.iter().filter(|picked| **picked).count();
        assert_eq!(amount, Amount { tokens: self.store.len(), attended: attended.len(), picked });

        let (exact, sizes) = if self.sparsity.estimate.is_on() {
            self.with_estimate(kernels, want, token, scale)
        } else {
            let (d, scale) = (self.book.head_dim(), f64::from(scale));
            let (keys, values) = (to_f64(&self.rotated_keys), to_f64(&self.values));
            let of =
                |values: &[f64]| attend(&to_f64(&token.queries), &keys, values, d, scale, &want.attended);
            (of(&values), of(&values.iter().map(|x| x.abs()).collect::<Vec<_>>()))
        };
        let magnitudes: Vec<f64> = exact.iter().zip(sizes).map(|(x, size)| x.abs() + size).collect();
        let tolerance = tolerance(kernels, self.dtype) + self.estimate_tolerance(want);
        assert_close(kernels.name(), out, &exact, &magnitudes, tolerance);
    }

    /// What the reference gives with an estimate of the rest, and the sizes of what that is a sum of.
    fn with_estimate(
        &self,
        kernels: &dyn Kernels,
        want: &Retrieved,
        token: &Token,
        scale: f32,
    ) -> (Vec<f64>, Vec<f64>) {
        let tokens = self.store.len();
        let sinks = self.sparsity.sinks;
        let window = tokens.saturating_sub(self.sparsity.window);
        let always: Vec<bool> = (0..tokens).map(|i| i < sinks || i >= window).collect();
        let codes: Vec<usize> = self.store.codes().iter().map(|&code| code.into()).collect();
        let (keys, values) = (to_f64(&self.rotated_keys), to_f64(&self.values));
        let sizes: Vec<f64> = values.iter().map(|x| x.abs()).collect();
        let d = self.book.head_dim();
        let (mut out, mut out_sizes) = (Vec::new(), Vec::new());
        let scoring = match self.sparsity.estimate {
            Estimate::Averaged => &token.averaged_queries,
            _ => &token.windowed_queries,
        };
        let all_scores = self.scores(kernels, scoring, &token.key);
        for ((query, scoring), scores) in
            token.queries.chunks_exact(d).zip(scoring.chunks_exact(d)).zip(&all_scores)
        {
            // The kernels' scores are less that of the codewords' mean.
            let center = dot(&to_f64(scoring), &to_f64(self.book.center()));
            let scores: Vec<f64> = scores.iter().map(|score| score + center).collect();
            let of = |values: &[f64]| {
                let context =
                    Context { keys: &keys, values, codes: &codes, attended: &want.attended, always: &always };
                attend_with_tail(&context, &to_f64(query), &scores, f64::from(scale))
            };
            out.extend(of(&values));
            // A sum of values is as inexact as all that went into it, also where a part is taken out again: the boundary's codes are
            // attended but for a few tokens, so what is attended may weigh as much once more.
            out_sizes.extend(of(&sizes));
        }
        (out, out_sizes)
    }

    /// How exact the estimate is. Beside bf16 and f16 rows sums of values are integers, which are within 1/254 of the largest of their
    /// sum, and other numbers of a sum may be a few times smaller; what that leaves of a code counts as often more as it has more
    /// tokens than are left out.
    fn estimate_tolerance(&self, want: &Retrieved) -> f64 {
        if !self.sparsity.estimate.is_on() {
            return 0.0;
        }
        let (mut all, mut left): (HashMap<u16, f64>, HashMap<u16, f64>) = Default::default();
        let codes = self.store.codes();
        let (sinks, window) = (self.sparsity.sinks, codes.len().saturating_sub(self.sparsity.window));
        let outside = codes.iter().zip(&want.attended).take(window).skip(sinks);
        for (&code, &attended) in outside {
            *all.entry(code).or_default() += 1.0;
            *left.entry(code).or_default() += if attended { 0.0 } else { 1.0 };
        }
        let shares = all.iter().map(|(code, tokens)| (tokens, left[code])).filter(|(_, left)| *left > 0.0);
        let most = shares.map(|(tokens, left)| tokens / left).fold(0.0, f64::max);
        most * if self.dtype == Dtype::F32 { 8.0 * ROUNDING } else { 2_f64.powi(-6) }
    }
}

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
        let mut scratch = codebook::Scratch::default();
        kernels.codeword_scores(book, &probes, range.clone(), &mut of_part, &mut best, &mut scratch).unwrap();
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
    for start in (0..rows).step_by(rows_per_task(rows)) {
        let part = start..rows.min(start + rows_per_task(rows));
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
        let sparsity = Sparsity { retrieve: 0.3, window: 1500, sinks: 600, estimate };
        on_every_backend(|kernels| {
            let mut noise = Noise::new(11);
            let codewords = opposites(&mut noise, 40, head_dim);
            let book = Codebook::new(&codewords, &unit_matrix(head_dim), head_dim, dtype).unwrap();
            let mut sequence = Sequence::new(book, sparsity, dtype);
            sequence.prefill(kernels, &mut noise, 3200);
            sequence.store.sort(kernels).unwrap();
            sequence.prefill(kernels, &mut noise, 299);
            let token = Token::new(&mut noise, head_dim, group, sparsity);
            let before = sequence.store.fork().unwrap();
            let (amount, out) = sequence.step(kernels, &token, scale);
            assert!(amount.attended > rows_per_task(amount.attended), "{amount:?}");
            let want = sequence.retrieved_by_these_scores(kernels, &token);
            sequence.assert_step(kernels, &want, &token, amount, &out, scale);

            let what = (&sequence.book, &sparsity);
            let one = in_parts(kernels, what, &mut before.fork().unwrap(), &token, scale, 1);
            assert_eq!(one, out, "{}", kernels.name());
            let seven = in_parts(kernels, what, &mut before.fork().unwrap(), &token, scale, 7);
            sequence.assert_step(kernels, &want, &token, amount, &seven, scale);
        });
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
