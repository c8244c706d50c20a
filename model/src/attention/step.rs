//! Decode: sequences that take one token each.
//!
//! One parallel region for a layer: tasks are kv heads, which split further. A head's codewords are scored once for all sequences that
//! share them; then each sequence's rows are chosen, attended in as many parts as there are threads for, and merged in their order. No
//! number depends on how many threads there are or on the other sequences.

use super::Context;
use crate::{
    codebooks::Codebooks,
    error::{Error, Result},
    sequence::{self, ReadCount, Sequence},
};
use a2ats_kernel::{
    Codebook, Kernels,
    attention::{self, Partial},
    codebook::{BestCode, Probes},
    decode::{Choice, Estimate, Sparsity, rows_per_task},
    elementwise::Rotation,
    estimate::{self, Part},
    store::Store,
};
use rayon::prelude::*;
use std::{ops::Range, sync::Arc};

/// Slots of sums that one task estimates from.
const SLOTS_PER_TASK: usize = 2048;

/// Codes that a task scores, where there are fewer kv heads than threads.
const CODES_PER_TASK: usize = 512;

/// Working memory of the steps.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    plans: Vec<Plan>,
    heads: Vec<Head>,
}

/// What one sequence does in all layers.
#[derive(Debug, Default)]
struct Plan {
    /// By the token's position.
    here: Rotation,
    /// None where all rows are attended.
    sparsity: Option<Sparsity>,
    /// By the fixed relative position that codewords are scored at.
    relative: Rotation,
    /// By which queries are rotated for the estimate of what is not attended, if not by `relative`.
    averaged: Rotation,
}

/// One kv head: what its sequences have in common, and each of them.
#[derive(Debug, Default)]
struct Head {
    probes: Probes,
    /// Queries that codewords are scored for: of each sequence the windowed ones, then the averaged ones.
    queries: Vec<f32>,
    /// The newest keys, not rotated.
    keys: Vec<f32>,
    /// `[queries, codes]`
    scores: Vec<f32>,
    /// The same by ranges of codes, if those are scored by several tasks.
    by_range: Vec<f32>,
    /// `[ranges, keys]`
    best: Vec<BestCode>,
    rows: Vec<Row>,
}

/// One sequence's step of one kv head.
#[derive(Debug, Default)]
struct Row {
    /// `[group, head_dim]`
    queries: Vec<f32>,
    /// `[head_dim]`
    key: Vec<f32>,
    /// The same as it was before it was rotated, where it is still to be encoded.
    unrotated: Vec<f32>,
    /// `[head_dim]`
    value: Vec<f32>,
    code: Option<u16>,
    /// Its part of the head's queries and scores.
    scored: Range<usize>,
    choice: Choice,
    parts: Vec<Task>,
    /// `[group, head_dim]`
    output: Vec<f32>,
    read: ReadCount,
}

/// A part of a row's work.
#[derive(Debug, Default)]
struct Task {
    of_attention: attention::Scratch,
    of_estimate: estimate::Scratch,
    partial: Partial,
}

impl Steps {
    /// Begins a step of these sequences.
    pub(crate) fn begin(&mut self, context: Context<'_>, sequences: &[Sequence]) {
        self.plans.resize_with(sequences.len().max(self.plans.len()), Plan::default);
        self.heads.resize_with(context.spec.num_key_value_heads, Head::default);
        for head in &mut self.heads {
            head.rows.resize_with(sequences.len().max(head.rows.len()), Row::default);
        }
        for (plan, sequence) in self.plans.iter_mut().zip(sequences) {
            plan.begin(context, sequence);
        }
    }

    /// Adds each sequence's token to a layer, and attends. The projections are `[rows, n]` as products leave them.
    pub(crate) fn attend(
        &mut self,
        context: Context<'_>,
        layer: usize,
        sequences: &[Sequence],
        projections: [&[f32]; 3],
    ) -> Result<()> {
        let plans = &self.plans[..sequences.len()];
        self.heads.par_iter_mut().enumerate().try_for_each(|(number, head)| {
            let step = Step { context, layer, head: number, plans, sequences };
            head.take(&step, projections)?;
            head.score(&step)?;
            let Head { rows, queries, scores, .. } = head;
            let rows = rows[..sequences.len()].par_iter_mut().enumerate();
            rows.try_for_each(|(number, row)| row.step(&step, number, queries, scores))
        })
    }

    /// Puts what sequence `number` attended to into `to`, `[heads, head_dim]`.
    pub(crate) fn output(&self, number: usize, to: &mut [f32]) {
        let width = to.len() / self.heads.len();
        for (head, to) in self.heads.iter().zip(to.chunks_exact_mut(width)) {
            to.copy_from_slice(&head.rows[number].output);
        }
    }

    /// Adds what was read in a layer to the sequences' counts.
    pub(crate) fn count(&self, sequences: &mut [Sequence]) {
        for (number, sequence) in sequences.iter_mut().enumerate() {
            self.heads.iter().for_each(|head| sequence.count(&head.rows[number].read));
        }
    }
}

impl Plan {
    fn begin(&mut self, context: Context<'_>, sequence: &Sequence) {
        let position = sequence.len();
        self.here.set_position(position, context.frequencies);
        self.sparsity = sequence.attention().sparsity_at(position + 1);
        if let (Some(sparsity), Some(books)) = (self.sparsity, sequence.codebooks()) {
            self.relative.set_position(books.relative_position(), context.frequencies);
            if sparsity.estimate == Estimate::Averaged {
                self.averaged.set_average(sparsity.distances(position + 1), context.frequencies);
            }
        }
    }
}

/// One kv head's step of all sequences.
#[derive(Clone, Copy)]
struct Step<'a> {
    context: Context<'a>,
    layer: usize,
    head: usize,
    plans: &'a [Plan],
    sequences: &'a [Sequence],
}

impl<'a> Step<'a> {
    fn kernels(&self) -> &'static dyn Kernels {
        self.context.kernels
    }

    /// The codebook of a sequence that has some.
    fn book(&self, sequence: usize) -> Result<&'a Codebook> {
        let books = self.sequences[sequence].codebooks();
        let books = books.ok_or_else(|| Error::Usage("a2ats attention needs codebooks".to_owned()))?;
        Ok(books.of_head(self.layer, self.head))
    }

    /// The sequences behind `from` that score the same codewords: the first one that does, and the end of those that share them.
    fn sharing(&self, from: usize) -> Option<Range<usize>> {
        let books = |number: usize| -> Option<&Arc<Codebooks>> {
            self.plans[number].sparsity.and(self.sequences[number].codebooks())
        };
        let first = (from..self.plans.len()).find(|&number| books(number).is_some())?;
        let shared = |number: usize| match (books(first), books(number)) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let end = (first..self.plans.len()).find(|&number| !shared(number)).unwrap_or(self.plans.len());
        Some(first..end)
    }
}

impl Head {
    /// Takes this head's projections of all sequences.
    fn take(&mut self, step: &Step<'_>, [queries, keys, values]: [&[f32]; 3]) -> Result<()> {
        let (n, d, width) = (step.sequences.len(), step.context.spec.head_dim, step.context.width());
        for (number, row) in self.rows[..n].iter_mut().enumerate() {
            let take = |from: &[f32], width: usize, to: &mut Vec<f32>| {
                to.clear();
                let from = &from[step.head * width * n..(step.head + 1) * width * n];
                to.extend(from.iter().skip(number).step_by(n));
            };
            take(queries, width, &mut row.queries);
            take(keys, d, &mut row.key);
            take(values, d, &mut row.value);
            step.context.check_scores(&row.queries)?;
            step.context.check_scores(&row.key)?;
        }
        Ok(())
    }

    /// Scores the codewords: once for all sequences that share them.
    fn score(&mut self, step: &Step<'_>) -> Result<()> {
        self.queries.clear();
        self.scores.clear();
        let mut from = 0;
        while let Some(sharing) = step.sharing(from) {
            from = sharing.end;
            let book = step.book(sharing.start)?;
            let first_query = self.queries.len();
            self.keys.clear();
            for number in sharing.clone() {
                self.add_queries(step, number, book)?;
            }
            self.score_all(step, book, first_query, sharing)?;
        }
        Ok(())
    }

    /// Adds one sequence's queries and its key to those that codewords are scored for.
    fn add_queries(&mut self, step: &Step<'_>, number: usize, book: &Codebook) -> Result<()> {
        let (plan, row) = (&step.plans[number], &mut self.rows[number]);
        let is_averaged = plan.sparsity.is_some_and(|sparsity| sparsity.estimate == Estimate::Averaged);
        let start = self.queries.len();
        for rotation in [Some(&plan.relative), is_averaged.then_some(&plan.averaged)].into_iter().flatten() {
            let at = self.queries.len();
            self.queries.extend_from_slice(&row.queries);
            step.kernels().rotate(&mut self.queries[at..], rotation)?;
        }
        row.scored = start / book.head_dim()..self.queries.len() / book.head_dim();
        self.keys.extend_from_slice(&row.key);
        Ok(())
    }

    /// Scores one codebook, on several threads where kv heads alone would not fill them. Codes come out the same.
    fn score_all(
        &mut self,
        step: &Step<'_>,
        book: &Codebook,
        first_query: usize,
        sharing: Range<usize>,
    ) -> Result<()> {
        let kernels = step.kernels();
        let Self { probes, queries, keys, scores, by_range, best, rows } = self;
        kernels.prepare_probes(book, &queries[first_query..], keys, probes)?;
        let (codes, n, first) = (book.codes(), probes.queries(), scores.len());
        scores.resize(first + n * codes, 0.0);
        let scores = &mut scores[first..];
        best.clear();
        if rayon::current_num_threads() <= step.context.spec.num_key_value_heads {
            best.resize(sharing.len(), BestCode::default());
            kernels.codeword_scores(book, probes, 0..codes, scores, best)?;
        } else {
            best.resize(sharing.len() * codes.div_ceil(CODES_PER_TASK), BestCode::default());
            by_range.resize(n * codes, 0.0);
            let ranges = by_range.par_chunks_mut(n * CODES_PER_TASK);
            let tasks = ranges.zip(best.par_chunks_mut(sharing.len())).enumerate();
            tasks.try_for_each(|(range, (scores, best))| {
                let start = range * CODES_PER_TASK;
                kernels.codeword_scores(book, probes, start..codes.min(start + CODES_PER_TASK), scores, best)
            })?;
            gather_ranges(by_range, codes, scores);
            let (lowest, higher) = best.split_at_mut(sharing.len());
            for higher in higher.chunks_exact(sharing.len()) {
                lowest.iter_mut().zip(higher).for_each(|(best, higher)| best.merge(higher));
            }
        }
        for (row, best) in rows[sharing].iter_mut().zip(best) {
            row.code = Some(best.code());
        }
        Ok(())
    }
}

/// From `[queries, codes of a range]` range by range to `[queries, codes]`.
fn gather_ranges(by_range: &[f32], codes: usize, scores: &mut [f32]) {
    let n = scores.len() / codes;
    for (range, from) in by_range.chunks(n * CODES_PER_TASK).enumerate() {
        let len = from.len() / n;
        for (from, to) in from.chunks_exact(len).zip(scores.chunks_exact_mut(codes)) {
            to[range * CODES_PER_TASK..][..len].copy_from_slice(from);
        }
    }
}

impl Row {
    /// Appends the token, chooses what is attended, attends it, and estimates the rest.
    fn step(&mut self, step: &Step<'_>, number: usize, queries: &[f32], scores: &[f32]) -> Result<()> {
        let Step { context, sequences, plans, .. } = step;
        let plan = &plans[number];
        let mut head = sequences[number].head(step.layer, step.head);
        let head = &mut *head;
        context.kernels.rotate(&mut self.queries, &plan.here)?;
        let Some(sparsity) = plan.sparsity else {
            self.append_densely(step, number, head)?;
            self.choice.choose_all(&head.store);
            return self.attend(step, &head.store, None);
        };
        let book = step.book(number)?;
        head.encode(context.kernels, book)?;
        context.kernels.rotate(&mut self.key, &plan.here)?;
        let store = &mut head.store;
        store.append(&self.key, &self.value, self.code.take().as_slice())?;
        let scores = &scores[self.scored.start * book.codes()..self.scored.end * book.codes()];
        let queries = &queries[self.scored.start * book.head_dim()..self.scored.end * book.head_dim()];
        let group = context.spec.group();
        self.choice.choose(context.kernels, store, &sparsity, &scores[..group * book.codes()])?;
        // Those of the estimate come last.
        let of_estimate = Scored {
            book,
            queries: &queries[queries.len() - group * book.head_dim()..],
            scores: &scores[scores.len() - group * book.codes()..],
        };
        self.attend(step, store, Some(of_estimate))
    }

    /// Appends a token that attends to all, whose code may wait if there is to be one.
    fn append_densely(&mut self, step: &Step<'_>, number: usize, head: &mut sequence::Head) -> Result<()> {
        let (kernels, here) = (step.kernels(), &step.plans[number].here);
        self.unrotated.clone_from(&self.key);
        kernels.rotate(&mut self.key, here)?;
        if head.store.layout().codes == 0 {
            return Ok(head.store.append(&self.key, &self.value, &[])?);
        }
        head.append_unencoded(kernels, step.book(number)?, &self.unrotated, (&self.key, &self.value))
    }

    /// Attends what was chosen in parts, on several threads, and merges them in their order.
    fn attend(&mut self, step: &Step<'_>, store: &Store, scored: Option<Scored<'_>>) -> Result<()> {
        let Self { queries, choice, parts, output, .. } = self;
        let context = step.context;
        let rows = choice.amount().attended;
        let heads = step.sequences.len() * context.spec.num_key_value_heads;
        let of_part = rows_per_task(rows, heads, rayon::current_num_threads());
        let attending = rows.div_ceil(of_part);
        let estimating = if choice.leaves() { choice.slots().div_ceil(SLOTS_PER_TASK).max(1) } else { 0 };
        let tasks = attending + estimating;
        parts.resize_with(tasks.max(parts.len()), Task::default);
        parts[..tasks].par_iter_mut().enumerate().try_for_each(|(number, task)| {
            let Task { of_attention, of_estimate, partial } = task;
            let (kernels, scale) = (context.kernels, context.scale());
            if number < attending {
                let part = number * of_part..rows.min((number + 1) * of_part);
                return choice.attend(kernels, store, part, queries, scale, of_attention, partial);
            }
            let Some(Scored { book, queries, scores }) = scored else { return Ok(()) };
            let first = (number - attending) * SLOTS_PER_TASK;
            let slots = first..choice.slots().min(first + SLOTS_PER_TASK);
            let part = Part { slots, rows: number == attending };
            choice.estimate(kernels, store, book, &part, (queries, scores), scale, of_estimate, partial)
        })?;
        let (whole, others) = parts[..tasks].split_at_mut(1);
        for part in others {
            whole[0].partial.merge(&part.partial)?;
        }
        output.resize(queries.len(), 0.0);
        whole[0].partial.finish(output)?;
        self.read = ReadCount::default();
        let codewords = scored.map_or(0, |scored| scored.book.table_bytes());
        let estimate = if self.choice.leaves() { self.choice.estimate_bytes(store) } else { 0 };
        self.read.add(self.choice.amount(), store.layout().row_bytes(), codewords, estimate);
        Ok(())
    }
}

/// What an estimate goes by.
#[derive(Clone, Copy)]
struct Scored<'a> {
    book: &'a Codebook,
    /// `[group, head_dim]`
    queries: &'a [f32],
    /// `[group, codes]`
    scores: &'a [f32],
}
