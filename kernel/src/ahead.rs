//! Asking memory for rows while others are worked on.

use crate::{rows::Block, simd::Simd};

/// What asks memory for rows that come later while some are gone over.
pub(crate) trait Prefetch {
    /// Asks for what is due when the kernel goes over these elements of some rows.
    fn advance<S: Simd, T, const R: usize>(&mut self, s: S, elements: [&[T]; R]);
}

/// For rows that follow each other in memory: what lies so many bytes on.
pub(crate) struct Onward {
    /// Asked for into the first cache.
    pub(crate) near: usize,
    /// Asked for into the second cache.
    pub(crate) far: usize,
}

impl Prefetch for Onward {
    #[inline(always)]
    fn advance<S: Simd, T, const R: usize>(&mut self, s: S, elements: [&[T]; R]) {
        for elements in elements {
            let start: *const u8 = elements.as_ptr().cast();
            for line in (0..size_of_val(elements)).step_by(64) {
                s.prefetch_l1(start.wrapping_add(self.near + line));
                s.prefetch_l2(start.wrapping_add(self.far + line));
            }
        }
    }
}

/// For blocks of rows anywhere: what is asked for during one phase of the work on a block, spread evenly over it: one part of all the rows of a block
/// needed soon, into the first cache, and as many bytes of a block needed later, into the second.
///
/// Both distances are needed. Rows that are still on their way to L2 when they are loaded stall everything behind them; and
/// a load that finds its row in L2 waits for one of the few line buffers of L1, which what was asked for from memory occupies.
/// On one Emerald Rapids core a row of 512 bytes takes 20 ns to work on and 30 ns to read; both together took 48 ns
/// with only L2 asked, a block ahead, 50 ns with only L1 asked, 82 ns with nothing asked, and 39 ns with both. Asking for a
/// whole block at once was hardly better than not at all: the core stalls until the last of its requests has found a
/// line buffer.
pub(crate) struct Ahead<'b, 'a, T> {
    near: &'b Block<'a, T>,
    /// Element that the part begins with.
    near_from: usize,
    far: &'b Block<'a, T>,
    /// Row of the far block to begin with.
    far_row: usize,
    /// Whether its rows have two parts.
    halves: bool,
    /// Elements of a part.
    width: usize,
    /// Elements to go over for each part.
    per_part: usize,
    /// Elements gone over since the last part.
    gone: usize,
    /// Parts asked for in this phase.
    asked: usize,
}

impl<'b, 'a, T> Ahead<'b, 'a, T> {
    /// For a phase that goes `passes` times over a part of each row of a block.
    ///
    /// `near` is the block needed next and the element that the part of its rows begins with; `far` is the block needed
    /// later and the row to begin with; a part has `width` elements.
    #[inline(always)]
    pub(crate) fn new(
        near: (&'b Block<'a, T>, usize),
        far: (&'b Block<'a, T>, usize),
        width: usize,
        passes: usize,
    ) -> Self {
        let (near, near_from) = near;
        let (far, far_row) = far;
        // Behind the last block there is nothing to ask for.
        let per_part = if near.len > 0 { passes * width } else { usize::MAX };
        let far = if far.len > 0 { far } else { near };
        let halves = far.row_len() > width;
        Self { near, near_from, far, far_row, halves, width, per_part, gone: 0, asked: 0 }
    }

    /// Asks for all of a block at once: the first ones of a set.
    #[inline(always)]
    pub(crate) fn whole<S: Simd>(s: S, block: &Block<'a, T>) {
        for row in 0..block.len {
            for line in (0..block.row_len() * size_of::<T>()).step_by(64) {
                s.prefetch_l2(block.address(row, 0).wrapping_add(line));
            }
        }
    }

    #[inline(always)]
    fn ask<S: Simd>(&mut self, s: S) {
        let near = self.near.address(self.asked, self.near_from);
        let (row, from) =
            if self.halves { (self.asked / 2, self.asked % 2 * self.width) } else { (self.asked, 0) };
        let far = self.far.address(self.far_row + row, from);
        self.asked += 1;
        // head_dim 128 in two bytes, without a loop.
        if self.width * size_of::<T>() == 256 {
            for line in [0, 64, 128, 192] {
                s.prefetch_l1(near.wrapping_add(line));
                s.prefetch_l2(far.wrapping_add(line));
            }
            return;
        }
        for line in (0..self.width * size_of::<T>()).step_by(64) {
            s.prefetch_l1(near.wrapping_add(line));
            s.prefetch_l2(far.wrapping_add(line));
        }
    }
}

impl<T> Prefetch for Ahead<'_, '_, T> {
    #[inline(always)]
    fn advance<S: Simd, E, const R: usize>(&mut self, s: S, elements: [&[E]; R]) {
        self.gone += R * elements[0].len();
        while self.gone >= self.per_part {
            self.gone -= self.per_part;
            self.ask(s);
        }
    }
}
