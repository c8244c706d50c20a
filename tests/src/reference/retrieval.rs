//! Which positions a group attends (the specification, decode step 3), by scoring and sorting every position.

/// What the heads of one group retrieve out of L positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retrieved {
    /// `[L]`: the union of the heads' picks, the window and the sinks.
    pub attended: Vec<bool>,
    /// `[L]`: the union of the heads' picks alone. The share of it that is true is the union fraction.
    pub picked: Vec<bool>,
}

/// int(share · L), the number of tokens that each head takes, computed in float64.
pub fn take_count(share: f64, sequence_length: usize) -> usize {
    assert!(share >= 0.0, "take_count: the share is a number, and not negative");
    (share * sequence_length as f64) as usize
}

/// Decode step 3 for one kv head.
///
/// scores_per_head is `[G][C]`: the score of every code for every query head; codes `[L]` are those of the
/// cached keys. The last `window` and the first `sinks` positions are always attended. Among the others every
/// head takes the int(retrieve_share · L) best-scoring, the lower position first where scores are equal
/// (0 and −0 are), and the group attends the union.
///
/// A head that may take more positions than there are others goes on with the always attended ones, lower
/// positions first: they are attended anyway, and count as picked.
pub fn retrieve(
    scores_per_head: &[Vec<f64>],
    codes: &[usize],
    sequence_length: usize,
    retrieve_share: f64,
    window: usize,
    sinks: usize,
) -> Retrieved {
    assert_eq!(codes.len(), sequence_length, "retrieve: one code per cached token");
    let window_start = sequence_length.saturating_sub(window);
    let always: Vec<bool> = (0..sequence_length).map(|p| p < sinks || p >= window_start).collect();
    let take = take_count(retrieve_share, sequence_length);

    let mut picked = vec![false; sequence_length];
    for scores in scores_per_head {
        assert!(scores.iter().all(|score| !score.is_nan()), "retrieve: scores are numbers");
        let score =
            |position: usize| if always[position] { f64::NEG_INFINITY } else { scores[codes[position]] };
        let mut best_first: Vec<usize> = (0..sequence_length).collect();
        // A stable sort leaves positions of equal score in their order.
        best_first.sort_by(|&a, &b| score(b).partial_cmp(&score(a)).expect("scores are numbers"));
        for &position in best_first.iter().take(take) {
            picked[position] = true;
        }
    }
    let attended = picked.iter().zip(&always).map(|(&picked, &always)| picked || always).collect();
    Retrieved { attended, picked }
}

#[cfg(test)]
mod tests {
    use super::{retrieve, take_count};

    const CODES: [usize; 10] = [0, 1, 0, 1, 2, 0, 1, 2, 2, 0];

    fn positions(mask: &[bool]) -> Vec<usize> {
        (0..mask.len()).filter(|&position| mask[position]).collect()
    }

    #[test]
    fn take_counts_are_cut_off_in_float64() {
        assert_eq!(take_count(0.03, 100), 3);
        assert_eq!(take_count(0.03, 99), 2);
        assert_eq!(take_count(0.03, 33), 0);
        // 0.29 * 100 is 28.999999999999996 in float64 and 29 in float32.
        assert_eq!(take_count(0.29, 100), 28);
        assert_eq!(take_count(1.0, 7), 7);
        assert_eq!(take_count(2.0, 7), 14);
        assert_eq!(take_count(0.5, 0), 0);
    }

    #[test]
    fn a_head_takes_codes_in_descending_score_and_the_last_one_in_part() {
        // Always attended: 0, 8 and 9. Code 1 is at 1, 3 and 6, code 2 at 4 and 7 (and at 8, in the window).
        let scores = [vec![1.0, 3.0, 2.0]];
        let three = retrieve(&scores, &CODES, 10, 0.3, 2, 1);
        assert_eq!(positions(&three.picked), [1, 3, 6]);
        assert_eq!(positions(&three.attended), [0, 1, 3, 6, 8, 9]);
        let four = retrieve(&scores, &CODES, 10, 0.4, 2, 1);
        assert_eq!(positions(&four.picked), [1, 3, 4, 6]);
        let two = retrieve(&scores, &CODES, 10, 0.2, 2, 1);
        assert_eq!(positions(&two.picked), [1, 3]);
    }

    #[test]
    fn codes_of_equal_score_merge_by_position() {
        let retrieved = retrieve(&[vec![5.0, 5.0, -1.0]], &CODES, 10, 0.3, 2, 1);
        assert_eq!(positions(&retrieved.picked), [1, 2, 3]);
    }

    #[test]
    fn zero_and_minus_zero_are_equal() {
        for scores in [vec![0.0, -0.0], vec![-0.0, 0.0]] {
            assert_eq!(positions(&retrieve(&[scores], &[1, 0, 1, 0], 4, 0.75, 0, 0).picked), [0, 1, 2]);
        }
    }

    #[test]
    fn the_group_attends_the_union_of_its_heads() {
        let scores = [vec![1.0, 3.0, 2.0], vec![5.0, 5.0, -1.0]];
        let retrieved = retrieve(&scores, &CODES, 10, 0.3, 2, 1);
        assert_eq!(positions(&retrieved.picked), [1, 2, 3, 6]);
        assert_eq!(positions(&retrieved.attended), [0, 1, 2, 3, 6, 8, 9]);
    }

    #[test]
    fn the_first_token_outside_the_window_is_eligible_and_the_window_is_barred() {
        // Window 3 of 6: positions 3, 4, 5. Code 0 scores best and is at 2 and 3 only.
        let retrieved = retrieve(&[vec![1.0, 0.0]], &[1, 1, 0, 0, 1, 1], 6, 0.2, 3, 0);
        assert_eq!(positions(&retrieved.picked), [2]);
        assert_eq!(positions(&retrieved.attended), [2, 3, 4, 5]);
    }

    #[test]
    fn the_first_token_after_the_sinks_is_eligible_and_the_sinks_are_barred() {
        let retrieved = retrieve(&[vec![1.0, 0.0]], &[0, 0, 0, 1, 1, 1], 6, 0.2, 0, 2);
        assert_eq!(positions(&retrieved.picked), [2]);
        assert_eq!(positions(&retrieved.attended), [0, 1, 2]);
    }

    #[test]
    fn a_share_of_zero_leaves_window_and_sinks() {
        let retrieved = retrieve(&[vec![1.0]], &[0; 6], 6, 0.0, 2, 1);
        assert_eq!(positions(&retrieved.picked), [0; 0]);
        assert_eq!(positions(&retrieved.attended), [0, 4, 5]);
    }

    #[test]
    fn taking_more_than_is_eligible_goes_on_with_the_lowest_always_attended() {
        // Eligible: 1 and 2; four are taken, so that the sink 0 and then the window's 3 count as picked.
        let retrieved = retrieve(&[vec![1.0]], &[0; 5], 5, 0.8, 2, 1);
        assert_eq!(positions(&retrieved.picked), [0, 1, 2, 3]);
        assert_eq!(retrieved.attended, [true; 5]);
        let beyond = retrieve(&[vec![1.0]], &[0; 5], 5, 3.0, 2, 1);
        assert_eq!(beyond.picked, [true; 5]);
    }

    #[test]
    fn window_and_sinks_that_cover_everything_attend_everything() {
        for (window, sinks) in [(2, 1), (3, 0), (0, 3), (9, 9), (usize::MAX, usize::MAX)] {
            let retrieved = retrieve(&[vec![0.0, 1.0]], &[0, 1, 1], 3, 0.34, window, sinks);
            assert_eq!(retrieved.attended, [true; 3], "window {window}, sinks {sinks}");
            assert_eq!(positions(&retrieved.picked), [0], "window {window}, sinks {sinks}");
        }
    }

    #[test]
    fn an_empty_cache_retrieves_nothing() {
        let retrieved = retrieve(&[vec![1.0]], &[], 0, 0.5, 2, 1);
        assert!(retrieved.attended.is_empty() && retrieved.picked.is_empty());
    }
}
