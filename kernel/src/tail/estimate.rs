//! The estimate itself: one product of the codes' weights with their sums of values, for the whole group.

use super::{NEGLIGIBLE, Rest, Sums};
use crate::{
    attention::{Partial, weigh_block},
    beside::{Beside, Later, ask_for_whole},
    dtype::{Element, Elements},
    kv::{Rows, row_width},
    memory::Aligned,
    rows::{BLOCK, Block, RowSet},
    simd::Simd,
    tile::sharing_tiles,
};

/// How far ahead memory is asked for rows, in bytes.
const AHEAD: usize = 64 << 10;

/// Adds the estimate to `out`, attention over the rows that are attended. Gives how many codes were read.
#[inline(always)]
pub(crate) fn attend_rest<S: Simd>(s: S, rest: &Rest<'_>, out: &mut Partial) -> usize {
    if rest.codes.is_empty() {
        return 0;
    }
    let weights = Weights::new(s, rest, out);
    let head_dim = rest.rows.head_dim();
    let width = row_width(head_dim);
    let mut tail = Partial::default();
    tail.reset(rest.offsets.len(), head_dim);
    tail.largest.copy_from_slice(&weights.largest);
    tail.sum.copy_from_slice(&weights.sum);
    let chosen = weights.chosen.as_deref();
    match rest.sums {
        Sums::F32(sums) => {
            add_rows(
                s,
                &RowSet::new(sums, width, chosen),
                &|h, at, to| weights.of_sums(h, at, to),
                &mut tail,
            );
        }
        Sums::Quantized { numbers, scales } => {
            let fill = |head: usize, start: usize, block: &mut [f32]| {
                weights.of_sums(head, start, block);
                match chosen {
                    None => scale_block(block, scales[start..].iter()),
                    Some(chosen) => {
                        scale_block(block, chosen[start..].iter().map(|&slot| &scales[slot as usize]))
                    }
                }
            };
            add_rows(s, &RowSet::new(numbers, width, chosen), &fill, &mut tail);
        }
    }
    for (positions, slots) in rest.boundary.chunks(TAKEN_OUT).zip(rest.boundary_slots.chunks(TAKEN_OUT)) {
        take_out(s, rest.rows, positions, slots, &weights, &mut tail);
    }
    out.merge_same(&tail);
    chosen.map_or(rest.codes.len(), <[u32]>::len)
}

/// e^{ŝ − largest ŝ} of every slot that something is left of.
struct Weights {
    /// `[group, stride]`, zero for what is skipped.
    of: Aligned,
    stride: usize,
    /// `[group]`
    largest: Vec<f32>,
    /// `[group]`: weights times what is left, of all that is not skipped.
    sum: Vec<f32>,
    /// The slots that are not skipped, ascending; nothing, if all are read.
    chosen: Option<Vec<u32>>,
}

impl Weights {
    #[inline(always)]
    fn new<S: Simd>(s: S, rest: &Rest<'_>, attended: &Partial) -> Self {
        let (slots, group) = (rest.codes.len(), rest.offsets.len());
        // Whole blocks, so that these are what is weighed where nothing is skipped.
        let stride = slots.next_multiple_of(BLOCK);
        let mut all = Self {
            of: Aligned::zeros(group * stride),
            stride,
            largest: vec![f32::NEG_INFINITY; group],
            sum: vec![0.0; group],
            chosen: None,
        };
        // What is left, and −∞ where nothing is.
        let (mut left, mut floor) = (Aligned::zeros(stride), Aligned::zeros(stride));
        for (to, &from) in left.iter_mut().zip(rest.left) {
            *to = from as f32;
        }
        for (floor, left) in floor.iter_mut().zip(left.iter()) {
            *floor = if *left > 0.0 { 0.0 } else { f32::NEG_INFINITY };
        }
        let codes = rest.scores.len() / group;
        let mut matters = vec![0_u32; stride / BLOCK];
        for head in 0..group {
            let of = &mut all.of[head * stride..(head + 1) * stride];
            let scores = &rest.scores[head * codes..(head + 1) * codes];
            for (to, &code) in of.iter_mut().zip(rest.codes) {
                *to = scores[usize::from(code)];
            }
            let largest = scale_scores(s, of, &floor, rest.scale, rest.offsets[head]);
            let (sum, most) = exponentials(s, of, &left, largest);
            let attended = attended.sum[head] * (attended.largest[head] - largest).exp();
            // Nothing at all never matters.
            let limit = (NEGLIGIBLE / slots as f32 * attended.max(most)).max(f32::MIN_POSITIVE);
            mark(s, of, &left, limit, &mut matters);
            (all.largest[head], all.sum[head]) = (largest, sum);
        }
        all.skip(&matters, &left, slots);
        all
    }

    /// Leaves out what does not matter to any query head, if that is much: else reading all in their order is faster, and more exact.
    #[inline(always)]
    fn skip(&mut self, matters: &[u32], left: &[f32], slots: usize) {
        let count: usize = matters.iter().map(|bits| bits.count_ones() as usize).sum();
        if 3 * count > 2 * slots {
            return;
        }
        let mut chosen = Vec::with_capacity(count);
        for (block, &bits) in matters.iter().enumerate() {
            let mut bits = bits;
            while bits != 0 {
                chosen.push((block * BLOCK) as u32 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
        for (of, sum) in self.of.chunks_exact_mut(self.stride).zip(&mut self.sum) {
            *sum = 0.0;
            for ((weights, left), &bits) in
                of.chunks_exact_mut(BLOCK).zip(left.chunks_exact(BLOCK)).zip(matters)
            {
                for (i, (weight, left)) in weights.iter_mut().zip(left).enumerate() {
                    *weight = if bits >> i & 1 == 1 { *weight } else { 0.0 };
                    *sum += *weight * left;
                }
            }
        }
        self.chosen = Some(chosen);
    }

    /// A query head's weights of the slots that are read, from one of them on.
    #[inline(always)]
    fn of_sums(&self, head: usize, start: usize, block: &mut [f32]) {
        match &self.chosen {
            None => block.copy_from_slice(&self.of[head * self.stride + start..][..BLOCK]),
            Some(chosen) => {
                for (weight, &slot) in block.iter_mut().zip(&chosen[start..]) {
                    *weight = self.of(head, slot as usize);
                }
            }
        }
    }

    fn of(&self, head: usize, slot: usize) -> f32 {
        self.of[head * self.stride + slot]
    }
}

/// Scores to estimates, −∞ where the floor is; gives the largest.
#[inline(always)]
fn scale_scores<S: Simd>(s: S, scores: &mut [f32], floor: &[f32], scale: f32, offset: f32) -> f32 {
    let (scale, offset) = (s.splat(scale), s.splat(offset));
    let mut top = s.splat(f32::NEG_INFINITY);
    for (scores, floor) in scores.chunks_exact_mut(S::LANES).zip(floor.chunks_exact(S::LANES)) {
        let estimate = s.add(s.mul_add(s.load(scores), scale, offset), s.load(floor));
        top = s.max(top, estimate);
        s.store(estimate, scores);
    }
    s.reduce_max(top)
}

/// Replaces numbers by e^{x − largest}; zeros, if that is −∞. Gives the sum of them times what is left, and the largest of those.
#[inline(always)]
fn exponentials<S: Simd>(s: S, x: &mut [f32], left: &[f32], largest: f32) -> (f32, f32) {
    if largest == f32::NEG_INFINITY {
        x.fill(0.0);
        return (0.0, 0.0);
    }
    let reference = s.splat(largest);
    let (mut sum, mut most) = (s.splat(0.0), s.splat(0.0));
    for (x, left) in x.chunks_exact_mut(S::LANES).zip(left.chunks_exact(S::LANES)) {
        let weight = s.exp(s.sub(s.load(x), reference));
        s.store(weight, x);
        let mass = s.mul(weight, s.load(left));
        (sum, most) = (s.add(sum, mass), s.max(most, mass));
    }
    (s.reduce_add(sum), s.reduce_max(most))
}

/// Sets a bit for each weight that, times what is left, is at least `limit`.
#[inline(always)]
fn mark<S: Simd>(s: S, weights: &[f32], left: &[f32], limit: f32, matters: &mut [u32]) {
    let limit = s.splat(limit);
    for (at, (weights, left)) in weights.chunks_exact(S::LANES).zip(left.chunks_exact(S::LANES)).enumerate() {
        let bits = s.at_least(s.mul(s.load(weights), s.load(left)), limit);
        matters[at * S::LANES / BLOCK] |= bits << (at * S::LANES % BLOCK);
    }
}

/// Attended rows whose values are taken out at a time.
const TAKEN_OUT: usize = 8 * BLOCK;

/// Takes the values of attended rows out of their codes' sums. A skipped code's weights are zero.
#[inline(always)]
fn take_out<S: Simd>(
    s: S,
    rows: Rows<'_>,
    positions: &[u32],
    slots: &[u16],
    weights: &Weights,
    out: &mut Partial,
) {
    let width = row_width(rows.head_dim());
    let mut values = Aligned::zeros(positions.len() * width);
    match rows.elements() {
        Elements::F32(rows) => widen_values(s, rows, positions, &mut values, width),
        Elements::F16(rows) => widen_values(s, rows, positions, &mut values, width),
        Elements::Bf16(rows) => widen_values(s, rows, positions, &mut values, width),
    }
    let fill = |head: usize, start: usize, block: &mut [f32]| {
        for (weight, &slot) in block.iter_mut().zip(&slots[start..]) {
            *weight = -weights.of(head, usize::from(slot));
        }
    };
    add_rows(s, &RowSet::new(&values, width, None), &fill, out);
}

/// The values of the rows at some positions, which attention has just read.
#[inline(always)]
fn widen_values<S: Simd, T: Element>(s: S, rows: &[T], positions: &[u32], to: &mut [f32], width: usize) {
    for (&position, to) in positions.iter().zip(to.chunks_exact_mut(width)) {
        let value = (2 * position as usize + 1) * width;
        T::widen(s, &rows[value..value + width], to);
    }
}

/// Weights of a block's slots times their scales.
#[inline(always)]
fn scale_block<'a>(block: &mut [f32], scales: impl Iterator<Item = &'a f32>) {
    for (weight, scale) in block.iter_mut().zip(scales) {
        *weight *= scale;
    }
}

/// Who gives a query head's weights of a block, from a row of a set on. Zeros are there already, for what lies beyond. Called
/// through a pointer, so that there is one loop for each type of rows.
type Fill<'a> = &'a dyn Fn(usize, usize, &mut [f32]);

/// Adds some rows, weighted.
#[inline(never)]
fn add_rows<S: Simd, T: Element>(s: S, set: &RowSet<'_, T>, fill: Fill<'_>, out: &mut Partial) {
    s.vectorize(
        #[inline(always)]
        || {
            let (group, width) = (out.largest.len(), row_width(out.head_dim));
            let mut sums = Aligned::zeros(group * width);
            let mut weights = Aligned::zeros(group * BLOCK);
            let tiles = sharing_tiles::<S>(group);
            let far = AHEAD.div_ceil(set.stride * size_of::<T>()).next_multiple_of(BLOCK);
            for start in (0..far).step_by(BLOCK) {
                ask_for_whole(s, set, start);
            }
            let mut next = Block::new(set, 0);
            for start in (0..set.len()).step_by(BLOCK) {
                let block = std::mem::replace(&mut next, Block::new(set, start + BLOCK));
                let later = Later::new(set, start + far);
                let mut lines = later.lines();
                if block.len < BLOCK {
                    weights.fill(0.0);
                }
                for (head, weights) in weights.chunks_exact_mut(BLOCK).enumerate() {
                    fill(head, start, weights);
                }
                // Behind the last block, what is there already is asked for again.
                let soon = if next.len > 0 { &next } else { &block };
                for &(first, tile, share) in &tiles {
                    let mut ahead = Beside::new(lines, share, soon, 0);
                    let weights = &weights[first * BLOCK..(first + tile) * BLOCK];
                    let sums = &mut sums[first * width..(first + tile) * width];
                    weigh_block(s, &block, &mut ahead, weights, 0, width, sums);
                    lines = ahead.lines;
                }
            }
            // Neither f32 nor i16 changes the order of elements.
            for (to, from) in out.values.chunks_exact_mut(out.head_dim).zip(sums.chunks_exact(width)) {
                for (to, from) in to.iter_mut().zip(from) {
                    *to += from;
                }
            }
        },
    );
}
