//! From the space of a Cholesky factor back to key space.

/// x with x·L = c, for each row c of `[n, d]`.
pub(crate) fn solve_rows(factor: &[f64], d: usize, rows: &[f32]) -> Vec<f32> {
    let mut solved = Vec::with_capacity(rows.len());
    let mut x = vec![0.0_f64; d];
    for row in rows.chunks_exact(d) {
        for j in (0..d).rev() {
            let sum: f64 = (j + 1..d).map(|i| x[i] * factor[i * d + j]).sum();
            x[j] = (f64::from(row[j]) - sum) / factor[j * d + j];
        }
        solved.extend(x.iter().map(|&x| x as f32));
    }
    solved
}

#[cfg(test)]
mod tests {
    use super::solve_rows;

    #[test]
    fn solving_undoes_multiplying() {
        let l = [2.0, 0.0, 0.0, -1.0, 0.5, 0.0, 3.0, 1.0, 4.0];
        let x = [1.0_f64, -2.0, 0.25];
        let c: Vec<f32> = (0..3).map(|j| (0..3).map(|i| x[i] * l[i * 3 + j]).sum::<f64>() as f32).collect();
        assert_eq!(solve_rows(&l, 3, &c), [1.0, -2.0, 0.25]);
    }
}
