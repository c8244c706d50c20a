//! The operations on single vectors: RMSNorm, rotation, SiLU times, softmax.

use super::linear::dot;

/// x / √(mean(x²) + eps) · weight. x, weight and the result are `[n]`.
pub fn rms_norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    assert_eq!(x.len(), weight.len(), "rms_norm: one weight per element");
    let root = (dot(x, x) / x.len() as f64 + eps).sqrt();
    x.iter().zip(weight).map(|(x, weight)| x / root * weight).collect()
}

/// The rotation R_p of the specification: one head vector x `[d]` turned to `position`, rotate-half layout.
///
/// Elements i and i + d/2 are a pair, turned by the angle position · frequencies`[i]`; frequencies are
/// `[d/2]`.
pub fn rotate(x: &[f64], position: f64, frequencies: &[f64]) -> Vec<f64> {
    assert_eq!(x.len(), 2 * frequencies.len(), "rotate: one frequency per pair of elements");
    let (first, second) = x.split_at(frequencies.len());
    let mut out = vec![0.0; x.len()];
    let (out_first, out_second) = out.split_at_mut(frequencies.len());
    for (i, frequency) in frequencies.iter().enumerate() {
        let (sin, cos) = (position * frequency).sin_cos();
        out_first[i] = first[i] * cos - second[i] * sin;
        out_second[i] = second[i] * cos + first[i] * sin;
    }
    out
}

/// silu(gate) · up with silu(g) = g / (1 + e⁻ᵍ). gate, up and the result are `[n]`.
pub fn silu_mul(gate: &[f64], up: &[f64]) -> Vec<f64> {
    assert_eq!(gate.len(), up.len(), "silu_mul: gate and up of one length");
    gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect()
}

/// e^(xᵢ − max x) / Σ e^(xⱼ − max x). x and the result are `[n]`; minus infinity gets weight zero, as long as
/// some element is finite.
pub fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{FRAC_PI_2, LN_2, PI};

    use super::{rms_norm, rotate, silu_mul, softmax};

    fn assert_close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() <= 1e-14, "got {got}, want {want}");
        }
    }

    #[test]
    fn rms_norm_divides_by_the_root_of_mean_square_plus_eps() {
        // mean(1, 49) = 25, and 25 + 11 = 36.
        assert_close(&rms_norm(&[1.0, -7.0], &[6.0, 2.0], 11.0), &[1.0, -7.0 / 3.0]);
    }

    #[test]
    fn rotation_pairs_element_i_with_i_plus_half() {
        // The first pair (1, 3) turns by a quarter, the second (2, 4) by a half.
        assert_close(&rotate(&[1.0, 2.0, 3.0, 4.0], 2.0, &[PI / 4.0, FRAC_PI_2]), &[-3.0, -2.0, 1.0, -4.0]);
    }

    #[test]
    fn rotation_at_position_zero_is_the_identity() {
        assert_eq!(rotate(&[1.0, 2.0, 3.0, 4.0], 0.0, &[1.0, 0.01]), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn rotated_products_depend_on_the_distance_alone() {
        let (q, k, frequencies) = ([0.3, -1.0, 2.0, 0.7], [1.1, 0.4, -0.2, 0.9], [1.0, 0.01]);
        let product = |p, r| super::dot(&rotate(&q, p, &frequencies), &rotate(&k, r, &frequencies));
        assert!((product(2048.0, 2041.0) - product(7.0, 0.0)).abs() < 1e-11);
        assert!((product(8.0, 0.0) - product(7.0, 0.0)).abs() > 0.1);
    }

    #[test]
    fn silu_is_gate_times_sigmoid() {
        // sigmoid(ln 2) = 2/3 and sigmoid(-ln 2) = 1/3.
        assert_close(&silu_mul(&[LN_2, -LN_2, 0.0], &[3.0, 3.0, 5.0]), &[2.0 * LN_2, -LN_2, 0.0]);
        assert_eq!(silu_mul(&[-1000.0, 1000.0], &[1.0, 2.0]), [0.0, 2000.0]);
    }

    #[test]
    fn softmax_weighs_by_exponentials_and_bears_large_and_barred_scores() {
        assert_close(&softmax(&[0.0, LN_2, LN_2 + LN_2]), &[1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0]);
        assert_close(&softmax(&[1e6, 1e6, -1e6, f64::NEG_INFINITY]), &[0.5, 0.5, 0.0, 0.0]);
    }
}
