//! The small operations between the products: RMSNorm, rotary position embedding, SiLU times gate, softmax.
//!
//! All on f32, any length. Errors against f64: a few units in the last place of the largest number involved.

use crate::{
    error::{Result, expect_len},
    simd::{MAX_LANES, Simd},
};
use std::ops::Range;

/// Cosines and sines of one position, `[head_dim / 2]` each: what [`rotate`](crate::Kernels::rotate) turns by. Or averages of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rotation {
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl Rotation {
    /// The rotation by `position` for the inverse frequencies of a model, `[head_dim / 2]`. Angles are computed in
    /// f64: at position 128K an f32 angle is off by up to 0.004.
    pub fn new(position: usize, frequencies: &[f64]) -> Self {
        let mut rotation = Self::default();
        rotation.set_position(position, frequencies);
        rotation
    }

    /// Makes it [`Rotation::new`], in the memory that it has.
    pub fn set_position(&mut self, position: usize, frequencies: &[f64]) {
        self.set(frequencies, |frequency| {
            let (sine, cosine) = (position as f64 * frequency).sin_cos();
            (cosine, sine)
        });
    }

    /// The average of the rotations by some positions, which makes vectors shorter, too: pairs of high frequency almost vanish, if
    /// there are many. An empty range counts as its start.
    pub fn averaged(positions: Range<usize>, frequencies: &[f64]) -> Self {
        let mut rotation = Self::default();
        rotation.set_average(positions, frequencies);
        rotation
    }

    /// Makes it [`Rotation::averaged`], in the memory that it has.
    pub fn set_average(&mut self, positions: Range<usize>, frequencies: &[f64]) {
        let count = positions.len().max(1) as f64;
        let middle = positions.start as f64 + (count - 1.0) / 2.0;
        // Of n positions around m, Σ e^(iθp) = e^(iθm) · sin(nθ/2) / sin(θ/2).
        self.set(frequencies, |frequency| {
            let (sine, cosine) = (frequency * middle).sin_cos();
            let of_all = count * (frequency / 2.0).sin();
            let length = if of_all == 0.0 { 1.0 } else { (count * frequency / 2.0).sin() / of_all };
            (length * cosine, length * sine)
        });
    }

    /// `turn` gives cosine and sine of a frequency.
    fn set(&mut self, frequencies: &[f64], turn: impl Fn(f64) -> (f64, f64)) {
        self.cosines.clear();
        self.sines.clear();
        for &frequency in frequencies {
            let (cosine, sine) = turn(frequency);
            self.cosines.push(cosine as f32);
            self.sines.push(sine as f32);
        }
    }

    /// The dimension of the vectors it turns.
    pub fn head_dim(&self) -> usize {
        2 * self.cosines.len()
    }
}

/// Applies `f` to the registers of `x` in turn, the last of them padded with zeros.
#[inline(always)]
fn for_each_register<S: Simd>(s: S, x: &mut [f32], mut f: impl FnMut(S::F32) -> S::F32) {
    let mut registers = x.chunks_exact_mut(S::LANES);
    for x in &mut registers {
        s.store(f(s.load(x)), x);
    }
    let rest = registers.into_remainder();
    if !rest.is_empty() {
        let mut padded = [0.0; MAX_LANES];
        padded[..rest.len()].copy_from_slice(rest);
        s.store(f(s.load(&padded)), &mut padded);
        rest.copy_from_slice(&padded[..rest.len()]);
    }
}

/// Applies `f` to the registers of `a` (replaced by the result) and `b` in turn, the last of them padded with zeros.
#[inline(always)]
fn zip_registers<S: Simd>(s: S, a: &mut [f32], b: &[f32], mut f: impl FnMut(S::F32, S::F32) -> S::F32) {
    let mut of_a = a.chunks_exact_mut(S::LANES);
    let of_b = b.chunks_exact(S::LANES);
    let rest_b = of_b.remainder();
    for (a, b) in (&mut of_a).zip(of_b) {
        s.store(f(s.load(a), s.load(b)), a);
    }
    let rest_a = of_a.into_remainder();
    if !rest_a.is_empty() {
        let (mut padded_a, mut padded_b) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
        padded_a[..rest_a.len()].copy_from_slice(rest_a);
        padded_b[..rest_b.len()].copy_from_slice(rest_b);
        s.store(f(s.load(&padded_a), s.load(&padded_b)), &mut padded_a);
        rest_a.copy_from_slice(&padded_a[..rest_a.len()]);
    }
}

pub(crate) fn check_rms_norm(x: &[f32], weight: &[f32]) -> Result<()> {
    expect_len("vectors to normalize", x.len(), x.len() / weight.len().max(1) * weight.len())
}

/// x / √(mean x² + ε) · weight, for each vector of `x`, `[n, weight.len()]`.
#[inline(always)]
pub(crate) fn rms_norm<S: Simd>(s: S, x: &mut [f32], weight: &[f32], epsilon: f32) {
    for x in x.chunks_exact_mut(weight.len().max(1)) {
        let mut sum = s.splat(0.0);
        for_each_register(
            s,
            x,
            #[inline(always)]
            |x| {
                sum = s.mul_add(x, x, sum);
                x
            },
        );
        let mean = s.reduce_add(sum) / x.len() as f32;
        let factor = s.splat(1.0 / (mean + epsilon).sqrt());
        zip_registers(
            s,
            x,
            weight,
            #[inline(always)]
            |x, weight| s.mul(s.mul(x, factor), weight),
        );
    }
}

pub(crate) fn check_rotate(heads: &[f32], rotation: &Rotation) -> Result<()> {
    let head_dim = rotation.head_dim();
    expect_len("heads to rotate", heads.len(), heads.len() / head_dim.max(1) * head_dim)
}

/// Turns each vector of `heads`, `[n, head_dim]`, rotate-half layout: element i is paired with i + head_dim / 2.
#[inline(always)]
pub(crate) fn rotate<S: Simd>(s: S, heads: &mut [f32], rotation: &Rotation) {
    let half = rotation.cosines.len();
    let whole = half / S::LANES * S::LANES;
    for head in heads.chunks_exact_mut(2 * half.max(1)) {
        let (first, second) = head.split_at_mut(half);
        for at in (0..whole).step_by(S::LANES) {
            let (cosine, sine) = (s.load(&rotation.cosines[at..]), s.load(&rotation.sines[at..]));
            let (a, b) = (s.load(&first[at..]), s.load(&second[at..]));
            s.store(s.sub(s.mul(a, cosine), s.mul(b, sine)), &mut first[at..]);
            s.store(s.mul_add(b, cosine, s.mul(a, sine)), &mut second[at..]);
        }
        for i in whole..half {
            let (a, b) = (first[i], second[i]);
            first[i] = a * rotation.cosines[i] - b * rotation.sines[i];
            second[i] = b * rotation.cosines[i] + a * rotation.sines[i];
        }
    }
}

pub(crate) fn check_silu_mul(gate: &[f32], up: &[f32]) -> Result<()> {
    expect_len("up projection", up.len(), gate.len())
}

/// gate ← gate / (1 + e^(−gate)) · up
#[inline(always)]
pub(crate) fn silu_mul<S: Simd>(s: S, gate: &mut [f32], up: &[f32]) {
    let one = s.splat(1.0);
    zip_registers(
        s,
        gate,
        up,
        #[inline(always)]
        |gate, up| {
            let denominator = s.add(one, s.exp(s.sub(s.splat(0.0), gate)));
            s.mul(s.div(gate, denominator), up)
        },
    );
}

/// x ← e^x / Σ e^x; the sum is 1 for any finite x.
#[inline(always)]
pub(crate) fn softmax<S: Simd>(s: S, x: &mut [f32]) {
    let largest = s.splat(x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    for_each_register(
        s,
        x,
        #[inline(always)]
        |x| s.exp(s.sub(x, largest)),
    );
    let mut total = s.splat(0.0);
    for_each_register(
        s,
        x,
        #[inline(always)]
        |x| {
            total = s.add(total, x);
            x
        },
    );
    let factor = s.splat(1.0 / s.reduce_add(total));
    for_each_register(
        s,
        x,
        #[inline(always)]
        |x| s.mul(x, factor),
    );
}
