//! Rows of one length in blocks, resolved from runs wherever they lie.

use super::walk::EqualRows;
use crate::rows::{MAX_AREAS, Run};
use std::ops::Range;

/// Rows of equal length: runs in a few areas of memory.
pub(crate) struct RowSet<'a, T> {
    areas: [&'a [T]; MAX_AREAS],
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    runs: &'a [Run],
}

impl<T> Clone for RowSet<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RowSet<'_, T> {}

impl<'a, T> RowSet<'a, T> {
    /// Rows of `areas`; runs lie inside of them.
    #[inline(always)]
    pub(crate) fn new(areas: [&'a [T]; MAX_AREAS], stride: usize, runs: &'a [Run]) -> Self {
        Self { areas, stride, runs }
    }

    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.stride * size_of::<T>()
    }
}

/// Goes over some rows of a set, a block at a time.
pub(crate) struct Cursor<'a, T> {
    set: RowSet<'a, T>,
    /// The run of the next row, and how many of its rows are gone over.
    run: usize,
    done: usize,
    /// Rows that are left.
    left: usize,
}

impl<'a, T> Cursor<'a, T> {
    /// Rows `part` of the set, numbered in the order of the runs.
    #[inline(always)]
    pub(crate) fn new(set: &RowSet<'a, T>, part: Range<usize>) -> Self {
        let mut cursor = Self { set: *set, run: 0, done: 0, left: part.end };
        cursor.skip(part.start);
        cursor
    }

    /// Leaves out the next `rows` rows.
    #[inline(always)]
    fn skip(&mut self, rows: usize) {
        let mut rows = rows.min(self.left);
        self.left -= rows;
        while rows > 0 {
            let Some(run) = self.set.runs.get(self.run) else { return };
            let step = rows.min(run.len as usize - self.done);
            self.advance(step, run);
            rows -= step;
        }
    }

    #[inline(always)]
    fn advance(&mut self, rows: usize, run: &Run) {
        self.done += rows;
        if self.done == run.len as usize {
            (self.run, self.done) = (self.run + 1, 0);
        }
    }

    /// Makes the next rows, up to [`BLOCK`] of them, those of `block`; none behind the last one. Blocks are filled where they are and
    /// never moved: a copy right after their addresses were stored, one by one, waits until everything before has ended, reads from
    /// memory too (AVX2 read .59 of a stream so in dense decode, and .73 without).
    #[inline(always)]
    pub(crate) fn fill(&mut self, block: &mut Block<'a, T>) {
        let wanted = BLOCK.min(self.left);
        block.rows.clear(self.set.stride);
        let mut len = 0;
        while len < wanted {
            let Some(run) = self.set.runs.get(self.run) else { break };
            let count = (wanted - len).min(run.len as usize - self.done);
            let first = (run.start as usize + self.done) * self.set.stride;
            let elements = &self.set.areas[run.area as usize][first..][..count * self.set.stride];
            block.rows.set(len, elements);
            len += count;
            self.advance(count, run);
        }
        self.left -= len;
        block.rows.repeat_last(len);
        block.len = len;
    }
}

/// Rows of a block: its scores, keys and values stay in the first caches, and the time that a block takes is what memory
/// has to bring the next ones. Blocks of 64 rows are 5% faster where rows are cached; from memory they were 5–10% slower on
/// Zen 4, where two blocks fill L1.
pub(crate) const BLOCK: usize = 32;

/// The rows of a block. What lies beyond the set repeats its last row: kernels work on whole tiles, and the weights
/// of what they compute too much are zero.
pub(crate) struct Block<'a, T> {
    pub(crate) rows: EqualRows<'a, T, BLOCK>,
    /// Rows that are not repetitions.
    pub(crate) len: usize,
}

impl<T> Default for Block<'_, T> {
    #[inline(always)]
    fn default() -> Self {
        Self { rows: EqualRows::new(), len: 0 }
    }
}
