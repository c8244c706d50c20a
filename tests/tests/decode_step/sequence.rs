//! One kv head's sequence beside everything that was put into it, and what the reference makes of that.

use a2ats_kernel::{
    Codebook, Dtype, Kernels,
    decode::{Amount, Estimate, Sparsity, StepInput, StepScratch, decode_step},
    store::Store,
};
use a2ats_tests::{
    calls,
    inputs::{Noise, ROUNDING, assert_close, query_precision, rounded, weight_precision},
    reference::{
        attention::attend,
        estimate::{Context, attend_with_estimate},
        linear::dot,
        retrieval::{Retrieved, retrieve},
        to_f64,
    },
};

/// Of Σ w_j (|v_j| + |out|), for scores of a few units at most: as in attention, with the scores' share left out.
fn tolerance(kernels: &dyn Kernels, dtype: Dtype) -> f64 {
    12.0 * ROUNDING + query_precision(kernels, dtype) + weight_precision(kernels, dtype)
}

/// One kv head's sequence, with everything that was put into it.
pub(crate) struct Sequence {
    pub(crate) book: Codebook,
    pub(crate) store: Store,
    /// What it was forked from: bases that are still used are not laid out anew.
    forked: Vec<Store>,
    pub(crate) scratch: StepScratch,
    pub(crate) sparsity: Sparsity,
    pub(crate) dtype: Dtype,
    pub(crate) rotated_keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

/// Projections of one token.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) queries: Vec<f32>,
    pub(crate) windowed_queries: Vec<f32>,
    pub(crate) averaged_queries: Vec<f32>,
    pub(crate) key: Vec<f32>,
    pub(crate) rotated_key: Vec<f32>,
    pub(crate) value: Vec<f32>,
}

impl Token {
    pub(crate) fn new(noise: &mut Noise, head_dim: usize, group: usize, sparsity: Sparsity) -> Self {
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

    pub(crate) fn input(&self) -> StepInput<'_> {
        let Self { queries, windowed_queries, averaged_queries, key, rotated_key, value } = self;
        StepInput { queries, windowed_queries, averaged_queries, key, rotated_key, value }
    }
}

impl Sequence {
    pub(crate) fn new(book: Codebook, sparsity: Sparsity, dtype: Dtype) -> Self {
        let store = Store::new(sparsity.layout(dtype, book.head_dim(), book.codes()), 10_000).unwrap();
        let scratch = StepScratch::default();
        Self { book, store, forked: vec![], scratch, sparsity, dtype, rotated_keys: vec![], values: vec![] }
    }

    fn keep(&mut self, rotated_keys: &[f32], values: &[f32]) {
        self.rotated_keys.extend(rounded(self.dtype, rotated_keys));
        self.values.extend(rounded(self.dtype, values));
    }

    /// What prefill leaves behind.
    pub(crate) fn prefill(&mut self, kernels: &dyn Kernels, noise: &mut Noise, tokens: usize) -> Vec<f32> {
        let d = self.book.head_dim();
        let (keys, mut codes) = (noise.whole_numbers(tokens * d, 3), vec![0; tokens]);
        let (rotated_keys, values) = (noise.vector(tokens * d, 1.0), noise.vector(tokens * d, 1.0));
        kernels.encode(&self.book, &keys, &mut codes).unwrap();
        self.store.append(&rotated_keys, &values, &codes).unwrap();
        self.keep(&rotated_keys, &values);
        keys
    }

    /// Lays tokens out in another way, or goes on with a fork; or forgets some and appends them again.
    pub(crate) fn disturb(&mut self, kernels: &dyn Kernels, noise: &mut Noise) {
        match noise.below(7) {
            0 => self.store.sort(kernels).unwrap(),
            1..=3 => {
                let rows = 1 + noise.below(60);
                self.store.sort_some(kernels, rows).unwrap();
            }
            4 => {
                let fork = self.store.fork().unwrap();
                self.forked.push(std::mem::replace(&mut self.store, fork));
            }
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

    pub(crate) fn step(&mut self, kernels: &dyn Kernels, token: &Token, scale: f32) -> (Amount, Vec<f32>) {
        let mut out = vec![f32::NAN; token.queries.len()];
        let Self { book, store, scratch, sparsity, .. } = self;
        let amount =
            decode_step(kernels, book, store, sparsity, &token.input(), scale, scratch, &mut out).unwrap();
        self.keep(&token.rotated_key, &token.value);
        (amount, out)
    }

    /// Scores as a step sees them, and what the reference retrieves with those.
    pub(crate) fn retrieved_by_these_scores(&self, kernels: &dyn Kernels, token: &Token) -> Retrieved {
        self.retrieved(&self.scores(kernels, &token.windowed_queries, &token.key))
    }

    /// Scores of all codes by query head, as the kernels give them.
    pub(crate) fn scores(&self, kernels: &dyn Kernels, queries: &[f32], key: &[f32]) -> Vec<Vec<f64>> {
        let (scores, _) = calls::scores(kernels, &self.book, queries, key).unwrap();
        scores.chunks_exact(self.book.codes()).map(to_f64).collect()
    }

    pub(crate) fn retrieved(&self, scores: &[Vec<f64>]) -> Retrieved {
        let codes: Vec<usize> = self.store.codes().iter().map(|&code| code.into()).collect();
        let Sparsity { retrieve: share, window, sinks, .. } = self.sparsity;
        retrieve(scores, &codes, codes.len(), share, window, sinks)
    }

    pub(crate) fn assert_step(
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
        let tolerance = tolerance(kernels, self.dtype) + self.estimate_tolerance();
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
                attend_with_estimate(&context, &to_f64(query), &scores, f64::from(scale))
            };
            out.extend(of(&values));
            out_sizes.extend(of(&sizes));
        }
        (out, out_sizes)
    }

    /// How exact the estimate is. Beside bf16 and f16 rows sums of values are integers, which are within 1/254 of the largest of their
    /// sum, and other numbers of a sum may be a few times smaller.
    fn estimate_tolerance(&self) -> f64 {
        match (self.sparsity.estimate.is_on(), self.dtype) {
            (false, _) => 0.0,
            (true, Dtype::F32) => 8.0 * ROUNDING,
            (true, _) => 2_f64.powi(-6),
        }
    }
}
