//! The frequencies of the rotation.

use std::f64::consts::TAU;

/// How the frequencies are rescaled for contexts longer than the model was first trained on
/// (`rope_scaling` in a model's config.json).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// As they are.
    None,
    /// Every frequency divided by one factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: short wavelengths as they are, long ones divided by the factor, a blend between.
    Llama3 {
        /// The divisor of the long wavelengths.
        factor: f64,
        /// Wavelengths above the original context length over this count as long.
        low_freq_factor: f64,
        /// Wavelengths below the original context length over this count as short.
        high_freq_factor: f64,
        /// The original context length in tokens.
        original_max_position_embeddings: f64,
    },
}

/// The angle per position of each pair of elements: theta^(−2i/d), rescaled. `[d/2]`.
pub fn rope_frequencies(theta: f64, head_dim: usize, scaling: &Scaling) -> Vec<f64> {
    assert!(head_dim.is_multiple_of(2), "rope_frequencies: elements are rotated in pairs");
    let plain = (0..head_dim / 2).map(|i| theta.powf(-((2 * i) as f64) / head_dim as f64));
    plain.map(|frequency| rescale(frequency, scaling)).collect()
}

fn rescale(frequency: f64, scaling: &Scaling) -> f64 {
    match *scaling {
        Scaling::None => frequency,
        Scaling::Linear { factor } => frequency / factor,
        Scaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: original,
        } => {
            let wavelength = TAU / frequency;
            if wavelength > original / low_freq_factor {
                frequency / factor
            } else if wavelength < original / high_freq_factor {
                frequency
            } else {
                let share = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - share) * frequency / factor + share * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Scaling, rope_frequencies};

    fn assert_close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() <= 1e-10 * want.abs(), "got {got}, want {want}");
        }
    }

    fn llama3(original_max_position_embeddings: f64) -> Scaling {
        Scaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings,
        }
    }

    #[test]
    fn plain_frequencies_fall_from_one_by_even_ratios() {
        assert_close(&rope_frequencies(10_000.0, 8, &Scaling::None), &[1.0, 0.1, 0.01, 0.001]);
    }

    #[test]
    fn linear_scaling_divides_all() {
        assert_close(&rope_frequencies(10_000.0, 4, &Scaling::Linear { factor: 4.0 }), &[0.25, 0.0025]);
    }

    #[test]
    fn llama3_scaling_keeps_short_and_divides_long_wavelengths() {
        // Wavelengths 6.28 and 628 against bounds of 25 and 100.
        assert_close(&rope_frequencies(10_000.0, 4, &llama3(100.0)), &[1.0, 0.00125]);
    }

    #[test]
    fn llama3_scaling_blends_between() {
        // Wavelength 628.3185 between 250 and 1000: share (1000/628.3185 - 1)/3 = 0.197183143636.
        assert_close(&rope_frequencies(10_000.0, 4, &llama3(1000.0)), &[1.0, 0.002_975_352_506_815]);
    }
}
