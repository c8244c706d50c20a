//! What is clustered.

use crate::error::{Error, Result, expect_len};

/// Largest coordinate: the square of a distance is a finite f32 up to a dimension of 65536 and more.
const LARGEST: f32 = 1e15;

/// Points to cluster, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Points<'a> {
    coordinates: &'a [f32],
    weights: Option<&'a [f32]>,
    dim: usize,
}

impl<'a> Points<'a> {
    /// Sees `coordinates` as `[n, dim]`; `weights` is `[n]`.
    ///
    /// # Errors
    /// If there is no point, the slices do not fit together, a coordinate is not finite or above 1e15, or a weight is not finite
    /// and above 0.
    pub fn new(coordinates: &'a [f32], dim: usize, weights: Option<&'a [f32]>) -> Result<Self> {
        let count = coordinates.len().checked_div(dim).unwrap_or(0);
        let refuse = |what, got: String, supported| Err(Error::Unsupported { what, got, supported });
        if count == 0 || u32::try_from(count).is_err() {
            return refuse("the number of points", count.to_string(), "1 to 2^32 − 1");
        }
        expect_len("points", coordinates.len(), count * dim)?;
        if let Some(at) = coordinates.iter().position(|x| x.is_nan() || x.abs() > LARGEST) {
            let got = format!("{} in point {}", coordinates[at], at / dim);
            return refuse("a coordinate", got, "numbers up to 1e15");
        }
        if let Some(weights) = weights {
            expect_len("weights", weights.len(), count)?;
            if let Some(bad) = weights.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
                return refuse("a weight", bad.to_string(), "finite numbers above 0");
            }
        }
        Ok(Self { coordinates, weights, dim })
    }

    /// How many points there are; at least one.
    pub fn count(&self) -> usize {
        self.coordinates.len() / self.dim
    }

    /// Numbers of a point.
    pub const fn dim(&self) -> usize {
        self.dim
    }

    /// A point.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn point(&self, number: usize) -> &'a [f32] {
        &self.coordinates[number * self.dim..][..self.dim]
    }

    /// What a point counts.
    ///
    /// # Panics
    /// If there is none of that number and points count differently.
    pub fn weight(&self, number: usize) -> f32 {
        self.weights.map_or(1.0, |weights| weights[number])
    }

    /// Whether points count differently.
    pub const fn weights(&self) -> Option<&'a [f32]> {
        self.weights
    }

    /// The mean of all points, without regard to their weights: what is taken out of them to keep rounding small.
    pub fn mean(&self) -> Vec<f32> {
        let mut sum = vec![0.0_f64; self.dim];
        for number in 0..self.count() {
            for (sum, &x) in sum.iter_mut().zip(self.point(number)) {
                *sum += f64::from(x);
            }
        }
        sum.into_iter().map(|sum| (sum / self.count() as f64) as f32).collect()
    }
}
