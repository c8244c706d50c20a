//! One decode step of one kv head: score, retrieve, attend, and estimate what is left out.
//!
//! [`decode_step`] is the whole of it on one thread. An engine of many sequences calls the parts, and splits each as it likes:
//!
//! 1. score: [`Kernels::prepare_probes`] and [`Kernels::codeword_scores`], by ranges of codes, once for all sequences that share a
//!    codebook; the ranges' [`BestCode`]s merge to the newest keys' codes;
//! 2. append the token to its [`Store`], then [`Choice::choose`] by its scores;
//! 3. attend: [`Choice::attend`] by ranges of the chosen rows;
//! 4. estimate: [`Choice::estimate`] by ranges of the sums' slots;
//! 5. merge the [`Partial`]s of 3, then those of 4, in the order of the ranges.
//!
//! The bits depend on the ranges of 4 and on the order of merging, and on nothing else; ranges of 3 begin at multiples of
//! [`segment_rows`].

mod choice;
mod sparsity;

use crate::{
    Codebook, Kernels,
    attention::{self, Partial, segment_rows},
    codebook::{BestCode, Probes},
    error::{Result, expect_len},
    estimate,
    shape::check_group,
    store::Store,
};

pub use choice::{Amount, Choice};
pub use sparsity::{Estimate, Sparsity};

/// How many of a kv head's `rows` a task is best given, whole segments of them ([`segment_rows`]), where `heads` of them are attended at
/// once on `threads` threads: some four tasks for each thread. No number depends on it. Each task has to wait for its first rows, 3 to 5 µs
/// on Emerald and Granite Rapids: with tasks of 1024 rows dense decode at 128K tokens reads 8% less.
pub fn rows_per_task(rows: usize, heads: usize, threads: usize) -> usize {
    let segment = segment_rows(rows);
    let tasks = threads.saturating_mul(4).div_ceil(heads.max(1)).max(1);
    rows.div_ceil(segment).div_ceil(tasks).max(1).saturating_mul(segment)
}

/// The newest token's projections for one kv head.
#[derive(Debug, Clone, Copy)]
pub struct StepInput<'a> {
    /// `[group, head_dim]`: the group's queries, rotated to the token's position.
    pub queries: &'a [f32],
    /// `[group, head_dim]`: the same queries, rotated to the fixed relative position.
    pub windowed_queries: &'a [f32],
    /// `[group, head_dim]`: the same queries, rotated by [`Sparsity::averaged_rotation`]; empty, if there is none.
    pub averaged_queries: &'a [f32],
    /// `[head_dim]`: the key, not rotated.
    pub key: &'a [f32],
    /// `[head_dim]`: the key, rotated to the token's position.
    pub rotated_key: &'a [f32],
    /// `[head_dim]`
    pub value: &'a [f32],
}

/// Working memory of [`decode_step`], to be kept between steps.
#[derive(Debug, Clone, Default)]
pub struct StepScratch {
    /// Windowed queries, then averaged ones.
    queries: Vec<f32>,
    probes: Probes,
    /// `[queries, codes]`
    scores: Vec<f32>,
    of_attention: attention::Scratch,
    of_estimate: estimate::Scratch,
    choice: Choice,
    /// The whole, and a part.
    partials: [Partial; 2],
}

impl StepScratch {
    /// What the last step chose.
    pub const fn choice(&self) -> &Choice {
        &self.choice
    }
}

/// A whole step on one thread: appends the token to the store, and puts the attention output of the group, `[group, head_dim]`, into
/// `out`. `scale` is 1/√head_dim as a rule.
///
/// # Errors
/// If the shapes do not fit together or memory runs out; the store is as before then.
#[expect(clippy::too_many_arguments, reason = "what a step reads, what it changes, and where it writes")]
pub fn decode_step(
    kernels: &dyn Kernels,
    book: &Codebook,
    store: &mut Store,
    sparsity: &Sparsity,
    input: &StepInput<'_>,
    scale: f32,
    scratch: &mut StepScratch,
    out: &mut [f32],
) -> Result<Amount> {
    check_step(book, store, sparsity, input, out)?;
    store.check_room(1)?;
    let code = score(kernels, book, sparsity, input, scratch)?;
    store.append(input.rotated_key, input.value, &[code])?;
    let done = attend_all(kernels, book, store, sparsity, input, scale, scratch, out);
    if done.is_err() {
        store.truncate(kernels, store.len() - 1)?;
    }
    done
}

/// Checks all shapes of a step, before anything changes.
fn check_step(
    book: &Codebook,
    store: &Store,
    sparsity: &Sparsity,
    input: &StepInput<'_>,
    out: &[f32],
) -> Result<()> {
    let (head_dim, layout) = (book.head_dim(), store.layout());
    sparsity.check_store(store)?;
    expect_len("head_dim of the store", layout.head_dim, head_dim)?;
    expect_len("codewords of the store", layout.codes, book.codes())?;
    expect_len("key", input.key.len(), head_dim)?;
    expect_len("rotated key", input.rotated_key.len(), head_dim)?;
    expect_len("value", input.value.len(), head_dim)?;
    let group = input.queries.len() / head_dim;
    check_group(group)?;
    expect_len("queries", input.queries.len(), group * head_dim)?;
    expect_len("windowed queries", input.windowed_queries.len(), group * head_dim)?;
    let averaged = if sparsity.estimate == Estimate::Averaged { group * head_dim } else { 0 };
    expect_len("averaged queries", input.averaged_queries.len(), averaged)?;
    expect_len("attention output", out.len(), group * head_dim)
}

/// Scores the codewords for all queries; gives the newest key's code.
fn score(
    kernels: &dyn Kernels,
    book: &Codebook,
    sparsity: &Sparsity,
    input: &StepInput<'_>,
    scratch: &mut StepScratch,
) -> Result<u16> {
    let StepScratch { queries, probes, scores, .. } = scratch;
    queries.clear();
    queries.extend_from_slice(input.windowed_queries);
    if sparsity.estimate == Estimate::Averaged {
        queries.extend_from_slice(input.averaged_queries);
    }
    scores.resize(book.codes() * queries.len() / book.head_dim(), 0.0);
    kernels.prepare_probes(book, queries, input.key, probes)?;
    let mut best = [BestCode::default()];
    kernels.codeword_scores(book, probes, 0..book.codes(), scores, &mut best)?;
    Ok(best[0].code())
}

/// Retrieves, attends, estimates.
#[expect(clippy::too_many_arguments, reason = "those of `decode_step`")]
fn attend_all(
    kernels: &dyn Kernels,
    book: &Codebook,
    store: &mut Store,
    sparsity: &Sparsity,
    input: &StepInput<'_>,
    scale: f32,
    scratch: &mut StepScratch,
    out: &mut [f32],
) -> Result<Amount> {
    let StepScratch { scores, of_attention, of_estimate, choice, partials: [whole, part], .. } = scratch;
    let by_group = book.codes() * input.queries.len() / book.head_dim();
    let amount = choice.choose(kernels, store, sparsity, &scores[..by_group])?;
    choice.attend(kernels, store, 0..amount.attended, input.queries, scale, of_attention, whole)?;
    if choice.leaves() {
        let scored = match sparsity.estimate {
            Estimate::Averaged => (input.averaged_queries, &scores[by_group..]),
            _ => (input.windowed_queries, &scores[..by_group]),
        };
        choice.estimate(kernels, store, book, &choice.whole_estimate(), scored, scale, of_estimate, part)?;
        whole.merge(part)?;
    }
    whole.finish(out)?;
    Ok(amount)
}
