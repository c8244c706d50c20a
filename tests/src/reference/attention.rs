//! Exact attention of the query heads of one kv head: over chosen positions (the specification, decode step
//! 4) and dense and causal (prefill).

use super::elementwise::softmax;
use super::linear::{add_scaled, dot};

/// Decode step 4: softmax over (q·k_j)·scale for the positions j that mask marks, times v_j.
///
/// queries `[G, d]` and keys `[n, d]` carry their true rotations, values are `[n, d]`, mask is `[n]` with at
/// least one position marked; the result is `[G, d]`.
pub fn attend(
    queries: &[f64],
    keys: &[f64],
    values: &[f64],
    head_dim: usize,
    scale: f64,
    mask: &[bool],
) -> Vec<f64> {
    assert_eq!(queries.len() % head_dim, 0, "attend: queries are [group, head_dim]");
    assert_eq!(keys.len(), mask.len() * head_dim, "attend: keys are [n, head_dim]");
    assert_eq!(values.len(), keys.len(), "attend: values are [n, head_dim]");
    let attended: Vec<usize> = (0..mask.len()).filter(|&position| mask[position]).collect();
    assert!(!attended.is_empty(), "attend: nothing to attend to");
    let row = |position: usize| position * head_dim..(position + 1) * head_dim;

    let mut out = vec![0.0; queries.len()];
    for (query, out) in queries.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
        let scores: Vec<f64> = attended.iter().map(|&j| dot(query, &keys[row(j)]) * scale).collect();
        for (&j, weight) in attended.iter().zip(softmax(&scores)) {
            add_scaled(out, weight, &values[row(j)]);
        }
    }
    out
}

/// Dense causal attention: query i stands at first_position + i and sees the rows 0..=first_position + i.
///
/// queries `[n_q, G, d]` and keys `[n, d]` carry their true rotations, values are `[n, d]` with
/// n ≥ first_position + n_q; group is G; the result is `[n_q, G, d]`.
pub fn causal(
    queries: &[f64],
    group: usize,
    keys: &[f64],
    values: &[f64],
    head_dim: usize,
    scale: f64,
    first_position: usize,
) -> Vec<f64> {
    assert_eq!(queries.len() % (group * head_dim), 0, "causal: queries are [n, group, head_dim]");
    let mut out = Vec::with_capacity(queries.len());
    for (i, heads) in queries.chunks_exact(group * head_dim).enumerate() {
        let seen = first_position + i + 1;
        assert!(seen * head_dim <= keys.len(), "causal: a query beyond the last key");
        let rows = ..seen * head_dim;
        out.extend(attend(heads, &keys[rows], &values[rows], head_dim, scale, &vec![true; seen]));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::{attend, causal};

    const KEYS: [f64; 6] = [0.0, 0.0, 2.0, 0.0, 0.0, 4.0];
    const VALUES: [f64; 6] = [3.0, 0.0, 0.0, 6.0, 9.0, 9.0];

    fn assert_close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() <= 1e-14, "got {got}, want {want}");
        }
    }

    #[test]
    fn heads_weigh_the_marked_rows_by_their_scores() {
        // Head 0 scores the first two rows 0 and ln 2, head 1 both 0; the third row is masked for both.
        let queries = [LN_2, 7.0, 0.0, 7.0];
        let out = attend(&queries, &KEYS, &VALUES, 2, 0.5, &[true, true, false]);
        assert_close(&out, &[1.0, 4.0, 1.5, 3.0]);
    }

    #[test]
    fn masked_rows_do_not_enter_the_sum() {
        assert_close(&attend(&[LN_2, 0.0], &KEYS, &VALUES, 2, 0.5, &[false, false, true]), &[9.0, 9.0]);
        // Rows 1 and 2 with scores ln 2 and 0: weights 2/3 and 1/3.
        assert_close(&attend(&[LN_2, 0.0], &KEYS, &VALUES, 2, 0.5, &[false, true, true]), &[3.0, 7.0]);
    }

    #[test]
    fn large_scores_do_not_overflow() {
        assert_close(&attend(&[1e4, 0.0], &KEYS, &VALUES, 2, 1.0, &[true; 3]), &[0.0, 6.0]);
    }

    #[test]
    fn a_query_sees_itself_and_what_came_before() {
        // Equal scores everywhere: each query gets the mean of the values up to its own.
        let out = causal(&[0.0; 6], 1, &KEYS, &VALUES, 2, 1.0, 0);
        assert_close(&out, &[3.0, 0.0, 1.5, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn a_later_chunk_sees_the_earlier_rows() {
        let out = causal(&[0.0; 4], 1, &KEYS, &VALUES, 2, 1.0, 1);
        assert_close(&out, &[1.5, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn the_heads_of_a_group_stay_apart() {
        let queries = [0.0, 0.0, 0.0, 9.0, LN_2, 0.0, 0.0, 0.0];
        let out = causal(&queries, 2, &KEYS[..4], &VALUES[..4], 2, 0.5, 0);
        assert_close(&out, &[3.0, 0.0, 3.0, 0.0, 1.0, 4.0, 1.5, 3.0]);
    }

    #[test]
    #[should_panic(expected = "nothing to attend to")]
    fn an_empty_mask_is_refused() {
        attend(&[1.0, 1.0], &KEYS, &VALUES, 2, 1.0, &[false; 3]);
    }

    #[test]
    #[should_panic(expected = "a query beyond the last key")]
    fn a_query_beyond_the_keys_is_refused() {
        causal(&[0.0; 4], 1, &KEYS, &VALUES, 2, 1.0, 2);
    }
}
