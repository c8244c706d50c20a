//! From which length on it pays to choose what is attended.
//!
//! A dense step of a kv head goes over all rows; a sparse one through the codewords and the sums of values first, and then over few rows.
//! Both are timed here at lengths that double, over the codebooks and rows of several heads in turn, until the sparse one is the
//! faster.

use super::Context;
use crate::{codebooks::Codebooks, error::Result};
use a2ats_kernel::{
    Codebook, Dtype,
    attention::{self, Partial},
    decode::{Choice, Estimate, Sparsity, StepInput, StepScratch, decode_step},
    store::Store,
};
use rayon::prelude::*;
use std::time::Instant;

/// Lengths that are measured, in tokens, each twice the one before.
const LENGTHS: std::ops::RangeInclusive<u32> = 9..=15;

/// Heads that are measured, on all threads.
const HEADS: usize = 8;

/// How often; the fastest counts.
const ROUNDS: usize = 5;

/// Tokens from which on a sparse step is the faster one; the largest number if it is not up to 32768 of them. A power of two, so that it is
/// the same next time as a rule.
pub(crate) fn crossover(
    context: Context<'_>,
    books: &Codebooks,
    sparsity: &Sparsity,
    dtype: Dtype,
) -> Result<usize> {
    let (kv_heads, layers) = (context.spec.num_key_value_heads, context.spec.num_hidden_layers);
    let mut heads = (0..HEADS)
        .map(|number| {
            let book = books.of_head(number / kv_heads % layers, number % kv_heads);
            let layout = sparsity.layout(dtype, book.head_dim(), book.codes());
            let store = Store::new(layout, (1 << LENGTHS.end()) + ROUNDS * LENGTHS.count())?;
            Ok(Head { book, store, scratch: StepScratch::default() })
        })
        .collect::<Result<Vec<_>>>()?;
    for tokens in LENGTHS.map(|exponent| 1 << exponent) {
        heads.par_iter_mut().try_for_each(|head| head.fill(context, tokens))?;
        let [dense, sparse] = measure(context, sparsity, &mut heads)?;
        if sparse < dense {
            return Ok(tokens);
        }
    }
    Ok(usize::MAX)
}

/// A kv head to measure on.
struct Head<'b> {
    book: &'b Codebook,
    store: Store,
    scratch: StepScratch,
}

/// Seconds of a dense and of a sparse step of all heads.
fn measure(context: Context<'_>, sparsity: &Sparsity, heads: &mut [Head<'_>]) -> Result<[f64; 2]> {
    let mut fastest = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        let start = Instant::now();
        heads.par_iter().try_for_each(|head| head.dense(context))?;
        let middle = Instant::now();
        heads.par_iter_mut().try_for_each(|head| head.sparse(context, sparsity))?;
        fastest[0] = fastest[0].min((middle - start).as_secs_f64());
        fastest[1] = fastest[1].min(middle.elapsed().as_secs_f64());
    }
    Ok(fastest)
}

impl Head<'_> {
    /// Adds tokens up to so many, laid out by code but for the window.
    fn fill(&mut self, context: Context<'_>, tokens: usize) -> Result<()> {
        let (d, codes) = (self.book.head_dim(), self.book.codes() as f32);
        let more = tokens.saturating_sub(self.store.len());
        let rows = noise(more * d);
        let code = |x: f32| ((x + 1.0) / 2.0 * codes).min(codes - 1.0) as u16;
        let codes: Vec<u16> = noise(more).into_iter().map(code).collect();
        self.store.append(&rows, &rows, &codes)?;
        Ok(self.store.sort(context.kernels)?)
    }

    fn dense(&self, context: Context<'_>) -> Result<()> {
        let queries = queries(context);
        let (mut choice, mut scratch, mut out) =
            (Choice::default(), attention::Scratch::default(), Partial::default());
        let rows = choice.choose_all(&self.store).attended;
        let (kernels, scale) = (context.kernels, context.scale());
        Ok(choice.attend(kernels, &self.store, 0..rows, &queries, scale, &mut scratch, &mut out)?)
    }

    fn sparse(&mut self, context: Context<'_>, sparsity: &Sparsity) -> Result<()> {
        let Self { book, store, scratch } = self;
        let (queries, key) = (queries(context), noise(book.head_dim()));
        let averaged_queries = if sparsity.estimate == Estimate::Averaged { &queries[..] } else { &[] };
        let input = StepInput {
            queries: &queries,
            windowed_queries: &queries,
            averaged_queries,
            key: &key,
            rotated_key: &key,
            value: &key,
        };
        let mut out = vec![0.0; queries.len()];
        decode_step(context.kernels, book, store, sparsity, &input, context.scale(), scratch, &mut out)?;
        Ok(())
    }
}

/// Queries of a group that look for similar things, as those of models do.
fn queries(context: Context<'_>) -> Vec<f32> {
    let d = context.spec.head_dim;
    let mut queries = noise(context.width());
    let (first, others) = queries.split_at_mut(d);
    for query in others.chunks_exact_mut(d) {
        query.iter_mut().zip(&*first).for_each(|(x, first)| *x = first + *x / 2.0);
    }
    queries
}

/// Numbers between −1 and 1 without rhyme or reason.
fn noise(len: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}
