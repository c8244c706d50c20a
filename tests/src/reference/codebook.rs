//! The codebook of one kv head: query-aware vector quantization (the specification, calibration steps 2 to 4
//! and decode steps 1 and 2).
//!
//! Clustering happened on k·L_H, where plain squared distance is (k − k̂) H (k − k̂)ᵀ, the error of the
//! attention score. Codewords are held in key space, ĉ = c·L_H⁻¹, where a score is one dot product.

use std::cmp::Ordering;

use super::linear::{dot, matmul, squared_distance};

/// The codewords of one kv head and the factor of the metric they were clustered in.
#[derive(Clone, Debug, PartialEq)]
pub struct Codebook {
    /// C, the number of codewords.
    pub codes: usize,
    /// d, the head dimension.
    pub head_dim: usize,
    /// ĉ: the codewords in key space, `[C, d]`.
    pub codewords: Vec<f64>,
    /// L_H, lower triangular, `[d, d]`: H + 1e-6 I = L_H L_Hᵀ.
    pub cholesky: Vec<f64>,
}

impl Codebook {
    /// From centroids c `[C, d]` as clustering left them, L_H `[d, d]` and its inverse `[d, d]`
    /// (calibration step 4: ĉ = c·L_H⁻¹).
    pub fn from_cholesky_space(
        codebook: &[f64],
        cholesky: &[f64],
        inverse: &[f64],
        codes: usize,
        head_dim: usize,
    ) -> Self {
        assert_eq!(codebook.len(), codes * head_dim, "from_cholesky_space: centroids are [codes, head_dim]");
        assert_eq!(
            cholesky.len(),
            head_dim * head_dim,
            "from_cholesky_space: cholesky is [head_dim, head_dim]"
        );
        let codewords = rows_times(codebook, inverse, head_dim);
        Self { codes, head_dim, codewords, cholesky: cholesky.to_vec() }
    }

    /// q·ĉ_c for every code: `[C]` (decode step 2). q `[d]` is a query rotated to the relative position.
    pub fn scores(&self, q: &[f64]) -> Vec<f64> {
        self.codewords.chunks_exact(self.head_dim).map(|codeword| dot(codeword, q)).collect()
    }

    /// ‖k·L_H − ĉ·L_H‖² for every code: `[C]`. key `[d]` is not rotated.
    pub fn distances(&self, key: &[f64]) -> Vec<f64> {
        self.distances_among(&self.in_cholesky_space(), key)
    }

    /// The code of one un-rotated key `[d]` (decode step 1): the least distance, the lowest code on ties.
    pub fn encode(&self, key: &[f64]) -> usize {
        nearest(&self.distances(key))
    }

    /// The codes of n un-rotated keys `[n, d]`: `[n]`, each as [`Codebook::encode`] gives it.
    pub fn encode_all(&self, keys: &[f64]) -> Vec<usize> {
        assert_eq!(keys.len() % self.head_dim, 0, "encode_all: keys are [n, head_dim]");
        let centroids = self.in_cholesky_space();
        keys.chunks_exact(self.head_dim).map(|key| nearest(&self.distances_among(&centroids, key))).collect()
    }

    /// By how much the second best distance of a key `[d]` exceeds the best: zero where two codes tie,
    /// infinite with one code only. Rounding may honestly change a code whose gap is tiny.
    pub fn encode_gap(&self, key: &[f64]) -> f64 {
        let mut distances = self.distances(key);
        let best = distances.remove(nearest(&distances));
        distances.into_iter().fold(f64::INFINITY, f64::min) - best
    }

    /// ĉ·L_H of every codeword, `[C, d]`.
    fn in_cholesky_space(&self) -> Vec<f64> {
        assert_eq!(self.codewords.len(), self.codes * self.head_dim, "codewords are [codes, head_dim]");
        rows_times(&self.codewords, &self.cholesky, self.head_dim)
    }

    fn distances_among(&self, centroids: &[f64], key: &[f64]) -> Vec<f64> {
        let key = rows_times(key, &self.cholesky, self.head_dim);
        centroids.chunks_exact(self.head_dim).map(|centroid| squared_distance(centroid, &key)).collect()
    }
}

/// The index of the least distance, the lowest on ties.
fn nearest(distances: &[f64]) -> usize {
    let compare =
        |a: &f64, b: &f64| -> Ordering { a.partial_cmp(b).expect("keys and codewords are numbers") };
    let best = distances.iter().enumerate().min_by(|(_, a), (_, b)| compare(a, b));
    best.expect("a codebook has at least one code").0
}

/// Each row of xs `[n, size]`, from the left, times matrix `[size, size]`: `[n, size]`.
fn rows_times(xs: &[f64], matrix: &[f64], size: usize) -> Vec<f64> {
    assert_eq!(matrix.len(), size * size, "a square matrix");
    let transposed: Vec<f64> = (0..size * size).map(|i| matrix[i % size * size + i / size]).collect();
    matmul(&transposed, size, size, xs, xs.len() / size)
}

#[cfg(test)]
mod tests {
    use super::Codebook;

    /// L_H = [[2, 0], [3, 1]], its inverse [[0.5, 0], [-1.5, 1]], centroids (2, 0), (1, 1) and (6, 4).
    fn codebook() -> Codebook {
        let inverse = [0.5, 0.0, -1.5, 1.0];
        Codebook::from_cholesky_space(&[2.0, 0.0, 1.0, 1.0, 6.0, 4.0], &[2.0, 0.0, 3.0, 1.0], &inverse, 3, 2)
    }

    fn identity(codewords: &[f64]) -> Codebook {
        let codewords = codewords.to_vec();
        Codebook { codes: codewords.len() / 2, head_dim: 2, codewords, cholesky: vec![1.0, 0.0, 0.0, 1.0] }
    }

    #[test]
    fn codewords_are_centroids_times_the_inverse() {
        assert_eq!(codebook().codewords, [1.0, 0.0, -1.0, 1.0, -3.0, 4.0]);
    }

    #[test]
    fn scores_are_products_in_key_space() {
        assert_eq!(codebook().scores(&[10.0, 1.0]), [10.0, -9.0, -26.0]);
    }

    #[test]
    fn distances_are_squared_in_cholesky_space() {
        // (1, 1) L = (5, 1): away from (2, 0), (1, 1), (6, 4) by 9 + 1, 16 + 0, 1 + 9.
        assert_eq!(codebook().distances(&[1.0, 1.0]), [10.0, 16.0, 10.0]);
    }

    #[test]
    fn the_metric_decides_the_code_and_not_the_key_space_distance() {
        // (-2, 2) L = (2, 2): squared distances 4, 2, 20, while in key space 13, 2, 5.
        assert_eq!(codebook().encode(&[-2.0, 2.0]), 1);
        // (0, 1) L = (3, 1): squared distances 2, 4, 18, while in key space 2, 1, 18.
        assert_eq!(codebook().encode(&[0.0, 1.0]), 0);
    }

    #[test]
    fn ties_go_to_the_lowest_code() {
        assert_eq!(codebook().encode(&[1.0, 1.0]), 0);
        assert_eq!(identity(&[9.0, 9.0, 0.0, 1.0, 1.0, 0.0]).encode(&[0.0, 0.0]), 1);
    }

    #[test]
    fn the_gap_is_between_best_and_second_best() {
        assert_eq!(codebook().encode_gap(&[1.0, 1.0]), 0.0);
        assert_eq!(codebook().encode_gap(&[-2.0, 2.0]), 2.0);
        assert_eq!(identity(&[1.0, 1.0]).encode_gap(&[0.0, 0.0]), f64::INFINITY);
    }

    #[test]
    fn many_keys_are_encoded_as_one_by_one() {
        assert_eq!(codebook().encode_all(&[-2.0, 2.0, 0.0, 1.0, -3.0, 4.5]), [1, 0, 2]);
        assert!(codebook().encode_all(&[]).is_empty());
    }
}
