//! Rotary frequencies, and how they are stretched for long contexts.

use std::f64::consts::TAU;

/// How the rotary frequencies differ from `rope_theta^(-2i / head_dim)`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// They do not.
    Default,
    /// All divided by one factor.
    Linear {
        /// The divisor, at least 1.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are divided by the factor, short ones kept, those between interpolated.
    Llama3 {
        /// The divisor of the long wavelengths, at least 1.
        factor: f64,
        /// Wavelengths above the original context length divided by this are long.
        low_freq_factor: f64,
        /// Wavelengths below the original context length divided by this are short.
        high_freq_factor: f64,
        /// Context length, in tokens, before the stretching.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// One frequency, in radians per position, after the scaling.
    pub(crate) fn apply(self, frequency: f64) -> f64 {
        match self {
            Self::Default => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let (length, wavelength) = (original_max_position_embeddings as f64, TAU / frequency);
                if wavelength > length / low_freq_factor {
                    frequency / factor
                } else if wavelength < length / high_freq_factor {
                    frequency
                } else {
                    let band = high_freq_factor - low_freq_factor;
                    let smooth = (length / wavelength - low_freq_factor) / band;
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}
