//! One kv head's part of a step: the codewords' scores, once for all sequences that share them.

use super::{Step, row::Row};
use crate::error::Result;
use a2ats_kernel::{
    Codebook,
    codebook::{BestCode, Probes},
    decode::Estimate,
};
use rayon::prelude::*;
use std::ops::Range;

/// Codes that a task scores, where there are fewer kv heads than threads.
const CODES_PER_TASK: usize = 512;

/// One kv head: what its sequences have in common, and each of them.
#[derive(Debug, Default)]
pub(super) struct Head {
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

impl Head {
    /// Makes room for so many sequences.
    pub(super) fn begin(&mut self, sequences: usize) {
        self.rows.resize_with(sequences.max(self.rows.len()), Row::default);
    }

    /// What was done for sequence `number`.
    pub(super) fn row(&self, number: usize) -> &Row {
        &self.rows[number]
    }

    /// Scores the codewords, then steps with each sequence.
    pub(super) fn step(&mut self, step: &Step<'_>, projections: [&[f32]; 3]) -> Result<()> {
        self.take(step, projections)?;
        self.score(step)?;
        let Self { rows, queries, scores, .. } = self;
        let rows = rows[..step.sequences.len()].par_iter_mut().enumerate();
        rows.try_for_each(|(number, row)| row.step(step, number, queries, scores))
    }

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
