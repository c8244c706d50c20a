//! Which lines of memory are prefetched while rows are gone over, apart from the arithmetic.
//!
//! Rows are prefetched at two distances: into L1 what is needed next, into L2 what is needed later. Both are needed: rows that
//! are still on their way to L2 when they are loaded stall everything behind them, and a load that finds its row in L2 waits for
//! one of the few line buffers of L1, which prefetches from memory occupy. On one Emerald Rapids core a row of 512 bytes takes
//! 20 ns to work on and 30 ns to read; both together took 48 ns with only L2 prefetches, a block ahead, 50 ns with only
//! L1 prefetches, 82 ns with none, and 39 ns with both.
//!
//! How they are spread matters as much. What is needed later is prefetched row by row in the order of memory, keys and values
//! together, a line with each line that is gone over, and the multiplications of a query lie between two requests: so the system's own
//! prefetching sees a stream, and no request waits for the buffer of another. Two Granite Rapids cores then read .83 of a stream in dense
//! decode; with the line prefetched that mirrors the one gone over, keys with keys, .64. With the requests of a step at its beginning a
//! row took 43 ns instead of 32. A whole block at once was hardly better than nothing (75 ns on Emerald Rapids).

use super::{
    block::{BLOCK, Block},
    walk::EqualRows,
};
use crate::simd::Simd;

/// A policy. Kernels copy it, so that it stays in registers during their loops, and put it back.
pub(crate) trait Prefetch: Copy {
    /// The kernel begins with `R` rows of a block, from `row` on.
    fn begin_tile<S: Simd, const R: usize>(&mut self, row: usize);

    /// It begins a step along these rows, in which it goes over `lines` lines.
    fn begin_step(&mut self, lines: usize);

    /// It goes over line number `line` of the step, at address `at`, `offset` bytes from the beginning of its half of row `r` of
    /// those that begin with `row`.
    fn line<S: Simd>(&self, s: S, line: usize, row: usize, r: usize, at: *const u8, offset: usize);
}

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Prefetches what is due in part `part` of `parts` of a step, in which the kernel goes over these elements of `R` rows from `row` on,
/// each from element `from` of its half on. There are no branches in it: compilers would sink multiplications behind them.
#[inline(always)]
pub(crate) fn prefetch_part<S: Simd, T, P: Prefetch, const R: usize>(
    s: S,
    ahead: &mut P,
    (row, from): (usize, usize),
    elements: [&[T]; R],
    (part, parts): (usize, usize),
) {
    let (bytes, from) = (size_of_val(elements[0]), from * size_of::<T>());
    let lines = (R * bytes).div_ceil(LINE);
    if part == 0 {
        ahead.begin_step(lines);
    }
    for line in part * lines / parts..(part + 1) * lines / parts {
        let (r, back, on) = if bytes >= LINE {
            (line % R, 0, line / R * LINE)
        } else {
            // Narrow registers go over a line in several steps: in each of them over the lines of other rows.
            let step = from / bytes % (LINE / bytes);
            ((step * lines + line) % R, step * bytes, 0)
        };
        let at = elements[r].as_ptr().cast::<u8>().wrapping_add(on).wrapping_sub(back);
        ahead.line(s, line, row, r, at, from + on - back);
    }
}

/// No prefetches: rows that are in the caches already.
#[derive(Clone, Copy)]
pub(crate) struct NoPrefetch;

impl Prefetch for NoPrefetch {
    #[inline(always)]
    fn begin_tile<S: Simd, const R: usize>(&mut self, _row: usize) {}

    #[inline(always)]
    fn begin_step(&mut self, _lines: usize) {}

    #[inline(always)]
    fn line<S: Simd>(&self, _s: S, _line: usize, _row: usize, _r: usize, _at: *const u8, _offset: usize) {}
}

/// For rows that follow each other in memory: what lies so many bytes ahead.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    /// Prefetched into L1.
    pub(crate) near: usize,
    /// Prefetched into L2.
    pub(crate) far: usize,
}

impl Prefetch for Stream {
    #[inline(always)]
    fn begin_tile<S: Simd, const R: usize>(&mut self, _row: usize) {}

    #[inline(always)]
    fn begin_step(&mut self, _lines: usize) {}

    #[inline(always)]
    fn line<S: Simd>(&self, s: S, _line: usize, _row: usize, _r: usize, at: *const u8, _offset: usize) {
        s.prefetch_l1(at.wrapping_add(self.near));
        s.prefetch_l2(at.wrapping_add(self.far));
    }
}

/// A tile of queries' share of the prefetches of a block: where several tiles go over the same rows, each prefetches during some of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    /// A bit for each tile of rows.
    mine: u32,
}

impl Share {
    /// The share of tile `number` of `tiles`.
    pub(crate) fn new(number: usize, tiles: usize) -> Self {
        let mine = (0..u32::BITS as usize).filter(|tile_of_rows| tile_of_rows % tiles == number);
        Self { mine: mine.fold(0, |bits, tile_of_rows| bits | 1 << tile_of_rows) }
    }

    #[inline(always)]
    fn has(self, tile_of_rows: usize) -> bool {
        self.mine >> (tile_of_rows % u32::BITS as usize) & 1 == 1
    }
}

/// The lines of a block's rows in the order of memory, a few with each step.
pub(crate) struct Lines<'b, T> {
    rows: &'b [*const T; BLOCK],
    /// Bytes of a row that come with steps: a multiple of the longest step.
    row: isize,
    /// How many rows were begun.
    begun: usize,
    /// The first line of this step, and of the next one.
    now: *const u8,
    next: *const u8,
    /// Bytes of the row that are left.
    left: isize,
    /// What a line of a step takes us on: a line, or nothing, which prefetches the same ones again.
    pace: usize,
}

impl<T> Clone for Lines<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Lines<'_, T> {}

impl<'b, T> Lines<'b, T> {
    /// The lines of rows of `row_bytes`. What a row has beyond whole steps, the longest of which are two registers of four rows, is
    /// prefetched at once: inside of the loops there is no room for it (with two more branches there sums went to the stack, and rows
    /// took twice as long).
    #[inline(always)]
    pub(crate) fn new<S: Simd>(s: S, block: &'b Block<'_, T>, row_bytes: usize) -> Self {
        let rows = block.rows.all_addresses();
        let longest_step = 4 * 2 * S::LANES * size_of::<T>();
        let whole = row_bytes / longest_step * longest_step;
        if whole < row_bytes {
            for row in rows {
                prefetch_bytes(s, row.cast::<u8>().wrapping_add(whole), row_bytes - whole);
            }
        }
        // Without whole steps the beginning of the last row is prefetched again.
        let row = if whole > 0 { whole as isize } else { isize::MAX };
        let begun = if whole > 0 { 0 } else { BLOCK - 1 };
        Self { rows, row, begun, now: std::ptr::null(), next: std::ptr::null(), left: 0, pace: LINE }
    }

    #[inline(always)]
    fn begin_step(&mut self, lines: usize) {
        if self.left <= 0 {
            self.next = self.rows[self.begun % BLOCK].cast();
            self.left = self.row;
            self.begun += 1;
        }
        self.now = self.next;
        self.next = self.next.wrapping_add(lines * self.pace);
        self.left -= (lines * self.pace) as isize;
    }
}

/// Prefetches so many bytes at once.
#[inline(always)]
pub(crate) fn prefetch_bytes<S: Simd>(s: S, start: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(LINE) {
        s.prefetch_l2(start.wrapping_add(line));
    }
}

/// Most rows that are gone over at once.
const MOST_ROWS: usize = 8;

/// While one half of a block's rows is gone over: into L1 a half of another block, which is needed next, and into L2 lines of a
/// block that is needed later.
pub(crate) struct Blocks<'b, 'a, T> {
    /// What is left of those.
    pub(crate) lines: Lines<'b, T>,
    share: Share,
    next: &'b EqualRows<'a, T, BLOCK>,
    /// Elements before the half that is needed next.
    half: usize,
    /// Where that begins for the rows that are gone over, if registers are so wide that compilers know which of them a line is of. If
    /// they don't, an array puts the whole policy on the stack: on AVX2 a row of group 4 took 33 ns from the cache instead of 28,
    /// one of group 8 took 65 instead of 56. (Where they do, without it dense decode on AVX-512 read a fifth less.)
    now: [*const u8; MOST_ROWS],
}

impl<'b, 'a, T> Blocks<'b, 'a, T> {
    #[inline(always)]
    pub(crate) fn new(lines: Lines<'b, T>, share: Share, next: &'b Block<'a, T>, half: usize) -> Self {
        Self { lines, share, next: &next.rows, half, now: [std::ptr::null(); MOST_ROWS] }
    }

    /// Whether a register pair of a row is a line at least.
    const fn wide<S: Simd>() -> bool {
        2 * S::LANES * size_of::<T>() >= LINE
    }
}

impl<T> Prefetch for Blocks<'_, '_, T> {
    #[inline(always)]
    fn begin_tile<S: Simd, const R: usize>(&mut self, row: usize) {
        self.lines.pace = if self.share.has(row / R) { LINE } else { 0 };
        if Self::wide::<S>() {
            for (now, r) in self.now.iter_mut().zip(0..R) {
                *now = self.next.all_addresses()[(row + r) % BLOCK].wrapping_add(self.half).cast();
            }
        }
    }

    #[inline(always)]
    fn begin_step(&mut self, lines: usize) {
        self.lines.begin_step(lines);
    }

    #[inline(always)]
    fn line<S: Simd>(&self, s: S, line: usize, row: usize, r: usize, _at: *const u8, offset: usize) {
        let next = if Self::wide::<S>() {
            self.now[r % MOST_ROWS]
        } else {
            self.next.all_addresses()[(row + r) % BLOCK].wrapping_add(self.half).cast()
        };
        s.prefetch_l1(next.wrapping_add(offset));
        s.prefetch_l2(self.lines.now.wrapping_add(line * LINE));
    }
}

impl<T> Clone for Blocks<'_, '_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Blocks<'_, '_, T> {}

/// Prefetches all of a block at once: one of the first ones.
#[inline(always)]
pub(crate) fn prefetch_block<S: Simd, T>(s: S, block: &Block<'_, T>, row_bytes: usize) {
    for row in &block.rows.all_addresses()[..block.len] {
        prefetch_bytes(s, row.cast(), row_bytes);
    }
}
