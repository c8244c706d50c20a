//! The float64 reference: what decoding computes, slow and plain on purpose.
//!
//! It follows the specification step by step and shares no code with the kernels or the model, so that a
//! mistake has to be made twice to go unseen. Everything is `f64` in row-major slices; shapes are written
//! `[rows, columns]`, where L is the number of cached tokens, d the head dimension, G the number of query
//! heads that share a kv head, and C the number of codewords. Wrong shapes panic.
//!
//! | module          | what it is                                                                      |
//! |-----------------|---------------------------------------------------------------------------------|
//! | [`elementwise`] | RMSNorm, rotation, SiLU times, softmax                                          |
//! | [`rope`]        | the frequencies of the rotation, rescaled for long contexts                     |
//! | [`linear`]      | matrix times vector, matrix times many vectors                                  |
//! | [`codebook`]    | decode steps 1 and 2: the code of a key, the scores of a query                  |
//! | [`retrieval`]   | decode step 3: which positions a group attends                                  |
//! | [`attention`]   | decode step 4 and causal prefill                                                |
//! | [`estimate`]    | decode step 4 with an estimate of what is not attended                          |
//! | [`llama`]       | the whole model, from token ids to logits                                       |
//! | [`clustering`]  | k-means, which calibration makes codewords by                                   |

pub mod attention;
pub mod clustering;
pub mod codebook;
pub mod elementwise;
pub mod estimate;
pub mod linear;
pub mod llama;
pub mod retrieval;
pub mod rope;

/// Widens every value; exact.
pub fn to_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// ‖got − want‖ / ‖want‖ over two vectors of one length.
///
/// Zero where both norms are zero, infinite where only ‖want‖ is, and NaN where a value is not finite:
/// compare with `error <= tolerance`, which NaN fails.
pub fn relative_error(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "relative_error compares vectors of one length");
    let difference = linear::squared_distance(got, want).sqrt();
    let norm = linear::dot(want, want).sqrt();
    if difference == 0.0 && norm == 0.0 { 0.0 } else { difference / norm }
}

#[cfg(test)]
mod tests {
    use super::{relative_error, to_f64};

    #[test]
    fn widening_keeps_the_float32_value() {
        assert_eq!(to_f64(&[0.1, -2.5]), [0.100_000_001_490_116_12, -2.5]);
    }

    #[test]
    fn relative_error_is_the_ratio_of_norms() {
        assert_eq!(relative_error(&[3.0, 4.0], &[0.0, 4.0]), 0.75);
        assert_eq!(relative_error(&[3.0, 8.0], &[3.0, 4.0]), 0.8);
    }

    #[test]
    fn relative_error_at_zero() {
        assert_eq!(relative_error(&[0.0], &[0.0]), 0.0);
        assert_eq!(relative_error(&[], &[]), 0.0);
        assert_eq!(relative_error(&[1.0], &[0.0]), f64::INFINITY);
        assert!(relative_error(&[f64::NAN], &[0.0]).is_nan());
    }
}
