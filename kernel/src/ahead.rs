//! Asking memory for rows while others are worked on.
//!
//! Rows are asked for at two distances, into the first cache what is needed next and into the second what is needed later.
//! Both are needed: rows that are still on their way to L2 when they are loaded stall everything behind them, and a load
//! that finds its row in L2 waits for one of the few line buffers of L1, which what was asked for from memory occupies. On
//! one Emerald Rapids core a row of 512 bytes takes 20 ns to work on and 30 ns to read; both together took 48 ns with
//! only L2 asked, a block ahead, 50 ns with only L1 asked, 82 ns with nothing asked, and 39 ns with both.
//!
//! How they are asked for matters as much. What is needed later is asked for row by row in the order of memory, keys and
//! values together, a line with each line that is gone over, and the multiplications of a query lie between two requests: so
//! the system's own prefetching sees a stream, and no request waits for the buffer of another. On a Granite Rapids core a
//! prototype of dense decode, with 15 ns of work a row and 25 ns to read one, took 28 ns a row; with the requests of
//! four lines one after the other 40, with the keys of a block asked for before its values 38, with both 40. The kernel took
//! 32 ns; with the four requests of a step at its beginning 43, with each request tied to a sum, so that no compiler moves
//! it, 38. Asking for a whole block at once was hardly better than not at all (75 ns on Emerald Rapids).

use crate::simd::Simd;

/// What asks memory for what comes later while some rows are gone over.
///
/// Kernels copy it, so that it stays in registers during their loops, and put it back.
pub(crate) trait Prefetch: Copy {
    /// The kernel turns to `R` rows of a block, from `row` on.
    fn turn<const R: usize>(&mut self, row: usize);

    /// It begins a step along these rows, in which it goes over `lines` lines.
    fn step(&mut self, lines: usize);

    /// It goes over line number `line` of the step, which lies at address `at`, byte `from` of row `r` of these rows: asks
    /// for a line that is needed next and for one that is needed later.
    fn ask<S: Simd>(&self, s: S, line: usize, r: usize, at: *const u8, from: usize);
}

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Asks for what is due in part `part` of `parts` of a step, in which the kernel goes over these elements of `R` rows,
/// from element `from` on. There are no branches in it: compilers would sink multiplications behind them.
#[inline(always)]
pub(crate) fn ask_part<S: Simd, T, P: Prefetch, const R: usize>(
    s: S,
    ahead: &mut P,
    from: usize,
    elements: [&[T]; R],
    (part, parts): (usize, usize),
) {
    let (bytes, from) = (size_of_val(elements[0]), from * size_of::<T>());
    let lines = (R * bytes).div_ceil(LINE);
    if part == 0 {
        ahead.step(lines);
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
        ahead.ask(s, line, r, at, from + on - back);
    }
}

/// Asks for nothing: rows that are in the caches already.
#[derive(Clone, Copy)]
pub(crate) struct Nothing;

impl Prefetch for Nothing {
    #[inline(always)]
    fn turn<const R: usize>(&mut self, _row: usize) {}

    #[inline(always)]
    fn step(&mut self, _lines: usize) {}

    #[inline(always)]
    fn ask<S: Simd>(&self, _s: S, _line: usize, _r: usize, _at: *const u8, _from: usize) {}
}

/// For rows that follow each other in memory: what lies so many bytes on.
#[derive(Clone, Copy)]
pub(crate) struct Onward {
    /// Asked for into the first cache.
    pub(crate) near: usize,
    /// Asked for into the second cache.
    pub(crate) far: usize,
}

impl Prefetch for Onward {
    #[inline(always)]
    fn turn<const R: usize>(&mut self, _row: usize) {}

    #[inline(always)]
    fn step(&mut self, _lines: usize) {}

    #[inline(always)]
    fn ask<S: Simd>(&self, s: S, _line: usize, _r: usize, at: *const u8, _from: usize) {
        s.prefetch_l1(at.wrapping_add(self.near));
        s.prefetch_l2(at.wrapping_add(self.far));
    }
}

/// The turns in which a tile of queries asks. Where several tiles go over the same rows, they take turns.
#[derive(Clone, Copy)]
pub(crate) struct Share {
    /// A bit for each turn, of which there are no more.
    turns: u32,
}

impl Share {
    /// The share of tile `number` of `tiles`.
    pub(crate) fn new(number: usize, tiles: usize) -> Self {
        let mine = (0..u32::BITS as usize).filter(|turn| turn % tiles == number);
        Self { turns: mine.fold(0, |turns, turn| turns | 1 << turn) }
    }

    #[inline(always)]
    pub(crate) fn has(self, turn: usize) -> bool {
        self.turns >> (turn % u32::BITS as usize) & 1 == 1
    }
}
