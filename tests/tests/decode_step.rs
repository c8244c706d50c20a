//! Whole decode steps against the reference: retrieve, then attend.

use a2ats_kernel::{
    Codebook, Dtype, Kernels,
    attention::{Partial, Selection},
    decode::{
        Choice, HeadIndex, Sparsity, StepInput, StepScratch, Tail, attend_chunk, attend_rest, choose_rows,
        decode_step,
    },
    kv::KvRows,
    tail::NEGLIGIBLE,
};
use a2ats_tests::{
    backends::on_every_backend,
    inputs::{
        Noise, ROUNDING, assert_close, config, dtypes, groups, head_dims, query_precision, rounded, tails,
        unit_matrix, weight_precision,
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
    rows: KvRows,
    index: HeadIndex,
    scratch: StepScratch,
    sparsity: Sparsity,
    dtype: Dtype,
    group: usize,
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
        let is_averaged = sparsity.tail == Tail::Averaged;
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
    fn new(book: Codebook, sparsity: Sparsity, dtype: Dtype, group: usize) -> Self {
        let (rows, index) = (KvRows::new(dtype, book.head_dim(), 4), HeadIndex::new(book.codes(), sparsity));
        let (rows, index, scratch) = (rows.unwrap(), index.unwrap(), StepScratch::default());
        Self { book, rows, index, scratch, sparsity, dtype, group, rotated_keys: vec![], values: vec![] }
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
        self.rows.append(&rotated_keys, &values).unwrap();
        self.index.append(&codes);
        self.keep(&rotated_keys, &values);
        keys
    }

    fn step(&mut self, kernels: &dyn Kernels, token: &Token, scale: f32) -> (Choice, Vec<f32>) {
        let mut out = vec![f32::NAN; token.queries.len()];
        let Self { book, rows, index, scratch, .. } = self;
        let choice =
            decode_step(kernels, book, rows, index, &token.input(), scale, scratch, &mut out).unwrap();
        self.keep(&token.rotated_key, &token.value);
        (choice, out)
    }

    /// Scores as a step sees them, and what the reference retrieves with those.
    fn retrieved_by_these_scores(&self, kernels: &dyn Kernels, token: &Token) -> Retrieved {
        self.retrieved(&self.scores(kernels, &token.windowed_queries, &token.key))
    }

    /// Scores of all codes by query head, as the kernels give them.
    fn scores(&self, kernels: &dyn Kernels, queries: &[f32], key: &[f32]) -> Vec<Vec<f64>> {
        let mut scores = vec![0.0; self.book.codes() * self.group];
        kernels.codeword_scores(&self.book, queries, Some(key), &mut scores).unwrap();
        scores.chunks_exact(self.book.codes()).map(to_f64).collect()
    }

    fn retrieved(&self, scores: &[Vec<f64>]) -> Retrieved {
        let codes: Vec<usize> = self.index.codes().iter().map(|&code| code.into()).collect();
        let Sparsity { retrieve: share, window, sinks, .. } = self.sparsity;
        retrieve(scores, &codes, codes.len(), share, window, sinks)
    }

    fn assert_step(
        &self,
        kernels: &dyn Kernels,
        want: &Retrieved,
        token: &Token,
        choice: Choice,
        out: &[f32],
        scale: f32,
    ) {
        let mut positions = self.scratch.positions().to_vec();
        positions.sort_unstable();
        let attended: Vec<u32> =
            (0..).zip(&want.attended).filter(|(_, attended)| **attended).map(|(i, _)| i).collect();
        assert_eq!(positions, attended, "{}", kernels.name());
        let picked = want.picked.iter().filter(|picked| **picked).count();
        assert_eq!(choice, Choice { tokens: self.rows.len(), attended: attended.len(), picked });

        let (exact, sizes) = if self.sparsity.tail.is_on() {
            self.with_tail(kernels, want, token, scale)
        } else {
            let (d, scale) = (self.book.head_dim(), f64::from(scale));
            let (keys, values) = (to_f64(&self.rotated_keys), to_f64(&self.values));
            let of =
                |values: &[f64]| attend(&to_f64(&token.queries), &keys, values, d, scale, &want.attended);
            (of(&values), of(&values.iter().map(|x| x.abs()).collect::<Vec<_>>()))
        };
        let magnitudes: Vec<f64> = exact.iter().zip(sizes).map(|(x, size)| x.abs() + size).collect();
        let tolerance = tolerance(kernels, self.dtype) + self.tail_tolerance(want);
        assert_close(kernels.name(), out, &exact, &magnitudes, tolerance);
    }

    /// What the reference gives with an estimate of the rest, and the sizes of what that is a sum of.
    fn with_tail(
        &self,
        kernels: &dyn Kernels,
        want: &Retrieved,
        token: &Token,
        scale: f32,
    ) -> (Vec<f64>, Vec<f64>) {
        let tokens = self.rows.len();
        let sinks = self.sparsity.sinks;
        let window = tokens.saturating_sub(self.sparsity.window);
        let always: Vec<bool> = (0..tokens).map(|i| i < sinks || i >= window).collect();
        let codes: Vec<usize> = self.index.codes().iter().map(|&code| code.into()).collect();
        let (keys, values) = (to_f64(&self.rotated_keys), to_f64(&self.values));
        let sizes: Vec<f64> = values.iter().map(|x| x.abs()).collect();
        let d = self.book.head_dim();
        let (mut out, mut out_sizes) = (Vec::new(), Vec::new());
        let scoring = match self.sparsity.tail {
            Tail::Averaged => &token.averaged_queries,
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

    /// How exact the estimate is. Beside bf16 and f16 rows sums of values are quantized, to steps of 2⁻¹⁴ of the largest at most, some of
    /// them off, and other numbers of a sum may be a few times smaller; what that leaves of a code counts as often more as it has
    /// more tokens than are left out.
    fn tail_tolerance(&self, want: &Retrieved) -> f64 {
        let Some(sums) = self.index.sums() else { return 0.0 };
        let mut left: HashMap<u16, u32> =
            sums.codes().iter().copied().zip(sums.tokens().iter().copied()).collect();
        let (sinks, window) = (self.sparsity.sinks, self.rows.len().saturating_sub(self.sparsity.window));
        for position in (sinks..window).filter(|&position| want.attended[position]) {
            *left.get_mut(&self.index.codes()[position]).unwrap() -= 1;
        }
        let shares = sums.codes().iter().zip(sums.tokens()).filter(|(code, _)| left[code] > 0);
        let most =
            shares.map(|(code, &tokens)| f64::from(tokens) / f64::from(left[code])).fold(0.0, f64::max);
        let rounding = if self.dtype == Dtype::F32 { 8.0 * ROUNDING } else { 2_f64.powi(-10) };
        most * rounding + 2.0 * f64::from(NEGLIGIBLE)
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
    let fields = (share, 1_usize..=70, 0_usize..=10, tails());
    fields.prop_map(|(retrieve, window, sinks, tail)| Sparsity { retrieve, window, sinks, tail })
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
            let mut sequence = Sequence::new(book, sparsity, dtype, group);
            let mut keys = sequence.prefill(kernels, &mut noise, prompt);
            for _ in 0..steps {
                let token = Token::new(&mut noise, head_dim, group, sparsity);
                let (choice, out) = sequence.step(kernels, &token, scale);
                keys.extend(&token.key);
                let codes: Vec<usize> = sequence.index.codes().iter().map(|&code| code.into()).collect();
                assert_eq!(codes, reference.encode_all(&to_f64(&keys)), "{}", kernels.name());
                let windowed = to_f64(&token.windowed_queries);
                let scores: Vec<Vec<f64>> = windowed.chunks_exact(head_dim).map(|q| reference.scores(q)).collect();
                sequence.assert_step(kernels, &sequence.retrieved(&scores), &token, choice, &out, scale);
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
            let mut sequence = Sequence::new(book, sparsity, dtype, group);
            sequence.prefill(kernels, &mut noise, prompt);
            let mut token = Token::new(&mut noise, head_dim, group, sparsity);
            token.windowed_queries = noise.vector(group * head_dim, 1.0);
            let (choice, out) = sequence.step(kernels, &token, scale);
            let want = sequence.retrieved_by_these_scores(kernels, &token);
            sequence.assert_step(kernels, &want, &token, choice, &out, scale);
        });
    }

    #[test]
    fn a_step_that_does_not_fit_is_an_error_and_leaves_rows_and_codes_alike(
        (group, other_group) in (0_usize..=18, 0_usize..=18),
        lengths in (0_usize..=40, 0_usize..=40, 0_usize..=40, 0_usize..=300),
        (right, odd) in (any::<[bool; 6]>(), prop_oneof![3 => Just(0_usize), 1 => Just(8)]),
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
            let mut rows = KvRows::new(Dtype::F32, head_dim, 1).unwrap();
            let mut index = HeadIndex::new(2, Sparsity { tail: Tail::Averaged, ..Sparsity::default() }).unwrap();
            let mut out = given(right[4], group * head_dim, lengths.3);
            let fits = (1..=16).contains(&group)
                && odd == 0
                && token.queries.len() == out.len()
                && token.averaged_queries.len() == token.windowed_queries.len()
                && (1..=16).contains(&(out.len() / head_dim))
                && [&token.key, &token.rotated_key, &token.value].iter().all(|x| x.len() == head_dim);
            let before = out.clone();
            let mut scratch = StepScratch::default();
            let done = decode_step(kernels, &book, &mut rows, &mut index, &token.input(), 1.0, &mut scratch, &mut out);
            assert_eq!(done.is_ok(), fits, "{done:?}");
            assert!(done.is_ok() || out == before);
            assert_eq!(rows.len(), index.codes().len());
            assert!(rows.len() == 1 || done.is_err());
        });
    }
}

#[test]
fn a_step_of_many_chunks_is_close_to_the_reference_and_its_parts_give_its_bits() {
    let (head_dim, group, scale) = (32, 3, 0.1);
    for (dtype, tail) in [
        (Dtype::F32, Tail::Off),
        (Dtype::Bf16, Tail::Off),
        (Dtype::F32, Tail::Fixed),
        (Dtype::F32, Tail::Averaged),
        (Dtype::Bf16, Tail::Averaged),
    ] {
        let sparsity = Sparsity { retrieve: 0.3, window: 1500, sinks: 600, tail };
        on_every_backend(|kernels| {
            let mut noise = Noise::new(11);
            let codewords = opposites(&mut noise, 40, head_dim);
            let book = Codebook::new(&codewords, &unit_matrix(head_dim), head_dim, dtype).unwrap();
            let mut sequence = Sequence::new(book, sparsity, dtype, group);
            sequence.prefill(kernels, &mut noise, 3499);
            let token = Token::new(&mut noise, head_dim, group, sparsity);
            let mut index = sequence.index.clone();
            let (choice, out) = sequence.step(kernels, &token, scale);
            let chunk = attend_chunk(choice.attended);
            assert!(choice.attended > 2 * chunk, "{choice:?}");
            let want = sequence.retrieved_by_these_scores(kernels, &token);
            sequence.assert_step(kernels, &want, &token, choice, &out, scale);

            let (mut rows, mut scratch) = (KvRows::new(dtype, head_dim, 1).unwrap(), StepScratch::default());
            let past = ..3499 * head_dim;
            rows.append(&sequence.rotated_keys[past], &sequence.values[past]).unwrap();
            let again =
                choose_rows(kernels, &sequence.book, &mut rows, &mut index, &token.input(), &mut scratch);
            assert_eq!(again.unwrap(), choice);
            let parts = scratch.positions().chunks(chunk).map(|positions| {
                let mut part = Partial::default();
                let selection = Selection::Positions(positions);
                kernels.attend(rows.rows(), &selection, &token.queries, scale, &mut part).unwrap();
                part
            });
            let whole = parts.reduce(|mut whole, part| {
                whole.merge(&part).unwrap();
                whole
            });
            let (mut whole, mut of_parts) = (whole.unwrap(), vec![0.0; out.len()]);
            let codes = attend_rest(kernels, rows.rows(), &index, scale, &scratch, &mut whole).unwrap();
            assert_eq!(codes > 0, tail.is_on());
            whole.finish(&mut of_parts).unwrap();
            assert_eq!(of_parts, out, "{}", kernels.name());
        });
    }
}
