//! The estimate itself: one product of the codes' weights with their sums of values, for the whole group.

use super::{
    NEGLIGIBLE, Rest, STRIP, Sums,
    strips::{self, CHUNK, Chunk, Number, Strips, place},
};
use crate::{
    attention::Partial,
    dtype::{Element, Elements},
    kv::row_width,
    memory::Aligned,
    simd::Simd,
};
use std::cell::Cell;

/// Taken off all weights, of which 1 is the largest: 2⁻⁶⁴.
const LEAST_WEIGHT: f32 = 1.0 / 18_446_744_073_709_551_616.0;

/// Slots whose marks are the bits of a word.
const BLOCK: usize = u32::BITS as usize;

/// Adds the estimate to `out`, attention over the rows that are attended. Gives how many codes were read.
#[inline(always)]
pub(crate) fn attend_rest<S: Simd>(s: S, rest: &Rest<'_>, out: &mut Partial) -> usize {
    if rest.codes.is_empty() {
        return 0;
    }
    let mut memory = MEMORY.take();
    let mut weights = Weights::new(s, rest, out, &mut memory);
    let (group, head_dim) = (rest.offsets.len(), rest.rows.head_dim());
    let width = row_width(head_dim);
    let mut sums = Aligned::zeros(group * width);
    match rest.rows.elements() {
        Elements::F32(rows) => take_out(s, rows, rest, &weights, &mut sums),
        Elements::F16(rows) => take_out(s, rows, rest, &weights, &mut sums),
        Elements::Bf16(rows) => take_out(s, rows, rest, &weights, &mut sums),
    }
    match rest.sums {
        Sums::F32(numbers) => add_sums(s, numbers, &weights, &mut sums),
        Sums::Quantized { numbers, scales } => {
            weights.scale(scales);
            add_sums(s, numbers, &weights, &mut sums);
        }
    }
    let mut tail = Partial::default();
    tail.reset(group, head_dim);
    tail.largest.copy_from_slice(&weights.largest);
    tail.sum.copy_from_slice(&weights.sum);
    for (to, from) in tail.values.chunks_exact_mut(head_dim).zip(sums.chunks_exact(width)) {
        to.copy_from_slice(&from[..head_dim]);
    }
    out.merge_same(&tail);
    let read = weights.chosen.as_ref().map_or(rest.codes.len(), Vec::len);
    MEMORY.set(memory);
    read
}

/// What is computed for each slot.
#[derive(Default)]
struct Memory {
    /// `[group, stride]`: estimates, then weights.
    of: Aligned,
    /// `[stride]`: what is left.
    left: Aligned,
    /// `[stride]`: −∞ where nothing is left, else 0.
    floor: Aligned,
}

thread_local! {
    /// Kept, because pages that are given back cost a fault each: a tenth of the time.
    static MEMORY: Cell<Memory> = Cell::default();
}

/// e^{ŝ − largest ŝ} of every slot that something is left of.
struct Weights<'a> {
    slots: usize,
    /// `[group, stride]`, zero for what is skipped.
    of: &'a mut [f32],
    stride: usize,
    /// `[group]`
    largest: Vec<f32>,
    /// `[group]`: weights times what is left, of all that is not skipped.
    sum: Vec<f32>,
    /// The slots that are not skipped, ascending; nothing, if all are read.
    chosen: Option<Vec<u32>>,
}

impl<'a> Weights<'a> {
    #[inline(always)]
    fn new<S: Simd>(s: S, rest: &Rest<'_>, attended: &Partial, memory: &'a mut Memory) -> Self {
        let (slots, group) = (rest.codes.len(), rest.offsets.len());
        // Whole registers, and whole words of marks.
        let stride = slots.next_multiple_of(BLOCK);
        memory.of.resize(group * stride);
        memory.left.resize(stride);
        memory.floor.resize(stride);
        let Memory { of, left, floor } = memory;
        let mut all = Self {
            slots,
            of,
            stride,
            largest: vec![f32::NEG_INFINITY; group],
            sum: vec![0.0; group],
            chosen: None,
        };
        left[slots..].fill(0.0);
        for (to, &from) in left.iter_mut().zip(rest.left) {
            *to = from as f32;
        }
        for (floor, left) in floor.iter_mut().zip(left.iter()) {
            *floor = if *left > 0.0 { 0.0 } else { f32::NEG_INFINITY };
        }
        let codes = rest.scores.len() / group;
        // As they are once there is room for all.
        let are_in_order =
            slots == codes && rest.codes.iter().zip(0..).all(|(&code, slot)| u32::from(code) == slot);
        let mut matters = vec![0_u32; stride / BLOCK];
        for head in 0..group {
            let of = &mut all.of[head * stride..(head + 1) * stride];
            let scores = &rest.scores[head * codes..(head + 1) * codes];
            of[slots..].fill(0.0);
            if are_in_order {
                of[..slots].copy_from_slice(scores);
            } else {
                for (to, &code) in of.iter_mut().zip(rest.codes) {
                    *to = scores[usize::from(code)];
                }
            }
            let largest = scale_scores(s, of, floor, rest.scale, rest.offsets[head]);
            let (sum, most) = exponentials(s, of, left, largest);
            let attended = attended.sum[head] * (attended.largest[head] - largest).exp();
            // Nothing at all never matters.
            let limit = (NEGLIGIBLE / slots as f32 * attended.max(most)).max(f32::MIN_POSITIVE);
            mark(s, of, left, limit, &mut matters);
            (all.largest[head], all.sum[head]) = (largest, sum);
        }
        all.skip(&matters, left);
        all
    }

    /// Leaves out what does not matter to any query head, if that is half or more: else reading all in their order is faster (a cache
    /// line of quantized numbers is of two slots), and more exact.
    #[inline(always)]
    fn skip(&mut self, matters: &[u32], left: &[f32]) {
        let count: usize = matters.iter().map(|bits| bits.count_ones() as usize).sum();
        if 2 * count > self.slots {
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

    /// Multiplies them by their slots' scales: then they are what multiplies the numbers.
    fn scale(&mut self, scales: &[f32]) {
        for weights in self.of.chunks_exact_mut(self.stride) {
            for (weight, scale) in weights.iter_mut().zip(scales) {
                *weight *= scale;
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
/// (Asking memory meanwhile for where the sums begin gained nothing.)
#[inline(always)]
fn exponentials<S: Simd>(s: S, x: &mut [f32], left: &[f32], largest: f32) -> (f32, f32) {
    if largest == f32::NEG_INFINITY {
        x.fill(0.0);
        return (0.0, 0.0);
    }
    let reference = s.splat(largest);
    for x in x.chunks_exact_mut(S::LANES) {
        s.store(s.exp(s.sub(s.load(x), reference)), x);
    }
    let (mut sum, mut most) = (s.splat(0.0), s.splat(0.0));
    for (x, left) in x.chunks_exact_mut(S::LANES).zip(left.chunks_exact(S::LANES)) {
        // What this leaves, times a scale, is in the range of f32 where values are; none that it changes matters.
        let weight = s.max(s.sub(s.load(x), s.splat(LEAST_WEIGHT)), s.splat(0.0));
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

/// Adds the sums of all slots that are not skipped.
#[inline(always)]
fn add_sums<S: Simd, T: Number>(s: S, numbers: &[T], weights: &Weights<'_>, sums: &mut [f32]) {
    let group = weights.largest.len();
    let (width, slots) = (sums.len() / group, weights.slots);
    let Some(chosen) = &weights.chosen else {
        strips::add(s, &Strips { numbers, width, slots }, weights.of, weights.stride, sums);
        return;
    };
    let room = numbers.len() / width;
    let mut chunk = Chunk::new(width, group);
    for (at, some) in chosen.chunks(CHUNK).enumerate() {
        for &slot in chosen.iter().skip((at + 1) * CHUNK).take(CHUNK) {
            for strip in 0..width / STRIP {
                s.prefetch_l2(numbers[place(strip, room, slot as usize)..].as_ptr().cast());
            }
        }
        for slot in some.iter().map(|&slot| slot as usize) {
            chunk.push(
                |strip, to| to.copy_from_slice(&numbers[place(strip, room, slot)..][..STRIP]),
                |head| weights.of(head, slot),
            );
        }
        chunk.add_to(s, sums);
    }
}

/// Takes the values of attended rows, which attention has just read, out of their codes' sums. A skipped code's weights are
/// zero.
#[inline(always)]
fn take_out<S: Simd, T: Element>(s: S, rows: &[T], rest: &Rest<'_>, weights: &Weights<'_>, sums: &mut [f32]) {
    let (group, width) = (weights.largest.len(), row_width(rest.rows.head_dim()));
    let mut chunk = Chunk::new(width, group);
    for (positions, slots) in rest.boundary.chunks(CHUNK).zip(rest.boundary_slots.chunks(CHUNK)) {
        for (&position, &slot) in positions.iter().zip(slots) {
            let value = &rows[(2 * position as usize + 1) * width..][..width];
            chunk.push(
                |strip, to| T::widen(s, &value[strip * STRIP..][..STRIP], to),
                |head| -weights.of(head, usize::from(slot)),
            );
        }
        chunk.add_to(s, sums);
    }
}
