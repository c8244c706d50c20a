//! Asking memory for rows while others are worked on.
//!
//! Rows are asked for at two distances, into the first cache what is needed next and into the second what is needed later.
//! Both are needed: rows that are still on their way to L2 when they are loaded stall everything behind them, and a load
//! that finds its row in L2 waits for one of the few line buffers of L1, which what was asked for from memory occupies. On
//! one Emerald Rapids core a row of 512 bytes takes 20 ns to work on and 30 ns to read; both together took 48 ns with
//! only L2 asked, a block ahead, 50 ns with only L1 asked, 82 ns with nothing asked, and 39 ns with both.
//!
//! A line is asked for with each line that is gone over. Asking for a whole block at once was hardly better than not at all
//! (75 ns): the core stalls until the last of its requests has found a line buffer.

use crate::{rows::Block, simd::Simd};

/// What asks memory for elements that come later while some are gone over.
pub(crate) trait Prefetch {
    /// Whether it asks for anything with this group of rows of a block.
    fn asks(&self, _group: usize) -> bool {
        true
    }

    /// Asks for what is due when the kernel goes over `elements` of `R` rows: of the rows from `row` on the elements
    /// from `from` on.
    fn advance<S: Simd, T, const R: usize>(&self, s: S, row: usize, from: usize, elements: [&[T]; R]);
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// How many lines begin in elements from `from` on. Narrow registers go over a line in several steps.
#[inline(always)]
fn lines<T>(from: usize, elements: &[T]) -> usize {
    let begins = size_of_val(elements) >= LINE || (from * size_of::<T>()).is_multiple_of(LINE);
    if begins { size_of_val(elements).div_ceil(LINE) } else { 0 }
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
    fn advance<S: Simd, T, const R: usize>(&self, s: S, _row: usize, from: usize, elements: [&[T]; R]) {
        for elements in elements {
            let start: *const u8 = elements.as_ptr().cast();
            for line in 0..lines(from, elements) {
                s.prefetch_l1(start.wrapping_add(self.near + line * LINE));
                s.prefetch_l2(start.wrapping_add(self.far + line * LINE));
            }
        }
    }
}

/// For rows anywhere: the same elements of the same rows of other blocks.
pub(crate) struct Ahead<'b, 'a, T> {
    near: &'b Block<'a, T>,
    near_from: usize,
    far: &'b Block<'a, T>,
    far_from: usize,
    tile: usize,
    tiles: usize,
}

impl<'b, 'a, T> Ahead<'b, 'a, T> {
    /// The block needed next and the one needed later, each with the element that what is asked for begins with.
    ///
    /// Rows are gone over by `tiles` tiles of queries in turn, of which this is number `tile`: each asks for its share.
    #[inline(always)]
    pub(crate) fn new(
        near: (&'b Block<'a, T>, usize),
        far: (&'b Block<'a, T>, usize),
        tile: usize,
        tiles: usize,
    ) -> Self {
        let ((near, near_from), (far, far_from)) = (near, far);
        Self { near, near_from, far, far_from, tile, tiles }
    }

    /// Asks for all of a block at once: the first ones of a set.
    #[inline(always)]
    pub(crate) fn whole<S: Simd>(s: S, block: &Block<'a, T>) {
        if block.len > 0 {
            for row in block.rows::<{ crate::rows::BLOCK }>(0) {
                for line in 0..lines(0, row) {
                    s.prefetch_l2(row.as_ptr().cast::<u8>().wrapping_add(line * LINE));
                }
            }
        }
    }
}

impl<T> Prefetch for Ahead<'_, '_, T> {
    #[inline(always)]
    fn asks(&self, group: usize) -> bool {
        self.tiles == 1 || group as u32 % self.tiles as u32 == self.tile as u32
    }

    #[inline(always)]
    fn advance<S: Simd, E, const R: usize>(&self, s: S, row: usize, from: usize, elements: [&[E]; R]) {
        let (near, far) = (self.near.rows::<R>(row), self.far.rows::<R>(row));
        // Zipped, the arrays' iterators would be called, not inlined.
        for r in 0..R {
            let near: *const u8 = near[r].as_ptr().wrapping_add(self.near_from + from).cast();
            let far: *const u8 = far[r].as_ptr().wrapping_add(self.far_from + from).cast();
            for line in 0..lines(from, elements[r]) {
                s.prefetch_l1(near.wrapping_add(line * LINE));
                s.prefetch_l2(far.wrapping_add(line * LINE));
            }
        }
    }
}
