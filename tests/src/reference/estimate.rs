//! Attention with an estimate of what it leaves out (an extension of the paper's method).

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

/// One query head: softmax over the attended positions and all others, the others with the scores of their codes, and each with the mean of
/// its code's values in place of its own.
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
    let means = means(context, d, code_scores.len());
    let of = |position: usize| {
        let (own, code) = (position * d..(position + 1) * d, context.codes[position]);
        if context.attended[position] {
            return (dot(query, &context.keys[own.clone()]) * scale, &context.values[own]);
        }
        assert!(!context.always[position], "window and sinks are attended");
        (code_scores[code] * scale, &means[code * d..(code + 1) * d])
    };
    let scored: Vec<(f64, &[f64])> = (0..context.codes.len()).map(of).collect();
    let largest = scored.iter().map(|scored| scored.0).fold(f64::NEG_INFINITY, f64::max);
    let (mut sum, mut out) = (0.0, vec![0.0; d]);
    for (score, value) in scored {
        let weight = (score - largest).exp();
        sum += weight;
        add_scaled(&mut out, weight, value);
    }
    out.iter_mut().for_each(|x| *x /= sum);
    out
}

/// `[C, d]`: the mean of the values of each code's tokens, window and sinks apart.
fn means(context: &Context<'_>, d: usize, codes: usize) -> Vec<f64> {
    let (mut counts, mut means) = (vec![0.0; codes], vec![0.0; codes * d]);
    let counted = context.codes.iter().zip(context.values.chunks_exact(d)).zip(context.always);
    for ((&code, value), _) in counted.filter(|(_, always)| !**always) {
        counts[code] += 1.0;
        add_scaled(&mut means[code * d..(code + 1) * d], 1.0, value);
    }
    for (mean, count) in means.chunks_exact_mut(d).zip(counts) {
        mean.iter_mut().for_each(|x| *x /= f64::max(count, 1.0));
    }
    means
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
        // Scores 0, ln 2, ln 2 (of the code, whatever the key), and 5·0. The mean of 2, 3 and 10 is 5; 1 is a sink's.
        let out = attend_with_estimate(&CONTEXT, &[0.0], &[99.0, LN_2], 1.0);
        assert!((out[0] - (1.0 + 2.0 * 5.0 + 2.0 * 5.0 + 10.0) / 6.0).abs() < 1e-15);
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
