//! One sequence's step of one kv head: its token is appended, rows are chosen and attended, and the rest is estimated.

use super::Step;
use crate::{
    error::Result,
    sequence::{self, ReadCount},
};
use a2ats_kernel::{
    Codebook,
    attention::{self, Partial},
    decode::{Choice, rows_per_task},
    estimate::{self, Part},
    store::Store,
};
use rayon::prelude::*;
use std::ops::Range;

/// Slots of sums that one task estimates from.
const SLOTS_PER_TASK: usize = 2048;

/// One sequence's step of one kv head.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// `[group, head_dim]`
    pub(super) queries: Vec<f32>,
    /// `[head_dim]`
    pub(super) key: Vec<f32>,
    /// The same as it was before it was rotated, where it is still to be encoded.
    unrotated: Vec<f32>,
    /// `[head_dim]`
    pub(super) value: Vec<f32>,
    pub(super) code: Option<u16>,
    /// Its part of the head's queries and scores.
    pub(super) scored: Range<usize>,
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

impl Row {
    /// `[group, head_dim]`
    pub(super) fn output(&self) -> &[f32] {
        &self.output
    }

    /// What was read.
    pub(super) const fn read(&self) -> &ReadCount {
        &self.read
    }

    /// Appends the token, chooses what is attended, attends it, and estimates the rest.
    pub(super) fn step(
        &mut self,
        step: &Step<'_>,
        number: usize,
        queries: &[f32],
        scores: &[f32],
    ) -> Result<()> {
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
