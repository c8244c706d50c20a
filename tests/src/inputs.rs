//! Inputs that are made to be awkward, and the comparison of what comes out with the reference.
//!
//! Shapes come from proptest, so that they shrink; the numbers in them from [`Noise`] and a seed, because nobody reads
//! a shrunk vector of a thousand elements.

use a2ats_kernel::{Dtype, Elements, Kernels, decode::Estimate, rows::row_width};
use half::{bf16, f16};
use proptest::{
    prelude::{Strategy, prop_oneof},
    sample::select,
    test_runner::{Config, RngSeed},
};
use std::ops::{Deref, DerefMut, Range};

/// Relative error of one rounding to f32: 2^−24.
pub const ROUNDING: f64 = f32::EPSILON as f64 / 2.0;

/// Absolute error that always passes: f32 loses what falls below its normal range, term by term.
pub const VANISHING: f64 = 64.0 * f32::MIN_POSITIVE as f64;

/// How many cases each property is tried on: `A2ATS_TEST_CASES`, 64 without it (emulators want fewer). The cases are
/// the same in every run unless `A2ATS_TEST_SEED` is set.
pub fn config() -> Config {
    Config {
        cases: from_environment("A2ATS_TEST_CASES", 64),
        rng_seed: RngSeed::Fixed(from_environment("A2ATS_TEST_SEED", 0x00a2_a750)),
        failure_persistence: None,
        max_shrink_iters: 512,
        ..Config::default()
    }
}

fn from_environment<T: std::str::FromStr>(variable: &str, otherwise: T) -> T {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is not a number")),
        Err(_) => otherwise,
    }
}

/// Lengths at, just below and just above multiples of every register width, and others.
pub fn lengths() -> impl Strategy<Value = usize> {
    let near = (select(vec![4_usize, 8, 16, 32, 64]), 1_usize..=5, 0_usize..=2);
    prop_oneof![3 => near.prop_map(|(lanes, n, off)| lanes * n + off - 1), 1 => 1_usize..=300]
}

/// Numbers of rows around the kernels' blocks of 64.
pub fn row_counts() -> impl Strategy<Value = usize> {
    prop_oneof![2 => select(vec![1_usize, 2, 3, 63, 64, 65, 127, 128, 129, 193]), 1 => 1_usize..=260]
}

/// Head dimensions: even, 16 to 256, those that leave a part of a register and of a block more often than not.
pub fn head_dims() -> impl Strategy<Value = usize> {
    let awkward = vec![16_usize, 18, 34, 66, 80, 100, 126, 130, 254];
    prop_oneof![2 => select(awkward), 1 => select(vec![32_usize, 64, 96, 128, 256]), 1 => (8_usize..=128).prop_map(|x| 2 * x)]
}

/// Every number of query heads per kv head that is supported.
pub fn groups() -> impl Strategy<Value = usize> {
    1_usize..=16
}

/// The storage types.
pub fn dtypes() -> impl Strategy<Value = Dtype> {
    select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16])
}

/// Sizes of numbers, from tiny to huge; see [`fitting`].
pub fn magnitudes() -> impl Strategy<Value = f32> {
    select(vec![1.0_f32, 1.0, 1.0, 1e-4, 1e3, 1e-30, 1e15])
}

/// The magnitude nearest to `magnitude` that leaves numbers of a storage type some bits and does not overflow it.
pub fn fitting(dtype: Dtype, magnitude: f32) -> f32 {
    if dtype == Dtype::F16 { magnitude.clamp(1e-2, 1e3) } else { magnitude }
}

/// How what is not attended is estimated.
pub fn estimates() -> impl Strategy<Value = Estimate> {
    select(vec![Estimate::Off, Estimate::Fixed, Estimate::Averaged])
}

/// How many elements a slice starts after an address of full alignment.
pub fn offsets() -> impl Strategy<Value = usize> {
    0_usize..=15
}

/// Numbers from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// The sequence of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// A number from 0 on and below 1.
    pub fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `len` numbers within ±`magnitude`, one in thirty a zero of either sign.
    pub fn vector(&mut self, len: usize, magnitude: f32) -> Vec<f32> {
        let mut number = || {
            let x = (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0;
            if self.below(30) == 0 { 0.0 * x } else { x * magnitude }
        };
        (0..len).map(|_| number()).collect()
    }

    /// `len` whole numbers within ±`limit`: sums of their products are exact in f32.
    pub fn whole_numbers(&mut self, len: usize, limit: u16) -> Vec<f32> {
        (0..len).map(|_| self.below(2 * usize::from(limit) + 1) as f32 - f32::from(limit)).collect()
    }

    /// `len` codes below `codes`.
    pub fn codes(&mut self, len: usize, codes: usize) -> Vec<u16> {
        (0..len).map(|_| self.below(codes) as u16).collect()
    }

    /// Brings `items` into another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// Some of the positions in `0..end`, at least one, in random order.
    pub fn positions(&mut self, end: usize) -> Vec<u32> {
        let mut positions: Vec<u32> = (0..end as u32).collect();
        self.shuffle(&mut positions);
        positions.truncate(1 + self.below(end));
        positions
    }

    /// A lower triangular factor `[size, size]` with a diagonal well above zero.
    pub fn cholesky(&mut self, size: usize) -> Vec<f32> {
        let mut factor = self.vector(size * size, 0.5);
        for (i, row) in factor.chunks_exact_mut(size).enumerate() {
            row[i] = 0.5 + row[i].abs();
            row[i + 1..].fill(0.0);
        }
        factor
    }
}

/// The unit matrix.
pub fn unit_matrix(size: usize) -> Vec<f32> {
    (0..size * size).map(|i| if i / size == i % size { 1.0 } else { 0.0 }).collect()
}

/// Rounds to a storage type and back, so that a reference sees the numbers that the kernels see.
pub fn rounded(dtype: Dtype, values: &[f32]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => values.to_vec(),
        Dtype::F16 => values.iter().map(|&x| f16::from_f32(x).to_f32()).collect(),
        Dtype::Bf16 => values.iter().map(|&x| bf16::from_f32(x).to_f32()).collect(),
    }
}

/// Numbers with NaN on both sides: what reads outside shows in the result, what writes outside is found on drop.
#[derive(Debug)]
pub struct Guarded {
    all: Vec<f32>,
    inside: Range<usize>,
}

impl Guarded {
    /// `values`, `offset` elements into a buffer.
    pub fn new(values: &[f32], offset: usize) -> Self {
        Self {
            all: between_guards(values.iter().copied(), f32::NAN, offset),
            inside: offset..offset + values.len(),
        }
    }
}

impl Deref for Guarded {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.all[self.inside.clone()]
    }
}

impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.all[self.inside.clone()]
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let outside = self.all[..self.inside.start].iter().chain(&self.all[self.inside.end..]);
        assert!(
            std::thread::panicking() || outside.into_iter().all(|x| x.is_nan()),
            "written outside the slice"
        );
    }
}

/// Elements after a storage type that a kernel borrows, with NaN on both sides.
#[derive(Debug)]
pub struct Stored {
    all: Typed,
    inside: Range<usize>,
}

#[derive(Debug)]
enum Typed {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Stored {
    /// `values`, rounded to `dtype`, `offset` elements into a buffer.
    pub fn new(dtype: Dtype, values: &[f32], offset: usize) -> Self {
        let values = values.iter().copied();
        let inside = offset..offset + values.len();
        let all = match dtype {
            Dtype::F32 => Typed::F32(between_guards(values, f32::NAN, offset)),
            Dtype::F16 => Typed::F16(between_guards(values.map(f16::from_f32), f16::NAN, offset)),
            Dtype::Bf16 => Typed::Bf16(between_guards(values.map(bf16::from_f32), bf16::NAN, offset)),
        };
        Self { all, inside }
    }

    /// KV rows of `keys` and `values`, `[n, head_dim]` each.
    pub fn rows(dtype: Dtype, keys: &[f32], values: &[f32], head_dim: usize, offset: usize) -> Self {
        let mut rows = Vec::new();
        for (key, value) in keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim)) {
            for half in [key, value] {
                rows.extend_from_slice(half);
                rows.resize(rows.len() + row_width(head_dim) - head_dim, 0.0);
            }
        }
        Self::new(dtype, &rows, offset)
    }

    /// What is between the guards.
    pub fn elements(&self) -> Elements<'_> {
        let all = match &self.all {
            Typed::F32(all) => Elements::F32(all),
            Typed::F16(all) => Elements::F16(all),
            Typed::Bf16(all) => Elements::Bf16(all),
        };
        all.range(self.inside.clone()).expect("the buffer was made around this range")
    }
}

/// Values, `offset` elements into a buffer that has more behind them.
pub fn between_guards<T: Copy>(values: impl Iterator<Item = T>, guard: T, offset: usize) -> Vec<T> {
    let guards = |n| std::iter::repeat_n(guard, n);
    guards(offset).chain(values).chain(guards(33)).collect()
}

/// Whether a backend multiplies bf16 without widening it.
fn multiplies_bf16(kernels: &dyn Kernels) -> bool {
    ["avx512bf16", "neonbf16"].contains(&kernels.name())
}

/// Relative error with which a backend sees a query (or the input of a product) beside rows of a storage type: the
/// BF16 instructions take it as the sum of two bf16 numbers, each of which rounds by up to 2^−8.
pub fn query_precision(kernels: &dyn Kernels, dtype: Dtype) -> f64 {
    if multiplies_bf16(kernels) && dtype == Dtype::Bf16 { 2_f64.powi(-16) } else { ROUNDING }
}

/// Relative error with which a backend sees the inputs of a product that are rounded on purpose.
pub fn input_rounding(kernels: &dyn Kernels, dtype: Dtype) -> f64 {
    if multiplies_bf16(kernels) && dtype == Dtype::Bf16 { 2_f64.powi(-8) } else { 0.0 }
}

/// Relative error with which a backend sees the softmax terms beside rows of a storage type: the BF16 instructions take
/// them rounded to bf16.
pub fn weight_precision(kernels: &dyn Kernels, dtype: Dtype) -> f64 {
    if multiplies_bf16(kernels) && dtype == Dtype::Bf16 { 2_f64.powi(-8) } else { ROUNDING }
}

/// Panics unless every |got − want| is at most `tolerance` times its magnitude, which is the sum of the absolute values
/// of all the terms that rounding errors come from.
pub fn assert_close(what: &str, got: &[f32], want: &[f64], magnitudes: &[f64], tolerance: f64) {
    assert_eq!((got.len(), magnitudes.len()), (want.len(), want.len()), "{what}: lengths");
    for (i, ((&got, &want), &magnitude)) in got.iter().zip(want).zip(magnitudes).enumerate() {
        let error = (f64::from(got) - want).abs();
        assert!(
            error <= tolerance * magnitude + VANISHING,
            "{what}: element {i} is {got:e}, want {want:e}: off by {:.1e} of {magnitude:e}, {tolerance:.1e} is allowed",
            error / magnitude
        );
    }
}
