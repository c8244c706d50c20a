//! How good a codebook is, on tokens that it was not made from.
//!
//! Scores are those that retrieval goes by: of queries rotated to the relative position with keys that are not rotated, true
//! ones q·k and those of the keys' codewords q·k̂. All keys that were kept apart count as one context. What the fixed
//! position itself costs is not part of it.

use crate::{attention::encode, error::Result};
use a2ats_kernel::{
    Codebook, Elements, Kernels,
    linear::{Inputs, Matrix, Purpose, Vectors, rows_per_task},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Figures of one kv head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Root mean square of q·k̂ − q·k over that of q·k less its mean for the query; none without tokens kept apart.
    pub score_error: Option<f64>,
    /// Share of the keys with the highest 1% of true scores that are among the highest 1% by codewords, on average over
    /// queries.
    pub recall_1: Option<f64>,
    /// The same of 3%.
    pub recall_3: Option<f64>,
    /// Keys of the smallest, the middle and the largest cluster.
    pub cluster_sizes: [usize; 3],
}

/// Tokens kept apart.
pub(super) struct HeldOut<'a> {
    /// `[n, head_dim]`, not rotated.
    pub(super) keys: Vec<f32>,
    /// `[probes, head_dim]`, at the relative position.
    pub(super) queries: &'a [f32],
}

/// `codewords` is `[codes, head_dim]`; `sizes` are the keys of each cluster.
pub(super) fn measure(
    kernels: &dyn Kernels,
    book: &Codebook,
    codewords: &[f32],
    held_out: &HeldOut<'_>,
    sizes: &[usize],
) -> Result<Quality> {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    let cluster_sizes = [sizes[0], sizes[sizes.len() / 2], sizes[sizes.len() - 1]];
    let d = book.head_dim();
    if held_out.keys.is_empty() || held_out.queries.is_empty() {
        return Ok(Quality { score_error: None, recall_1: None, recall_3: None, cluster_sizes });
    }
    let mut codes = vec![0; held_out.keys.len() / d];
    encode(kernels, book, &held_out.keys, &mut codes)?;
    let truth = scores(kernels, held_out.queries, &held_out.keys, d)?;
    let by_code = scores(kernels, held_out.queries, codewords, d)?;
    let of_query = truth.par_chunks(codes.len()).zip(by_code.par_chunks(book.codes()));
    let figures: Vec<Figures> = of_query
        .map(|(truth, by_code)| {
            let estimates: Vec<f32> = codes.iter().map(|&code| by_code[usize::from(code)]).collect();
            Figures::new(truth, &estimates)
        })
        .collect();
    let mean = |figure: fn(&Figures) -> f64| figures.iter().map(figure).sum::<f64>() / figures.len() as f64;
    let spread = mean(|figures| figures.spread);
    Ok(Quality {
        score_error: (spread > 0.0).then(|| (mean(|figures| figures.error) / spread).sqrt()),
        recall_1: Some(mean(|figures| figures.recall[0])),
        recall_3: Some(mean(|figures| figures.recall[1])),
        cluster_sizes,
    })
}

/// Scores of `queries` with `rows`, both `[n, d]`: `[queries, rows]`.
fn scores(kernels: &dyn Kernels, queries: &[f32], rows: &[f32], d: usize) -> Result<Vec<f32>> {
    let (count, of_rows) = (queries.len() / d, rows.len() / d);
    let matrix = Matrix::new(Elements::F32(queries), count, d)?;
    let mut inputs = Inputs::default();
    kernels.prepare(Vectors::Rows(rows), Purpose::new(&matrix, of_rows), &mut inputs)?;
    let part = rows_per_task(count, of_rows, rayon::current_num_threads());
    let mut scores = vec![0.0; count * of_rows];
    scores.par_chunks_mut(part * of_rows).enumerate().try_for_each(|(number, scores)| {
        kernels.product(matrix.row_range(number * part..(number + 1) * part), &inputs, scores)
    })?;
    Ok(scores)
}

/// Of one query.
struct Figures {
    /// Mean square of the error.
    error: f64,
    /// Variance of the true scores.
    spread: f64,
    recall: [f64; 2],
}

impl Figures {
    fn new(truth: &[f32], estimates: &[f32]) -> Self {
        let count = truth.len() as f64;
        let mean = truth.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let square = |x: f64| x * x;
        let errors = truth.iter().zip(estimates).map(|(&x, &y)| square(f64::from(y) - f64::from(x)));
        let (true_order, order) = (best_first(truth), best_first(estimates));
        let recall = |share: f64| {
            let taken = ((share * count) as usize).max(1);
            let mut is_true = vec![false; truth.len()];
            for &at in &true_order[..taken] {
                is_true[at] = true;
            }
            order[..taken].iter().filter(|&&at| is_true[at]).count() as f64 / taken as f64
        };
        Self {
            error: errors.sum::<f64>() / count,
            spread: truth.iter().map(|&x| square(f64::from(x) - mean)).sum::<f64>() / count,
            recall: [recall(0.01), recall(0.03)],
        }
    }
}

/// Positions by descending score, the lower position first among equal ones.
fn best_first(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn estimates_that_are_true_have_no_error() {
        let truth: Vec<f32> = (0..200).map(|i| (i * 37 % 200) as f32).collect();
        let figures = Figures::new(&truth, &truth);
        assert_eq!((figures.error, figures.recall), (0.0, [1.0, 1.0]));
    }

    #[test]
    fn recall_counts_what_both_orders_take() {
        let truth: Vec<f32> = (0..100).map(|i| i as f32).collect();
        let mut estimates = truth.clone();
        // Of the three best, 97 to 99, one is not found; of the best one, none.
        estimates[99] = -1.0;
        let figures = Figures::new(&truth, &estimates);
        assert_eq!(figures.recall, [0.0, 2.0 / 3.0]);
        assert_eq!(figures.error, 100.0);
        assert_eq!(figures.spread, (0..100).map(|i| (f64::from(i) - 49.5).powi(2)).sum::<f64>() / 100.0);
    }
}
