//! What a retrieval takes of a store and what it leaves, as rows and numbers: bases first, then the log, so that what a code gives are
//! its lowest positions.

use super::{Store, push};
use crate::{retrieval::Postings, rows::Run};

impl Store {
    /// Adds the rows of a retrieval to `runs`, in the order of memory: of each code as many of its lowest positions as `prefixes`,
    /// `[codes]`, says.
    pub(crate) fn retrieved_rows(&self, prefixes: &[u32], runs: &mut Vec<Run>) {
        for (number, base) in self.bases.iter().enumerate() {
            each_taken(prefixes, |code, taken| {
                let rows = base.of_code(code);
                let taken = self.before_base(number, code, taken).min(rows.len());
                push(runs, Run::new(number + 1, rows.start..rows.start + taken));
            });
        }
        if !self.log.entries.is_empty() {
            each_taken(prefixes, |code, taken| {
                let taken = self.before_base(self.bases.len(), code, taken);
                for entry in self.log.of_code(code).iter().take(taken) {
                    push(runs, Run::new(0, entry.row as usize..entry.row as usize + 1));
                }
            });
        }
    }

    /// What is left of `taken` tokens of a code once bases before number `base` have given theirs.
    fn before_base(&self, base: usize, code: usize, taken: u32) -> usize {
        self.bases[..base]
            .iter()
            .fold(taken as usize, |left, base| left.saturating_sub(base.of_code(code).len()))
    }

    /// Adds the rows of the sinks to `runs`.
    pub(crate) fn sink_rows(&self, runs: &mut Vec<Run>) {
        push(runs, Run::new(0, 0..self.layout.sinks.min(self.len())));
    }

    /// Adds the rows of the window to `runs`.
    pub(crate) fn window_rows(&self, runs: &mut Vec<Run>) {
        let start = self.log.row_of(&self.layout, self.layout.window_start(self.len()));
        push(runs, Run::new(0, start..self.log.len.max(start)));
    }

    /// Adds how many tokens each slot of the bases' sums has.
    pub(crate) fn counts_of_slots(&self, counts: &mut Vec<u32>) {
        self.bases.iter().for_each(|base| counts.extend(base.counts_of_slots()));
    }

    /// The rows of the log that have left the window, sinks apart, and their codes.
    pub(crate) fn entered_rows(&self) -> (Run, &[u16]) {
        // Without any, even the sinks may be fewer than there will be.
        let rows = if self.log.entries.is_empty() { 0..0 } else { self.log.entered(&self.layout) };
        (Run::new(0, rows.clone()), &self.log.codes[rows])
    }
}

impl Postings for Store {
    fn position(&self, code: usize, number: usize) -> Option<u32> {
        if code >= self.layout.codes {
            return None;
        }
        let mut number = number;
        for base in &self.bases {
            let rows = base.of_code(code);
            if number < rows.len() {
                return base.positions_of(rows.start + number..rows.start + number + 1).first().copied();
            }
            number -= rows.len();
        }
        let entry = self.log.of_code(code).get(number)?;
        Some(self.log.position_of(&self.layout, entry.row as usize) as u32)
    }
}

/// Calls `each` with the codes of which some tokens are taken, and how many. Few are: most runs of eight are passed over at once.
fn each_taken(prefixes: &[u32], mut each: impl FnMut(usize, u32)) {
    for (eight, prefixes) in prefixes.chunks(8).enumerate() {
        if prefixes.iter().any(|&prefix| prefix > 0) {
            for (i, &prefix) in prefixes.iter().enumerate().filter(|(_, prefix)| **prefix > 0) {
                each(eight * 8 + i, prefix);
            }
        }
    }
}
