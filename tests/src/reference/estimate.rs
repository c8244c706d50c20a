//! Attention with an estimate of what it leaves out (the specification's extension, `attend_with_tail` of the oracle).

use super::linear::{add_scaled, dot};

/// What one kv head's group attends to, and what it does not.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// `[n, d]`, with their true rotations.
    pub keys: &'a [f64],
    /// `[n, d]`
    pub values: &'a [f64],
    /// `[n]`: the code of each key.
    pub codes: &'a [usize],
    /// `[n]`: what is attended, window and sinks included.
    pub attended: &'a [bool],
    /// `[n]`: window and sinks, which are in no code's statistics.
    pub always: &'a [bool],
}

/// One query head: softmax over the attended positions and all others, the others with the scores of their codes.
///
/// `query` `[d]` carries its true rotation; `code_scores` `[C]` are those at the fixed relative position, scaled as the others by
/// `scale`. The result is `[d]`.
pub fn attend_with_estimate(
    context: &Context<'_>,
    query: &[f64],
    code_scores: &[f64],
    scale: f64,
) -> Vec<f64> {
    let d = query.len();
    let score = |position: usize| {
        if context.attended[position] {
            dot(query, &context.keys[position * d..(position + 1) * d]) * scale
        } else {
            assert!(!context.always[position], "window and sinks are attended");
            code_scores[context.codes[position]] * scale
        }
    };
    let scores: Vec<f64> = (0..context.codes.len()).map(score).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (mut sum, mut out) = (0.0, vec![0.0; d]);
    for (score, value) in scores.iter().zip(context.values.chunks_exact(d)) {
        let weight = (score - largest).exp();
        sum += weight;
        add_scaled(&mut out, weight, value);
    }
    out.iter_mut().for_each(|x| *x /= sum);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::LN_2;

    const CONTEXT: Context<'static> = Context {
        keys: &[0.0, 0.0, LN_2, 5.0],
        values: &[1.0, 2.0, 3.0, 10.0],
        codes: &[0, 1, 1, 1],
        attended: &[true, false, false, true],
        always: &[true, false, false, false],
    };

    #[test]
    fn what_is_left_out_counts_with_the_score_of_its_code() {
        // Scores 0, ln 2, ln 2 (of the code, whatever the key), and 5·0.
        let out = attend_with_estimate(&CONTEXT, &[0.0], &[99.0, LN_2], 1.0);
        assert_eq!(out, vec![(1.0 + 2.0 * 2.0 + 2.0 * 3.0 + 10.0) / 6.0]);
    }

    #[test]
    fn what_is_attended_counts_with_its_own() {
        let all = Context { attended: &[true; 4], ..CONTEXT };
        let out = attend_with_estimate(&all, &[1.0], &[99.0, 99.0], 1.0);
        let weights = [1.0, 1.0, 2.0, 5_f64.exp()];
        let want = (1.0 + 2.0 + 2.0 * 3.0 + 10.0 * weights[3]) / weights.iter().sum::<f64>();
        assert!((out[0] - want).abs() < 1e-12);
    }

    #[test]
    #[should_panic(expected = "window and sinks are attended")]
    fn window_and_sinks_have_no_estimate() {
        let none = Context { attended: &[false; 4], ..CONTEXT };
        attend_with_estimate(&none, &[1.0], &[0.0, 0.0], 1.0);
    }
}
