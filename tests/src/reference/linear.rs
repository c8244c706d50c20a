//! Matrix products. A weight matrix is `[rows, cols]` and maps `cols` inputs to `rows` outputs, as in the
//! files of Hugging Face.

/// Independent sums per dot product: float additions are not reordered by the compiler, so one sum would keep
/// it from using vector instructions.
const LANES: usize = 8;

/// weights `[rows, cols]` times x `[cols]`: `[rows]`.
pub fn matvec(weights: &[f64], rows: usize, cols: usize, x: &[f64]) -> Vec<f64> {
    matmul(weights, rows, cols, x, 1)
}

/// weights `[rows, cols]` times each of the n rows of xs `[n, cols]`: `[n, rows]`.
pub fn matmul(weights: &[f64], rows: usize, cols: usize, xs: &[f64], n: usize) -> Vec<f64> {
    assert!(rows > 0 && cols > 0, "matmul: an empty matrix");
    assert_eq!(weights.len(), rows * cols, "matmul: weights are [rows, cols]");
    assert_eq!(xs.len(), n * cols, "matmul: xs are [n, cols]");
    let mut out = Vec::with_capacity(n * rows);
    for x in xs.chunks_exact(cols) {
        out.extend(weights.chunks_exact(cols).map(|row| dot(row, x)));
    }
    out
}

/// Σ aᵢ bᵢ.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum_over_pairs(a, b, |x, y| x * y)
}

/// Σ (aᵢ − bᵢ)².
pub(super) fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    sum_over_pairs(a, b, |x, y| (x - y) * (x - y))
}

/// to += factor · x, element by element.
pub(super) fn add_scaled(to: &mut [f64], factor: f64, x: &[f64]) {
    assert_eq!(to.len(), x.len(), "add_scaled: vectors of one length");
    for (to, x) in to.iter_mut().zip(x) {
        *to += factor * x;
    }
}

fn sum_over_pairs(a: &[f64], b: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&x, &y)| term(x, y)).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::{add_scaled, dot, matmul, matvec, squared_distance};

    #[test]
    fn dot_and_distance_cover_whole_chunks_and_the_rest() {
        for length in [0, 1, 7, 8, 9, 16, 19] {
            let a: Vec<f64> = (1..=length).map(f64::from).collect();
            let b: Vec<f64> = a.iter().map(|x| 2.0 * x).collect();
            let squares = f64::from(length * (length + 1) * (2 * length + 1) / 6);
            assert_eq!(dot(&a, &b), 2.0 * squares, "length {length}");
            assert_eq!(squared_distance(&a, &b), squares, "length {length}");
        }
    }

    #[test]
    fn matvec_takes_rows_as_outputs() {
        assert_eq!(matvec(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3, &[1.0, 0.0, -1.0]), [-2.0, -2.0]);
        assert_eq!(matvec(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2, &[1.0, 10.0]), [21.0, 43.0, 65.0]);
    }

    #[test]
    fn matmul_keeps_each_input_row_apart() {
        let xs = [1.0, 10.0, 0.0, 1.0];
        assert_eq!(matmul(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2, &xs, 2), [21.0, 43.0, 65.0, 2.0, 4.0, 6.0]);
        assert!(matmul(&[1.0], 1, 1, &[], 0).is_empty());
    }

    #[test]
    fn add_scaled_adds_in_place() {
        let mut to = [1.0, 2.0];
        add_scaled(&mut to, -2.0, &[3.0, 4.0]);
        assert_eq!(to, [-5.0, -6.0]);
    }

    #[test]
    #[should_panic(expected = "weights are [rows, cols]")]
    fn a_wrong_shape_is_refused() {
        matvec(&[1.0, 2.0, 3.0], 2, 2, &[1.0, 1.0]);
    }
}
