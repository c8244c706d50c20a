//! The sums of all codes times their weights: one pass over a table, for the whole group.
//!
//! ```text
//! for each strip of 16 columns (four of them at once on AVX-512):
//!     for each tile of H queries:
//!         sums[H][16] = 0
//!         for each slot: sums += weights[H][slot] · numbers[strip][slot][16]
//! ```
//!
//! For as many columns as there are registers for a group's sums, all slots follow one another in memory. Row by row, as KV rows
//! lie, a block of rows had to be gone through once for each part of the columns; that read .60 of what memory gives on AVX-512 and
//! .50 on AVX2 (Granite Rapids), strips read .68 and .59.

use super::sums::{STRIP, place};
use crate::{
    microkernel::{
        dot::{query_tiles, with_tile_width},
        walk::LockStep,
    },
    simd::Simd,
};
use std::ops::Range;

/// How far ahead a strip is prefetched, in bytes. On Granite Rapids 2 to 4 KiB are best; without, the four
/// strips that AVX-512 reads at once come a tenth slower, and the one that AVX2 reads a quarter.
const AHEAD: usize = 4 << 10;

/// What sums are stored as.
pub(crate) trait Number: bytemuck::Pod + Send + Sync {
    /// LANES numbers as f32.
    fn load<S: Simd>(s: S, from: &[Self]) -> S::F32;
}

impl Number for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self]) -> S::F32 {
        s.load(from)
    }
}

impl Number for i8 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self]) -> S::F32 {
        s.load_i8(from)
    }
}

/// A table in strips.
#[derive(Clone)]
pub(super) struct Strips<'a, T> {
    /// `[width / STRIP, slots, STRIP]`
    pub(super) numbers: &'a [T],
    pub(super) width: usize,
    /// The slots that are looked at.
    pub(super) slots: Range<usize>,
}

impl<'a, T> Strips<'a, T> {
    /// These slots of a strip.
    fn strip(&self, strip: usize) -> &'a [T] {
        let all = self.numbers.len() / self.width;
        &self.numbers[place(strip, all, self.slots.start)..][..self.slots.len() * STRIP]
    }
}

/// Adds each slot times its weights: those are `[group, stride]` and begin at place `at` of each query's; `sums` is `[group, width]`.
#[inline(never)]
pub(super) fn add<S: Simd, T: Number>(
    s: S,
    strips: &Strips<'_, T>,
    (weights, stride, at): (&[f32], usize, usize),
    sums: &mut [f32],
) {
    s.vectorize(
        #[inline(always)]
        || {
            let (width, group) = (strips.width, sums.len() / strips.width);
            let mut strip = 0;
            while strip < width / STRIP {
                let left = width / STRIP - strip;
                let many = S::REGISTERS >= 32 && S::LANES == STRIP && left >= 4;
                for (first, tile) in query_tiles(group, most_queries::<S>()) {
                    let weights = &weights[first * stride..(first + tile) * stride];
                    let sums = &mut sums[first * width..(first + tile) * width];
                    with_tile_width!(most_queries::<S>(), tile, H => {
                        if many {
                            add_strips::<S, T, 4, H>(s, strips, strip, (weights, stride, at), sums);
                        } else {
                            add_strips::<S, T, 1, H>(s, strips, strip, (weights, stride, at), sums);
                        }
                    });
                }
                strip += if many { 4 } else { 1 };
            }
        },
    );
}

/// Most queries of a tile. Five would do with sixteen registers, were it not that compilers load the weights of all first.
const fn most_queries<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { S::TILE_QUERIES } else { 4 }
}

/// `K` strips from strip `first` on, for `H` queries, whose sums stay in registers.
#[inline(always)]
fn add_strips<S: Simd, T: Number, const K: usize, const H: usize>(
    s: S,
    strips: &Strips<'_, T>,
    first: usize,
    (weights, stride, at): (&[f32], usize, usize),
    sums: &mut [f32],
) {
    let width = strips.width;
    // Registers of a strip; loops over a constant number of them keep the sums in registers.
    let vectors = STRIP / S::LANES;
    let mut registers = [[[s.splat(0.0); 4]; K]; H];
    let mut rows = [&[][..]; K];
    for (k, rows) in rows.iter_mut().enumerate() {
        *rows = strips.strip(first + k);
    }
    let mut of_queries = [&[][..]; H];
    for (weights, of_query) in weights.chunks_exact(stride).zip(&mut of_queries) {
        *of_query = &weights[at..at + strips.slots.len()];
    }
    for (rows, weights) in LockStep::new(rows, of_queries, strips.slots.len(), (STRIP, 1)) {
        let mut wide = [[s.splat(0.0); 4]; K];
        for k in 0..K {
            for v in 0..vectors {
                wide[k][v] = T::load(s, &rows[k][v * S::LANES..][..S::LANES]);
            }
        }
        for h in 0..H {
            for (k, row) in rows.iter().enumerate() {
                // Spread over the queries: requests in a row wait for each other. Asking for the lines of quantized numbers,
                // which are of two slots, only once gained nothing.
                if k * H / K == h {
                    s.prefetch_l2(row.as_ptr().cast::<u8>().wrapping_add(AHEAD));
                }
            }
            let weight = s.splat(weights[h][0]);
            for k in 0..K {
                for v in 0..vectors {
                    registers[h][k][v] = s.mul_add(wide[k][v], weight, registers[h][k][v]);
                }
            }
        }
    }
    for h in 0..H {
        for k in 0..K {
            for v in 0..vectors {
                let sums = &mut sums[h * width + (first + k) * STRIP + v * S::LANES..][..S::LANES];
                s.store(s.add(s.load(sums), registers[h][k][v]), sums);
            }
        }
    }
}
