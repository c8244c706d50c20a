//! Asking for the rows of a set while others of it are worked on; see `ahead.rs`.

use crate::{
    ahead::{LINE, Prefetch, Share},
    rows::{BLOCK, Block, RowSet},
    simd::Simd,
};

/// Where the rows of a block begin that is to be asked for line by line, with each block that is gone over.
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
        Self { rows, row: (set.stride * size_of::<T>()).next_multiple_of(LINE) }
    }

    /// The lines in the order of memory.
    #[inline(always)]
    pub(crate) fn lines(&self) -> Lines<'_> {
        let mut lines = Lines { later: self, begun: 0, line: std::ptr::null(), left: 0, step: LINE };
        lines.begin_row();
        lines
    }
}

/// The lines of rows, to be asked for one by one. (The rows lie apart from it: beside an array that is indexed, none of this
/// would stay in registers.)
pub(crate) struct Lines<'r> {
    later: &'r Later,
    /// How many rows were begun.
    begun: usize,
    line: *const u8,
    /// Bytes of the present row that are left.
    left: usize,
    /// Bytes from one request to the next: a line, or nothing, which asks for the same one again.
    step: usize,
}

impl Lines<'_> {
    #[inline(always)]
    fn begin_row(&mut self) {
        self.line = self.later.rows[self.begun % BLOCK];
        self.left = self.later.row;
        self.begun += 1;
    }

    /// Asks for the next line.
    #[inline(always)]
    fn ask<S: Simd>(&mut self, s: S) {
        s.prefetch_l2(self.line);
        self.line = self.line.wrapping_add(self.step);
        self.left -= self.step;
        if self.left == 0 {
            self.begin_row();
        }
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

/// While rows, or keys of rows, are gone over: what lies so many bytes behind them next, other rows later.
pub(crate) struct Along<'l, 'r> {
    lines: &'l mut Lines<'r>,
    share: Share,
    behind: usize,
    /// The same, or none in a turn without requests: what is gone over is asked for.
    near: usize,
}

impl<'l, 'r> Along<'l, 'r> {
    #[inline(always)]
    pub(crate) fn new(lines: &'l mut Lines<'r>, share: Share, behind: usize) -> Self {
        Self { lines, share, behind, near: behind }
    }
}

impl Prefetch for Along<'_, '_> {
    #[inline(always)]
    fn turn<const R: usize>(&mut self, row: usize) {
        let asks = self.share.has(row / R);
        self.near = if asks { self.behind } else { 0 };
        self.lines.step = if asks { LINE } else { 0 };
    }

    #[inline(always)]
    fn ask<S: Simd>(&mut self, s: S, _r: usize, at: *const u8, _from: usize) {
        s.prefetch_l1(at.wrapping_add(self.near));
        self.lines.ask(s);
    }
}

/// While values of a block are gone over, two rows at a time: the keys of the next block, other rows later.
pub(crate) struct BesideValues<'l, 'r, 'a, T> {
    lines: &'l mut Lines<'r>,
    share: Share,
    next: &'l Block<'a, T>,
    keys: [*const u8; 2],
}

impl<'l, 'r, 'a, T> BesideValues<'l, 'r, 'a, T> {
    #[inline(always)]
    pub(crate) fn new(lines: &'l mut Lines<'r>, share: Share, next: &'l Block<'a, T>) -> Self {
        Self { lines, share, next, keys: [std::ptr::null(); 2] }
    }
}

impl<T> Prefetch for BesideValues<'_, '_, '_, T> {
    #[inline(always)]
    fn turn<const R: usize>(&mut self, row: usize) {
        self.lines.step = if self.share.has(row / R) { LINE } else { 0 };
        let [first, second] = self.next.rows.addresses::<2>(row);
        self.keys = [first.cast(), second.cast()];
    }

    #[inline(always)]
    fn ask<S: Simd>(&mut self, s: S, r: usize, _at: *const u8, from: usize) {
        s.prefetch_l1(self.keys[r % 2].wrapping_add(from));
        self.lines.ask(s);
    }
}
