//! What a step attends to, and what it leaves out.

use super::Sparsity;
use crate::{
    Codebook, Kernels,
    attention::{self, Partial},
    error::{Result, expect_len},
    estimate::{self, Part, Table, Unattended},
    retrieval,
    rows::{MAX_AREAS, Run, Runs},
    shape::check_group,
    store::Store,
};
use std::ops::Range;

/// How much a step chose, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// The length of the context.
    pub tokens: usize,
    /// Rows that the group attends: sinks, window and the retrieved ones.
    pub attended: usize,
    /// Tokens in the union of the heads' picks, before sinks and window are added. A head that is to take more than
    /// there is to retrieve counts sinks and window tokens for the rest, as the published code's figure does.
    pub picked: usize,
}

/// What a step of one kv head attends to, and what it leaves out. To be kept between steps: nothing is allocated once it has
/// grown to what a step needs.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    amount: Amount,
    /// What the group attends: sinks, retrieved rows in the order of memory, window.
    runs: Vec<Run>,
    /// `[codes]`
    counts: Vec<u32>,
    /// `[codes]`
    prefixes: Vec<u32>,
    retrieval: retrieval::Scratch,
    /// Whether there is something to estimate.
    leaves: bool,
    /// How many tokens each slot of the bases' sums has, base after base.
    slot_counts: Vec<u32>,
    /// `[codes]`: the share of each code's tokens outside of the window that is not attended.
    shares: Vec<f32>,
}

impl Choice {
    /// How much was chosen.
    pub const fn amount(&self) -> Amount {
        self.amount
    }

    /// The rows that are attended.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Chooses what the group attends of all tokens in `store`, the newest included: the sinks, what is retrieved by `scores`,
    /// `[group, codes]`, and the window. Prepares the estimate of the rest where `sparsity` wants one.
    ///
    /// # Errors
    /// If `scores` is not `[group, codes]`, the sparsity makes no sense or is not about the store's window and sinks, or memory runs
    /// out.
    pub fn choose(
        &mut self,
        kernels: &dyn Kernels,
        store: &mut Store,
        sparsity: &Sparsity,
        scores: &[f32],
    ) -> Result<Amount> {
        sparsity.check_store(store)?;
        store.counts(&mut self.counts)?;
        let tokens = store.len();
        let take = sparsity.take(tokens);
        let Self { counts, prefixes, retrieval, runs, .. } = self;
        retrieval::retrieve(kernels, scores, counts, take, store, retrieval, prefixes)?;
        runs.clear();
        store.sink_rows(runs);
        store.retrieved_rows(prefixes, runs);
        store.window_rows(runs);
        let of = |counts: &[u32]| counts.iter().map(|&count| count as usize).sum::<usize>();
        let attended = runs.iter().map(|run| run.len as usize).sum();
        let picked = if take > of(counts) { take.min(tokens) } else { of(prefixes) };
        self.amount = Amount { tokens, attended, picked };
        self.leave_out(store, sparsity.estimate.is_on());
        Ok(self.amount)
    }

    /// Chooses all rows of a store: dense attention.
    pub fn choose_all(&mut self, store: &Store) -> Amount {
        let tokens = store.len();
        store.all_rows(&mut self.runs);
        self.amount = Amount { tokens, attended: tokens, picked: tokens };
        self.leave_out(store, false);
        self.amount
    }

    fn leave_out(&mut self, store: &Store, estimates: bool) {
        let Self { counts, prefixes, slot_counts, shares, .. } = self;
        slot_counts.clear();
        shares.clear();
        self.leaves = estimates && self.amount.attended < self.amount.tokens;
        if self.leaves {
            store.counts_of_slots(slot_counts);
            let share =
                |(&count, &taken): (&u32, &u32)| count.saturating_sub(taken) as f32 / count.max(1) as f32;
            shares.extend(counts.iter().zip(&*prefixes).map(share));
        }
        shares.resize(store.layout().codes, 0.0);
    }

    /// Attention of the group's `queries` (`[group, head_dim]`, rotated to their true position) over rows `part` of the chosen ones.
    ///
    /// # Errors
    /// If shapes do not fit, or `part` is not inside, or the store is not the one that was chosen from.
    #[expect(clippy::too_many_arguments, reason = "what is attended, by what, and where it goes")]
    pub fn attend(
        &self,
        kernels: &dyn Kernels,
        store: &Store,
        part: Range<usize>,
        queries: &[f32],
        scale: f32,
        scratch: &mut attention::Scratch,
        out: &mut Partial,
    ) -> Result<()> {
        let areas = store.areas();
        kernels.attend(&Runs::new(&areas, &self.runs)?, part, queries, scale, scratch, out)
    }

    /// How many slots of sums there are to estimate from; parts of the estimate are ranges of them.
    pub fn slots(&self) -> usize {
        self.slot_counts.len()
    }

    /// Whether anything is left to estimate.
    pub const fn leaves(&self) -> bool {
        self.leaves
    }

    /// Bytes that the whole estimate reads of `store`.
    pub fn estimate_bytes(&self, store: &Store) -> usize {
        let layout = store.layout();
        let rows = if self.leaves { store.entered_rows().1.len() } else { 0 };
        self.slots() * layout.sum_bytes() + rows * layout.row_bytes() / 2
    }

    /// The estimate of a part of what was left out; `input` has the queries that were scored, `scores` is `[group, codes]` of those that
    /// the estimate goes by. Fills `out` anew.
    ///
    /// # Errors
    /// If shapes do not fit, or the store is not the one that was chosen from.
    #[expect(clippy::too_many_arguments, reason = "what is estimated, by what, and where it goes")]
    pub fn estimate(
        &self,
        kernels: &dyn Kernels,
        store: &Store,
        book: &Codebook,
        part: &Part,
        (queries, scores): (&[f32], &[f32]),
        scale: f32,
        scratch: &mut estimate::Scratch,
        out: &mut Partial,
    ) -> Result<()> {
        let (head_dim, layout) = (book.head_dim(), store.layout());
        expect_len("head_dim of the store", layout.head_dim, head_dim)?;
        expect_len("codewords of the store", layout.codes, book.codes())?;
        let group = queries.len() / head_dim;
        check_group(group)?;
        expect_len("scored queries", queries.len(), group * head_dim)?;
        expect_len("scores", scores.len(), group * book.codes())?;
        let mut offsets = [0.0; 16];
        for (offset, query) in offsets.iter_mut().zip(queries.chunks_exact(head_dim)) {
            *offset = (center_score(query, book.center()) * f64::from(scale)) as f32;
        }
        let bases = store.bases();
        expect_len("slots of the choice", self.slots(), bases.iter().map(|base| base.slots().len()).sum())?;
        let none = Table { sums: estimate::Sums::F32(&[]), codes: &[], counts: &[] };
        let mut tables = [none; MAX_AREAS];
        let mut rest = &self.slot_counts[..];
        for (table, base) in tables.iter_mut().zip(bases) {
            let slots = base.slots();
            let (counts, others) = rest.split_at(slots.len());
            *table = Table { sums: base.sums(), codes: slots, counts };
            rest = others;
        }
        let (areas, (run, row_codes)) = (store.areas(), store.entered_rows());
        let unattended = Unattended {
            tables: &tables[..bases.len()],
            rows: Runs::new(&areas, std::slice::from_ref(&run))?,
            row_codes,
            shares: &self.shares,
            scores,
            offsets: &offsets[..group],
            scale,
        };
        kernels.estimate(&unattended, part, scratch, out)
    }

    /// All of the estimate's work.
    pub fn whole_estimate(&self) -> Part {
        Part { slots: 0..self.slots(), rows: true }
    }
}

/// q·μ, in f64: it can be hundreds of times larger than what tells codewords apart.
fn center_score(query: &[f32], center: &[f32]) -> f64 {
    query.iter().zip(center).map(|(&q, &c)| f64::from(q) * f64::from(c)).sum()
}
