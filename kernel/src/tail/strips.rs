//! The sums of all codes times their weights: one pass over a table, for the whole group.
//!
//! The table lies in strips of [`STRIP`] columns, `[width / STRIP, room, STRIP]`: for as many columns as there are registers for a
//! group's sums, all slots follow one another in memory. Row by row, as KV rows lie, a block of rows had to be gone through
//! once for each part of the columns; that read .60 of what memory gives on AVX-512 and .50 on AVX2 (Granite Rapids), strips
//! read .68 and .59.

use crate::{
    memory::Aligned,
    simd::{LockStep, MAX_LANES, Simd},
    tile::{query_tiles, with_tile_width},
};

/// Columns of a strip: one register of the widest instruction set, and few enough for the sums of four queries to fit sixteen
/// registers of eight lanes.
pub const STRIP: usize = 16;

const _: () = assert!(STRIP == MAX_LANES);

/// How far ahead memory is asked for what follows in a strip, in bytes. On Granite Rapids 2 to 4 KiB are best; without, the four
/// strips that AVX-512 reads at once come a tenth slower, and the one that AVX2 reads a quarter.
const AHEAD: usize = 4 << 10;

/// What sums are stored as.
pub(super) trait Number: bytemuck::Pod + Send + Sync {
    /// LANES numbers as f32.
    fn load<S: Simd>(s: S, from: &[Self]) -> S::F32;
}

impl Number for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self]) -> S::F32 {
        s.load(from)
    }
}

impl Number for i16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self]) -> S::F32 {
        s.load_i16(from)
    }
}

/// Where a strip's part of a slot begins.
#[inline(always)]
pub(super) const fn place(strip: usize, room: usize, slot: usize) -> usize {
    (strip * room + slot) * STRIP
}

/// A table in strips.
#[derive(Clone, Copy)]
pub(super) struct Strips<'a, T> {
    /// `[width / STRIP, room, STRIP]`
    pub(super) numbers: &'a [T],
    pub(super) width: usize,
    /// Slots that there are, of all there is room for.
    pub(super) slots: usize,
}

impl<'a, T> Strips<'a, T> {
    /// All slots of a strip.
    fn strip(&self, strip: usize) -> &'a [T] {
        let room = self.numbers.len() / self.width;
        &self.numbers[place(strip, room, 0)..][..self.slots * STRIP]
    }
}

/// Adds each slot times its weights: `weights` is `[group, stride]`, `sums` is `[group, width]`.
#[inline(never)]
pub(super) fn add<S: Simd, T: Number>(
    s: S,
    strips: &Strips<'_, T>,
    weights: &[f32],
    stride: usize,
    sums: &mut [f32],
) {
    s.vectorize(
        #[inline(always)]
        || {
            let (width, group) = (strips.width, sums.len() / strips.width);
            let mut at = 0;
            while at < width / STRIP {
                let left = width / STRIP - at;
                let many = S::REGISTERS >= 32 && S::LANES == STRIP && left >= 4;
                for (first, tile) in query_tiles(group, most_queries::<S>()) {
                    let weights = &weights[first * stride..(first + tile) * stride];
                    let sums = &mut sums[first * width..(first + tile) * width];
                    with_tile_width!(most_queries::<S>(), tile, H => {
                        if many {
                            add_strips::<S, T, 4, H>(s, strips, at, weights, stride, sums);
                        } else {
                            add_strips::<S, T, 1, H>(s, strips, at, weights, stride, sums);
                        }
                    });
                }
                at += if many { 4 } else { 1 };
            }
        },
    );
}

/// Most queries of a tile. Five would do with sixteen registers, were it not that compilers load the weights of all first.
const fn most_queries<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { S::TILE_QUERIES } else { 4 }
}

/// `K` strips from strip `at` on, for `H` queries, whose sums stay in registers.
#[inline(always)]
fn add_strips<S: Simd, T: Number, const K: usize, const H: usize>(
    s: S,
    strips: &Strips<'_, T>,
    at: usize,
    weights: &[f32],
    stride: usize,
    sums: &mut [f32],
) {
    let width = strips.width;
    // Registers of a strip; loops over a constant number of them keep the sums in registers.
    let vectors = STRIP / S::LANES;
    let mut registers = [[[s.splat(0.0); 4]; K]; H];
    let mut rows = [&[][..]; K];
    for (k, rows) in rows.iter_mut().enumerate() {
        *rows = strips.strip(at + k);
    }
    let mut of_queries = [&[][..]; H];
    for (weights, of_query) in weights.chunks_exact(stride).zip(&mut of_queries) {
        *of_query = &weights[..strips.slots];
    }
    for (rows, weights) in LockStep::new(rows, of_queries, strips.slots, (STRIP, 1)) {
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
                let sums = &mut sums[h * width + (at + k) * STRIP + v * S::LANES..][..S::LANES];
                s.store(s.add(s.load(sums), registers[h][k][v]), sums);
            }
        }
    }
}

/// Slots of a [`Chunk`].
pub(super) const CHUNK: usize = 64;

/// Some slots that are gathered, because not all of a table are wanted, or there is no table of them.
pub(super) struct Chunk<T> {
    numbers: Vec<T>,
    width: usize,
    /// `[group, CHUNK]`
    weights: Aligned,
    slots: usize,
}

impl<T: Number> Chunk<T> {
    pub(super) fn new(width: usize, group: usize) -> Self {
        Self {
            numbers: vec![T::zeroed(); CHUNK * width],
            width,
            weights: Aligned::zeros(group * CHUNK),
            slots: 0,
        }
    }

    /// One more slot: its numbers strip by strip, and its weights by query.
    #[inline(always)]
    pub(super) fn push(&mut self, mut fill: impl FnMut(usize, &mut [T]), weight: impl Fn(usize) -> f32) {
        for strip in 0..self.width / STRIP {
            fill(strip, &mut self.numbers[place(strip, CHUNK, self.slots)..][..STRIP]);
        }
        for (query, weights) in self.weights.chunks_exact_mut(CHUNK).enumerate() {
            weights[self.slots] = weight(query);
        }
        self.slots += 1;
    }

    /// Adds what was gathered to `sums`, and is empty again.
    #[inline(always)]
    pub(super) fn add_to<S: Simd>(&mut self, s: S, sums: &mut [f32]) {
        let strips = Strips { numbers: &self.numbers, width: self.width, slots: self.slots };
        add(s, &strips, &self.weights, CHUNK, sums);
        self.slots = 0;
    }
}
