//! k-means++: the first centroids are points, each drawn with a probability proportional to its weight times the square of
//! its distance to the nearest of those drawn before.

use super::{
    Progress, Settings,
    lloyd::{State, squared_distance},
};
use crate::error::Result;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::ControlFlow;

/// Most centroids of a batch: their distances to all points are computed together.
const BATCH: usize = 512;

/// A batch ends when so many candidates in a row were refused: the points have changed too much since it began.
const PATIENCE: usize = 64;

/// Points of a block of the probabilities.
const POINTS_AT_ONCE: usize = 1024;

/// Chooses the first centroids, and gives each point to the nearest.
pub(super) fn seed(
    state: &mut State<'_>,
    settings: &Settings,
    keep_on: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
    while state.clusters() < settings.clusters {
        let chosen = state.clusters();
        let size = chosen.clamp(1, BATCH).min(settings.clusters - chosen);
        let batch = draw_batch(state, size, &mut random);
        state.add_centroids(&batch)?;
        if keep_on(Progress::Seeding { chosen: state.clusters(), clusters: settings.clusters }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Draws up to `size` points, at least one.
///
/// Candidates are drawn with the probabilities before the batch, p(x) ∝ w·D²(x). Each is kept with probability D'²(x) / D²(x),
/// D' being the distance with those of the batch that were kept before it: kept ones have probabilities ∝ w·D'²(x),
/// as if they had been drawn one after the other.
fn draw_batch(state: &State<'_>, size: usize, random: &mut ChaCha8Rng) -> Vec<u32> {
    let odds = Odds::new(state);
    let dim = state.points.dim();
    let mut batch: Vec<u32> = Vec::with_capacity(size);
    // Those that were kept, less the center.
    let mut kept: Vec<f32> = Vec::with_capacity(size * dim);
    let mut refused = 0;
    while batch.len() < size && (refused < PATIENCE || batch.is_empty()) {
        let Some(candidate) = odds.draw(random.random::<f64>()) else {
            // Every point is a centroid already.
            batch.push(random.random_range(0..state.labels.len() as u32));
            continue;
        };
        let point = state.points.point(candidate);
        let least = random.random::<f64>() * f64::from(state.distances[candidate]);
        // Before the first centroid all distances are infinite, and the first candidate is kept.
        let far = |kept: &[f32]| f64::from(squared_distance(point, &state.center, kept)) > least;
        if kept.chunks_exact(dim).all(far) {
            batch.push(candidate as u32);
            kept.extend(point.iter().zip(&state.center).map(|(x, center)| x - center));
            refused = 0;
        } else {
            refused += 1;
        }
    }
    batch
}

/// Probabilities of points.
struct Odds<'s> {
    state: &'s State<'s>,
    /// The sum of each block of points, and of all before it.
    sums: Vec<f64>,
}

impl<'s> Odds<'s> {
    fn new(state: &'s State<'s>) -> Self {
        let mut sums = Vec::new();
        let mut total = 0.0;
        for first in (0..state.labels.len()).step_by(POINTS_AT_ONCE) {
            total += (first..state.labels.len().min(first + POINTS_AT_ONCE))
                .map(|point| of_point(state, point))
                .sum::<f64>();
            sums.push(total);
        }
        Self { state, sums }
    }

    /// The point at a share of the whole probability; none if no point has any.
    fn draw(&self, share: f64) -> Option<usize> {
        let target = share * self.sums.last().copied().filter(|total| *total > 0.0)?;
        let block = self.sums.partition_point(|&sum| sum <= target).min(self.sums.len() - 1);
        let mut sum = if block == 0 { 0.0 } else { self.sums[block - 1] };
        let points = block * POINTS_AT_ONCE..self.state.labels.len().min((block + 1) * POINTS_AT_ONCE);
        let mut last = None;
        for point in points {
            let odds = of_point(self.state, point);
            if odds > 0.0 {
                last = Some(point);
            }
            sum += odds;
            if sum > target {
                return Some(point);
            }
        }
        // The block's sum, rounded in another way.
        last
    }
}

/// What the probability of a point is proportional to: without centroids, its weight.
fn of_point(state: &State<'_>, point: usize) -> f64 {
    let weight = f64::from(state.points.weight(point));
    if state.clusters() == 0 { weight } else { weight * f64::from(state.distances[point]) }
}
