//! A few inputs: every weight is read once, which is the whole cost. More of them than fit the registers go over the same rows tile by
//! tile.
//!
//! ```text
//! for each chunk of rows, which stays in the second cache:
//!   for each tile of inputs:
//!     for each block of columns, so that the tile's part of it stays in the first cache:
//!       for each tile of rows: sums of lanes, kept in memory from block to block
//!     add up the lanes
//! ```
//!
//! A product's sums are added up in the same order whatever the tiles and blocks are.

use super::inputs::{Inputs, Layout, WIDEST};
use crate::{
    microkernel::{
        dot::{accumulate, reduce},
        prefetch::{NoPrefetch, Stream},
        walk::LockStep,
    },
    simd::{Element, MAX_LANES, Simd},
};

/// How far ahead a row is prefetched into L1, in bytes; into L2 the next tile of rows is.
const NEAR: usize = 512;

/// Columns of a block, a multiple of all blocks of `dot.rs`: of eight inputs they take 16 KiB.
const COLUMNS: usize = 512;

/// Rows of a chunk, where there are several tiles or blocks.
const ROWS: usize = 16;

/// Inputs of a tile up to which rows are gone over from beginning to end: the inputs lie in the first cache as they are.
const NARROW: usize = 5;

/// `elements` is `[rows, cols]`, `out` is `[rows, n]`.
#[inline(always)]
pub(super) fn product<S: Simd, T: Element<S>>(
    s: S,
    elements: &[T],
    inputs: &Inputs,
    layout: &Layout,
    out: &mut [f32],
) {
    let (cols, count) = (layout.purpose.cols, layout.count);
    let is_narrow = count <= NARROW && count <= layout.part_vectors;
    let (columns, rows) = if is_narrow { (cols, elements.len() / cols) } else { (COLUMNS, ROWS) };
    let mut memory: Lanes = [[[0.0; MAX_LANES]; WIDEST]; ROWS];
    for (elements, out) in elements.chunks(rows * cols).zip(out.chunks_mut(rows * count)) {
        for (number, packed) in inputs.values().chunks(layout.part_len).enumerate() {
            let first = number * layout.part_vectors;
            let mut chunk = Chunk { elements, cols, packed, columns, out: &mut *out, first, count };
            let memory = &mut memory;
            match (S::REGISTERS >= 32, layout.part_vectors.min(count - first)) {
                (_, 1) => chunk.multiply::<S, 4, 1>(s, memory),
                (true, 2) => chunk.multiply::<S, 4, 2>(s, memory),
                (true, 3) => chunk.multiply::<S, 4, 3>(s, memory),
                (true, 4) => chunk.multiply::<S, 4, 4>(s, memory),
                (true, 5) => chunk.multiply::<S, 4, 5>(s, memory),
                (true, 6) => chunk.multiply::<S, 2, 6>(s, memory),
                (true, 7) => chunk.multiply::<S, 2, 7>(s, memory),
                (true, _) => chunk.multiply::<S, 2, WIDEST>(s, memory),
                (false, 2) => chunk.multiply::<S, 2, 2>(s, memory),
                (false, 3) => chunk.multiply::<S, 2, 3>(s, memory),
                (false, 4) => chunk.multiply::<S, 2, 4>(s, memory),
                (false, _) => chunk.multiply::<S, 2, 5>(s, memory),
            }
        }
    }
}

/// Some rows, and a tile of inputs.
struct Chunk<'a, T> {
    elements: &'a [T],
    cols: usize,
    packed: &'a [f32],
    /// Columns of a block.
    columns: usize,
    /// `[rows, count]`
    out: &'a mut [f32],
    /// The tile's first input.
    first: usize,
    /// All inputs.
    count: usize,
}

/// The lanes of sums between two blocks of columns, of each row and input.
type Lanes = [[[f32; MAX_LANES]; WIDEST]; ROWS];

impl<T> Chunk<'_, T> {
    #[inline(always)]
    fn multiply<S: Simd, const R: usize, const H: usize>(&mut self, s: S, memory: &mut Lanes)
    where
        T: Element<S>,
    {
        let rows = self.elements.len() / self.cols;
        let row_bytes = self.cols * size_of::<T>();
        if self.columns >= self.cols {
            let mut ahead = Stream { near: NEAR, far: R * row_bytes };
            for row in (0..rows).step_by(R) {
                let sums = self.add_block::<S, R, H>(s, row, 0, [[s.splat(0.0); R]; H], &mut ahead);
                self.finish::<S, R, H>(s, row, sums);
            }
            return;
        }
        let mut ahead = Stream { near: R * row_bytes, far: ROWS * row_bytes };
        for column in (0..self.cols).step_by(self.columns) {
            for (memory, row) in memory.as_chunks_mut::<R>().0.iter_mut().zip((0..rows).step_by(R)) {
                let mut sums = [[s.splat(0.0); R]; H];
                if column > 0 {
                    sums = load(s, memory);
                }
                sums = self.add_block::<S, R, H>(s, row, column, sums, &mut ahead);
                if column + self.columns < self.cols {
                    store(s, sums, memory);
                } else {
                    self.finish::<S, R, H>(s, row, sums);
                }
            }
        }
    }

    /// A tile of rows. Where there are not so many left the last is repeated, and what comes of the repetitions is left out.
    #[inline(always)]
    fn tile<const R: usize>(&self, row: usize) -> [&[T]; R] {
        let mut tile = [&self.elements[self.elements.len() - self.cols..]; R];
        for (to, row) in tile.iter_mut().zip(self.elements[row * self.cols..].chunks_exact(self.cols)) {
            *to = row;
        }
        tile
    }

    /// Adds the products of a block of columns to the sums.
    #[inline(always)]
    fn add_block<S: Simd, const R: usize, const H: usize>(
        &self,
        s: S,
        row: usize,
        column: usize,
        mut sums: [[S::F32; R]; H],
        ahead: &mut Stream,
    ) -> [[S::F32; R]; H]
    where
        T: Element<S>,
    {
        let step = 2 * S::LANES;
        let mut rows = self.tile::<R>(row);
        for row in &mut rows {
            *row = &row[column..];
        }
        let steps = rows[0].len().min(self.columns) / step;
        let packed = &self.packed[column * H..];
        for (i, (rows, [packed])) in LockStep::new(rows, [packed], steps, (step, H * step)).enumerate() {
            accumulate::<S, T, Stream, R, H, true>(s, &mut sums, rows, packed, ahead, (0, column + i * step));
        }
        sums
    }

    /// Adds what is left of the rows behind whole steps, adds up the lanes, and writes the products.
    #[inline(always)]
    fn finish<S: Simd, const R: usize, const H: usize>(
        &mut self,
        s: S,
        row: usize,
        mut sums: [[S::F32; R]; H],
    ) where
        T: Element<S>,
    {
        let step = 2 * S::LANES;
        let whole = self.cols / step * step;
        if whole < self.cols {
            let mut padded = [[T::zeroed(); 2 * MAX_LANES]; R];
            let mut row_blocks = [&[][..]; R];
            for ((padded, row), block) in padded.iter_mut().zip(self.tile::<R>(row)).zip(&mut row_blocks) {
                padded[..self.cols - whole].copy_from_slice(&row[whole..]);
                *block = &padded[..step];
            }
            let packed = &self.packed[whole * H..];
            let nothing = &mut NoPrefetch;
            accumulate::<S, T, NoPrefetch, R, H, true>(s, &mut sums, row_blocks, packed, nothing, (0, 0));
        }
        let products: [[f32; R]; H] = reduce(s, sums);
        for (r, out) in self.out[row * self.count..].chunks_exact_mut(self.count).take(R).enumerate() {
            for (out, products) in out[self.first..].iter_mut().zip(&products) {
                *out = products[r];
            }
        }
    }
}

#[inline(always)]
fn load<S: Simd, const R: usize, const H: usize>(
    s: S,
    memory: &[[[f32; MAX_LANES]; WIDEST]; R],
) -> [[S::F32; R]; H] {
    let mut sums = [[s.splat(0.0); R]; H];
    for (h, sums) in sums.iter_mut().enumerate() {
        for (sum, lanes) in sums.iter_mut().zip(memory) {
            *sum = s.load(&lanes[h]);
        }
    }
    sums
}

#[inline(always)]
fn store<S: Simd, const R: usize, const H: usize>(
    s: S,
    sums: [[S::F32; R]; H],
    memory: &mut [[[f32; MAX_LANES]; WIDEST]; R],
) {
    for (h, sums) in sums.into_iter().enumerate() {
        for (sum, lanes) in sums.into_iter().zip(&mut *memory) {
            s.store(sum, &mut lanes[h]);
        }
    }
}
