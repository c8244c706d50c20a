//! A wrong result is not worth timing.

/// Panics if `got` is further from `want` than `tolerance`, relative to the root of the mean square of `want`.
pub fn close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let size = (want.iter().map(|x| x * x).sum::<f64>() / want.len() as f64).sqrt();
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - want).abs() / size;
        assert!(error <= tolerance, "{what}: element {i} is {got}, the reference has {want}");
    }
}
