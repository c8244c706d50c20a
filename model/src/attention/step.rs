//! Decode: sequences that take one token each.
//!
//! One parallel region for a layer: tasks are kv heads, which split further. A head's codewords are scored once for all sequences that
//! share them; then each sequence's rows are chosen, attended in as many parts as there are threads for, and merged in their order. No
//! number depends on how many threads there are or on the other sequences.

mod head;
mod row;

use super::Context;
use crate::{
    codebooks::Codebooks,
    error::{Error, Result},
    sequence::Sequence,
};
use a2ats_kernel::{
    Codebook, Kernels,
    decode::{Estimate, Sparsity},
    elementwise::Rotation,
};
use head::Head;
use rayon::prelude::*;
use std::{ops::Range, sync::Arc};

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

impl Steps {
    /// Begins a step of these sequences.
    pub(crate) fn begin(&mut self, context: Context<'_>, sequences: &[Sequence]) {
        self.plans.resize_with(sequences.len().max(self.plans.len()), Plan::default);
        self.heads.resize_with(context.spec.num_key_value_heads, Head::default);
        self.heads.iter_mut().for_each(|head| head.begin(sequences.len()));
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
            head.step(&Step { context, layer, head: number, plans, sequences }, projections)
        })
    }

    /// Puts what sequence `number` attended to into `to`, `[heads, head_dim]`.
    pub(crate) fn output(&self, number: usize, to: &mut [f32]) {
        let width = to.len() / self.heads.len();
        for (head, to) in self.heads.iter().zip(to.chunks_exact_mut(width)) {
            to.copy_from_slice(head.row(number).output());
        }
    }

    /// Adds what was read in a layer to the sequences' counts.
    pub(crate) fn count(&self, sequences: &mut [Sequence]) {
        for (number, sequence) in sequences.iter_mut().enumerate() {
            self.heads.iter().for_each(|head| sequence.count(head.row(number).read()));
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
