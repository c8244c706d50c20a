//! Asking for the rows of a set while others of it are worked on; see `ahead.rs`.

use crate::{
    ahead::{LINE, Prefetch, Share},
    rows::{BLOCK, Block, RowSet},
    simd::Simd,
};

/// Where the rows of a block begin that is to be asked for with the block that is gone over.
pub(crate) struct Later {
    rows: [*const u8; BLOCK],
    /// Bytes of a row.
    row: usize,
}

impl Later {
    /// The rows of a set from `first` on. Behind the last row, that one is asked for again.
    #[inline(always)]
    pub(crate) fn new<T>(set: &RowSet<'_, T>, first: usize) -> Self {
        let mut rows = [std::ptr::null(); BLOCK];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = set.address(first + i).cast();
        }
        Self { rows, row: set.stride * size_of::<T>() }
    }

    /// The lines in the order of memory.
    #[inline(always)]
    pub(crate) fn lines(&self) -> Lines<'_> {
        Lines { later: self, begun: 0, now: std::ptr::null(), next: std::ptr::null(), left: 0, pace: LINE }
    }
}

/// Lines to be asked for, a few with each step. (Where a row is no whole number of steps, its last ones are left out: those
/// of head_dim 96, say.)
#[derive(Clone, Copy)]
pub(crate) struct Lines<'l> {
    later: &'l Later,
    /// How many rows were begun.
    begun: usize,
    /// The first line of this step, and of the next one.
    now: *const u8,
    next: *const u8,
    /// Bytes of the row that are left.
    left: isize,
    /// How far a line of a step takes us: a line, or nothing, which asks for the same ones again.
    pace: usize,
}

impl Lines<'_> {
    /// The next step asks for so many.
    #[inline(always)]
    fn step(&mut self, lines: usize) {
        if self.left <= 0 {
            self.next = self.later.rows[self.begun % BLOCK];
            self.left = self.later.row as isize;
            self.begun += 1;
        }
        self.now = self.next;
        self.next = self.next.wrapping_add(lines * self.pace);
        self.left -= (lines * self.pace) as isize;
    }

    /// Whether lines are asked for now, or the same ones again.
    #[inline(always)]
    fn ask_in_turn(&mut self, asks: bool) {
        self.pace = if asks { LINE } else { 0 };
    }
}

/// Asks for all of a block at once: one of the first of a set.
#[inline(always)]
pub(crate) fn ask_for_whole<S: Simd, T>(s: S, set: &RowSet<'_, T>, first: usize) {
    for row in first..set.len().min(first + BLOCK) {
        let row: *const u8 = set.address(row).cast();
        for line in (0..set.stride * size_of::<T>()).step_by(LINE) {
            s.prefetch_l2(row.wrapping_add(line));
        }
    }
}

/// Most rows that are gone over at once.
const MOST_ROWS: usize = 8;

/// While keys or values of a block are gone over: values or keys of another block next, other rows later. Of several tiles
/// each asks for what is next, which is close by, and only in its turns for what is later.
pub(crate) struct Beside<'l, 'a, T> {
    /// What is left of them.
    pub(crate) lines: Lines<'l>,
    share: Share,
    next: &'l Block<'a, T>,
    /// Elements of a row before what is needed next.
    half: usize,
    /// What is needed next of the rows that are gone over now.
    now: [*const u8; MOST_ROWS],
}

impl<'l, 'a, T> Beside<'l, 'a, T> {
    #[inline(always)]
    pub(crate) fn new(lines: Lines<'l>, share: Share, next: &'l Block<'a, T>, half: usize) -> Self {
        Self { lines, share, next, half, now: [std::ptr::null(); MOST_ROWS] }
    }
}

impl<T> Prefetch for Beside<'_, '_, T> {
    #[inline(always)]
    fn turn<const R: usize>(&mut self, row: usize) {
        self.lines.ask_in_turn(self.share.has(row / R));
        for (now, row) in self.now.iter_mut().zip(self.next.rows.addresses::<R>(row)) {
            *now = row.wrapping_add(self.half).cast();
        }
    }

    #[inline(always)]
    fn step(&mut self, lines: usize) {
        self.lines.step(lines);
    }

    #[inline(always)]
    fn ask<S: Simd>(&self, s: S, line: usize, r: usize, _at: *const u8, from: usize) {
        s.prefetch_l1(self.now[r % MOST_ROWS].wrapping_add(from));
        s.prefetch_l2(self.lines.now.wrapping_add(line * LINE));
    }
}

impl<T> Clone for Beside<'_, '_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Beside<'_, '_, T> {}
