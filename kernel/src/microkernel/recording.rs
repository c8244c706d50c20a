//! An instruction set that records what it prefetches, for tests.

use crate::simd::{MAX_LANES, Simd};
use half::{bf16, f16};
use std::cell::RefCell;

thread_local! {
    /// The lines that were prefetched into L2 on this thread.
    static LINES: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// So many lanes, on so many registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recording<const LANES: usize, const REGISTERS: usize>;

/// The lines, by address, that `run` prefetches into L2.
pub(crate) fn recorded(run: impl FnOnce()) -> Vec<usize> {
    LINES.take();
    run();
    LINES.take()
}

type Lanes = [f32; MAX_LANES];

impl<const LANES: usize, const REGISTERS: usize> Recording<LANES, REGISTERS> {
    fn each(a: Lanes, b: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
        std::array::from_fn(|i| f(a[i], b[i]))
    }

    fn first(numbers: impl Iterator<Item = f32>) -> Lanes {
        let mut lanes = [0.0; MAX_LANES];
        for (lane, x) in lanes.iter_mut().zip(numbers.take(LANES)) {
            *lane = x;
        }
        lanes
    }
}

impl<const LANES: usize, const REGISTERS: usize> Simd for Recording<LANES, REGISTERS> {
    type F32 = Lanes;
    type Plain = Self;
    type Bf16 = bf16;
    const NAME: &'static str = "recording";
    const LANES: usize = LANES;
    const REGISTERS: usize = REGISTERS;

    fn plain(self) -> Self {
        self
    }

    fn vectorize<R>(self, work: impl FnOnce() -> R) -> R {
        work()
    }

    fn splat(self, x: f32) -> Lanes {
        [x; MAX_LANES]
    }

    fn load(self, from: &[f32]) -> Lanes {
        Self::first(from[..LANES].iter().copied())
    }

    fn store(self, x: Lanes, to: &mut [f32]) {
        to[..LANES].copy_from_slice(&x[..LANES]);
    }

    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        Self::each(a, b, |a, b| a + b)
    }

    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        Self::each(a, b, |a, b| a - b)
    }

    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        Self::each(a, b, |a, b| a * b)
    }

    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        Self::each(a, b, |a, b| a / b)
    }

    fn mul_add(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        self.add(self.mul(a, b), c)
    }

    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        Self::each(a, b, f32::max)
    }

    fn min(self, a: Lanes, b: Lanes) -> Lanes {
        Self::each(a, b, f32::min)
    }

    fn round(self, x: Lanes) -> Lanes {
        x.map(f32::round_ties_even)
    }

    fn scale_by_power_of_two(self, x: Lanes, n: Lanes) -> Lanes {
        Self::each(x, n, |x, n| if n <= -126.0 { 0.0 } else { x * n.exp2() })
    }

    fn load_bf16(self, from: &[bf16]) -> [Lanes; 2] {
        let from = &from[..2 * LANES];
        [0, 1].map(|odd| Self::first(from.iter().skip(odd).step_by(2).map(|x| x.to_f32())))
    }

    fn load_bf16_in_order(self, from: &[bf16]) -> Lanes {
        Self::first(from[..LANES].iter().map(|x| x.to_f32()))
    }

    fn load_f16(self, from: &[f16]) -> Lanes {
        Self::first(from[..LANES].iter().map(|x| x.to_f32()))
    }

    fn load_i8(self, from: &[i8]) -> Lanes {
        Self::first(from[..LANES].iter().map(|&x| f32::from(x)))
    }

    fn reduce_add(self, x: Lanes) -> f32 {
        x[..LANES].iter().sum()
    }

    fn reduce_max(self, x: Lanes) -> f32 {
        x[..LANES].iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }

    fn at_least(self, x: Lanes, threshold: Lanes) -> u32 {
        (0..LANES).fold(0, |bits, i| bits | u32::from(x[i] >= threshold[i]) << i)
    }

    fn add_where_at_least(self, sum: Lanes, x: Lanes, threshold: Lanes, counts: &[u32]) -> Lanes {
        let add = |i: usize| if i < LANES && x[i] >= threshold[i] { counts[i] } else { 0 };
        std::array::from_fn(|i| f32::from_bits(sum[i].to_bits() + add(i)))
    }

    fn prefetch_l2(self, address: *const u8) {
        LINES.with_borrow_mut(|lines| lines.push(address as usize / 64));
    }
}
