//! RMSNorm, rotation, SiLU times and softmax against the reference.

use a2ats_kernel::elementwise::Rotation;
use a2ats_tests::{
    backends::on_every_backend,
    inputs::{Guarded, Noise, ROUNDING, assert_close, config, lengths, magnitudes, offsets},
    reference::{
        elementwise::{rms_norm, rotate, silu_mul, softmax},
        rope::{Scaling, rope_frequencies},
        to_f64,
    },
};
use proptest::{prelude::*, sample::select};

/// Of the result: a sum of squares in lanes, a root, a division, two products.
const RMS_NORM: f64 = 12.0 * ROUNDING;

/// Of |a cos| + |b sin|: both rounded, two products, a sum.
const ROTATE: f64 = 3.0 * ROUNDING;

/// Of the result: e^x to 2 units in the last place (4 roundings), a sum, a quotient, a product.
const SILU_MUL: f64 = 8.0 * ROUNDING;

/// Of the result times 1 + |x − max x|, which the subtraction rounds: e^x, a division, a product, and a sum whose
/// errors are random and so grow with the root of its length.
fn softmax_tolerance(len: usize) -> f64 {
    ROUNDING * (8.0 + (len as f64).sqrt())
}

/// Of e^x where nothing but its rounding matters: 2 units in the last place and one more for what is around it.
const EXPONENTIAL: f64 = 6.0 * ROUNDING;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rms_norm_is_close_to_the_reference(
        (len, n, offset) in (lengths(), 1_usize..=3, offsets()),
        (magnitude, weight_magnitude) in (magnitudes(), select(vec![1.0_f32, 1e-10, 1e10])),
        epsilon in select(vec![1e-5_f32, 1e-6, 1e-12]),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise::new(seed);
        let (x, weight) = (noise.vector(n * len, magnitude), noise.vector(len, weight_magnitude));
        let want: Vec<f64> = to_f64(&x)
            .chunks_exact(len)
            .flat_map(|x| rms_norm(x, &to_f64(&weight), f64::from(epsilon)))
            .collect();
        let magnitudes: Vec<f64> = want.iter().map(|x| x.abs()).collect();
        on_every_backend(|kernels| {
            let mut got = Guarded::new(&x, offset);
            kernels.rms_norm(&mut got, &Guarded::new(&weight, 15 - offset), epsilon).unwrap();
            assert_close(kernels.name(), &got, &want, &magnitudes, RMS_NORM);
        });
    }

    #[test]
    fn rotation_is_close_to_the_reference(
        (pairs, n, offset) in (prop_oneof![lengths(), 1_usize..=128], 0_usize..=4, offsets()),
        position in prop_oneof![0_usize..=3000, 0_usize..=1_000_000],
        (magnitude, scaled) in (magnitudes(), any::<bool>()),
        seed in any::<u64>(),
    ) {
        let llama3 = Scaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        let frequencies = rope_frequencies(5e5, 2 * pairs, if scaled { &llama3 } else { &Scaling::None });
        let heads = Noise::new(seed).vector(n * 2 * pairs, magnitude);
        let (mut want, mut magnitudes) = (Vec::new(), Vec::new());
        for head in to_f64(&heads).chunks_exact(2 * pairs) {
            want.extend(rotate(head, position as f64, &frequencies));
            magnitudes.extend((0..2 * pairs).map(|i| head[i].abs() + head[(i + pairs) % (2 * pairs)].abs()));
        }
        let rotation = Rotation::new(position, &frequencies);
        prop_assert_eq!(rotation.head_dim(), 2 * pairs);
        on_every_backend(|kernels| {
            let mut got = Guarded::new(&heads, offset);
            kernels.rotate(&mut got, &rotation).unwrap();
            assert_close(kernels.name(), &got, &want, &magnitudes, ROTATE);
        });
    }

    #[test]
    fn averaged_rotations_are_the_average_of_all(
        (start, count, pairs) in (0_usize..=3000, 0_usize..=400, 1_usize..=40),
        seed in any::<u64>(),
    ) {
        let frequencies = rope_frequencies(5e5, 2 * pairs, &Scaling::None);
        let head = Noise::new(seed).vector(2 * pairs, 1.0);
        let mut want = vec![0.0; 2 * pairs];
        for position in start..start + count.max(1) {
            let rotated = rotate(&to_f64(&head), position as f64, &frequencies);
            want.iter_mut().zip(rotated).for_each(|(sum, x)| *sum += x / count.max(1) as f64);
        }
        let rotation = Rotation::averaged(start..start + count, &frequencies);
        let magnitudes = vec![2.0; 2 * pairs];
        on_every_backend(|kernels| {
            let mut got = head.clone();
            kernels.rotate(&mut got, &rotation).unwrap();
            assert_close(kernels.name(), &got, &want, &magnitudes, ROTATE);
        });
    }

    #[test]
    fn silu_mul_is_close_to_the_reference(
        (len, offset) in (prop_oneof![Just(0_usize), lengths()], offsets()),
        (gate_magnitude, up_magnitude) in (select(vec![1.0_f32, 30.0, 85.0, 1e4, 1e-30]), magnitudes()),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise::new(seed);
        let (gate, up) = (noise.vector(len, gate_magnitude), noise.vector(len, up_magnitude));
        let want = silu_mul(&to_f64(&gate), &to_f64(&up));
        // e^−gate overflows at 88, where SiLU is 1e-36: what is left of it there is absolute.
        let magnitudes: Vec<f64> =
            want.iter().zip(&up).map(|(want, up)| want.abs() + 1e-30 * f64::from(up.abs())).collect();
        on_every_backend(|kernels| {
            let mut got = Guarded::new(&gate, offset);
            kernels.silu_mul(&mut got, &Guarded::new(&up, 15 - offset)).unwrap();
            assert_close(kernels.name(), &got, &want, &magnitudes, SILU_MUL);
        });
    }

    #[test]
    fn softmax_is_close_to_the_reference(
        (len, offset) in (prop_oneof![4 => lengths(), 1 => Just(1_usize), 1 => Just(5000_usize)], offsets()),
        magnitude in select(vec![0.0_f32, 1.0, 50.0, 1e4, 1e30]),
        masked in select(vec![0_usize, 2, 100]),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise::new(seed);
        let mut x = noise.vector(len, magnitude);
        let kept = noise.below(len);
        for (i, x) in x.iter_mut().enumerate() {
            if i != kept && noise.below(101) < masked {
                *x = f32::NEG_INFINITY;
            }
        }
        let want = softmax(&to_f64(&x));
        let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let magnitudes: Vec<f64> = want
            .iter()
            .zip(&x)
            .map(|(&want, &x)| if want == 0.0 { 0.0 } else { want * (1.0 + f64::from(largest - x)) })
            .collect();
        on_every_backend(|kernels| {
            let mut got = Guarded::new(&x, offset);
            kernels.softmax(&mut got);
            assert_close(kernels.name(), &got, &want, &magnitudes, softmax_tolerance(len));
        });
    }
}

#[test]
fn exponentials_below_one_are_accurate_down_to_zero() {
    const STEPS: usize = 40_000;
    let points: Vec<f32> = (0..=STEPS).map(|i| -110.0 * (i as f32 / STEPS as f32)).collect();
    on_every_backend(|kernels| {
        for &x in &points {
            let mut got = [x, 0.0];
            kernels.softmax(&mut got);
            let want = softmax(&[f64::from(x), 0.0]);
            let error = (f64::from(got[0]) - want[0]).abs();
            assert!(
                error <= EXPONENTIAL * want[0] + 2.0 * f64::from(f32::MIN_POSITIVE),
                "{}: e^{x} is off by {error:e}",
                kernels.name()
            );
            // Operations with what is below the normal range take very long.
            assert!(
                got[0] == 0.0 || got[0] >= f32::MIN_POSITIVE,
                "{}: e^{x} is {:e}",
                kernels.name(),
                got[0]
            );
        }
    });
}

#[test]
fn exponentials_above_one_are_accurate_up_to_the_largest_number() {
    const STEPS: usize = 40_000;
    let gate: Vec<f32> = (1..=STEPS).map(|i| -88.0 * (i as f32 / STEPS as f32)).collect();
    let up = vec![1e10; STEPS];
    let want = silu_mul(&to_f64(&gate), &to_f64(&up));
    on_every_backend(|kernels| {
        let mut got = gate.clone();
        kernels.silu_mul(&mut got, &up).unwrap();
        for ((x, got), want) in gate.iter().zip(&got).zip(&want) {
            let error = (f64::from(*got) - want).abs();
            assert!(error <= SILU_MUL * want.abs(), "{}: e^{} is off by {error:e}", kernels.name(), -x);
        }
    });
}

#[test]
fn softmax_of_nothing_and_of_one_number() {
    on_every_backend(|kernels| {
        kernels.softmax(&mut []);
        for x in [0.0, -1e4, 1e4, 1e38, -1e38] {
            let mut one = [x];
            kernels.softmax(&mut one);
            assert_eq!(one, [1.0], "{}", kernels.name());
        }
    });
}
