//! Small matrices in f64: the queries' second moment, and its factor.

/// Adds Σ vᵀv to `moment`, `[d, d]`, of which `products` are the sums of so many vectors in f32.
pub(super) fn add(moment: &mut [f64], products: &[f32]) {
    for (moment, product) in moment.iter_mut().zip(products) {
        *moment += f64::from(*product);
    }
}

/// The lower triangular factor of a second moment, `[d, d]`, divided by the root mean square of its entries, plus 1e-6·I. None
/// if it has none: where numbers are not finite.
pub(super) fn factor(moment: &[f64], d: usize) -> Option<Vec<f64>> {
    let rms = (moment.iter().map(|x| x * x).sum::<f64>() / moment.len() as f64).sqrt();
    // Without any query there is nothing to divide by, and the metric is that of keys.
    let scale = if rms == 0.0 { 1.0 } else { rms.recip() };
    let mut factor = vec![0.0; d * d];
    for i in 0..d {
        for j in 0..=i {
            // What rounding made of symmetric sums need not be symmetric.
            let entry =
                0.5 * (moment[i * d + j] + moment[j * d + i]) * scale + if i == j { 1e-6 } else { 0.0 };
            let sum: f64 = (0..j).map(|k| factor[i * d + k] * factor[j * d + k]).sum();
            let rest = entry - sum;
            if i != j {
                factor[i * d + j] = rest / factor[j * d + j];
            } else if rest > 0.0 && rest.is_finite() {
                factor[i * d + i] = rest.sqrt();
            } else {
                return None;
            }
        }
    }
    Some(factor)
}

#[cfg(test)]
mod tests {
    use super::factor;

    #[test]
    fn factors_are_lower_triangular_and_give_the_moment_back() {
        let moment = [4.0, 2.0, -1.0, 2.0, 5.0, 0.5, -1.0, 0.5, 3.0];
        let rms = (moment.iter().map(|x| x * x).sum::<f64>() / 9.0).sqrt();
        let l = factor(&moment, 3).unwrap();
        assert_eq!([l[1], l[2], l[5]], [0.0; 3]);
        for i in 0..3 {
            for j in 0..3 {
                let product: f64 = (0..3).map(|k| l[i * 3 + k] * l[j * 3 + k]).sum();
                let want = moment[i * 3 + j] / rms + if i == j { 1e-6 } else { 0.0 };
                assert!((product - want).abs() < 1e-12, "{i} {j}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_has_no_factor() {
        assert!(factor(&[f64::NAN], 1).is_none());
        assert!(factor(&[f64::INFINITY], 1).is_none());
    }

    #[test]
    fn without_queries_all_directions_count_the_same() {
        let l = factor(&[0.0; 4], 2).unwrap();
        assert_eq!(l[0], l[3]);
        assert_eq!([l[1], l[2]], [0.0; 2]);
    }
}
