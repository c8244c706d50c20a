//! Points to cluster, and what must hold of a clustering whoever made it.

use crate::{
    inputs::Noise,
    reference::{clustering::assign, to_f64},
};
use a2ats_kernel::clustering::{Clusterer, Clustering, Points, Progress, Settings};
use std::ops::ControlFlow;

/// Clusters and keeps the objectives on the way.
///
/// # Panics
/// If it fails.
pub fn cluster(
    clusterer: &dyn Clusterer,
    points: &Points<'_>,
    settings: &Settings,
) -> (Clustering, Vec<f64>) {
    let mut objectives = Vec::new();
    let found = clusterer.cluster(points, settings, &mut |progress| {
        if let Progress::Iteration { objective, .. } = progress {
            objectives.push(objective);
        }
        ControlFlow::Continue(())
    });
    (found.unwrap().expect("nothing broke it off"), objectives)
}

/// So many clusters, otherwise as the paper has it.
pub fn settings(clusters: usize, seed: u64) -> Settings {
    Settings { clusters, seed, ..Settings::default() }
}

/// Points around some places, some of them the same.
pub fn clouds(noise: &mut Noise, count: usize, dim: usize) -> Vec<f32> {
    let places = 1 + noise.below(12);
    let places = noise.vector(places * dim, 8.0);
    let mut points: Vec<f32> = Vec::with_capacity(count * dim);
    for number in 0..count {
        if number > 0 && noise.below(10) == 0 {
            let again = noise.below(number);
            points.extend_from_within(again * dim..(again + 1) * dim);
        } else {
            let place = noise.below(places.len() / dim);
            let around = noise.vector(dim, 1.0);
            points.extend(places[place * dim..].iter().zip(around).map(|(a, b)| a + b));
        }
    }
    points
}

/// Every point is at the nearest centroid, every centroid with points is their mean, and the objective is what it says.
///
/// # Panics
/// If not.
pub fn check_at_rest(backend: &str, points: &[f32], weights: &[f32], found: &Clustering, clusters: usize) {
    let (count, dim) = (weights.len(), points.len() / weights.len());
    assert!(found.converged, "{backend}: {} iterations", found.iterations);
    assert_eq!((found.centroids.len(), found.labels.len()), (clusters * dim, count));
    let (points, weights, centroids) = (to_f64(points), to_f64(weights), to_f64(&found.centroids));
    let distance = |point: usize, centroid: usize| -> f64 {
        let pairs = points[point * dim..][..dim].iter().zip(&centroids[centroid * dim..][..dim]);
        pairs.map(|(a, b)| (a - b) * (a - b)).sum()
    };
    // Centroids are rounded where they lie: a thousand away, that is 6e-5.
    let rounding = 1e-3;
    let mut sums = vec![0.0; clusters * dim];
    let mut totals = vec![0.0; clusters];
    for (point, &label) in found.labels.iter().enumerate() {
        let own = distance(point, label as usize);
        let best = (0..clusters).map(|c| distance(point, c)).fold(f64::INFINITY, f64::min);
        assert!(
            own <= best * (1.0 + 1e-4) + rounding,
            "{backend}: point {point} at {own}, could be at {best}"
        );
        totals[label as usize] += weights[point];
        for (sum, x) in sums[label as usize * dim..].iter_mut().zip(&points[point * dim..][..dim]) {
            *sum += weights[point] * x;
        }
    }
    for (number, total) in totals.iter().enumerate().filter(|(_, total)| **total > 0.0) {
        for (sum, centroid) in sums[number * dim..][..dim].iter().zip(&centroids[number * dim..][..dim]) {
            assert!((sum / total - centroid).abs() < 2e-4, "{backend}: centroid {number} is no mean");
        }
    }
    let objective = assign(&points, &weights, &centroids).objective;
    let tolerance = 1e-4 * objective + rounding * weights.iter().sum::<f64>();
    assert!(
        (found.objective - objective).abs() <= tolerance,
        "{backend}: {} for {objective}",
        found.objective
    );
}

/// Clusters clouds, perhaps far away and of different weights, and checks what comes out; objectives may only fall.
///
/// # Panics
/// If anything is not as it must be.
pub fn check_clouds(
    clusterer: &dyn Clusterer,
    name: &str,
    (count, dim, clusters): (usize, usize, usize),
    (seed, weighted, far): (u64, bool, bool),
) {
    let mut noise = Noise::new(seed);
    let mut points = clouds(&mut noise, count, dim);
    if far {
        // What all have in common must not cost digits.
        points.iter_mut().for_each(|x| *x += 1000.0);
    }
    let weights: Vec<f32> =
        (0..count).map(|_| if weighted { (1 + noise.below(9)) as f32 } else { 1.0 }).collect();
    let view = Points::new(&points, dim, weighted.then_some(&weights[..])).expect("points to cluster");
    let (found, objectives) = cluster(clusterer, &view, &settings(clusters, seed));
    check_at_rest(name, &points, &weights, &found, clusters);
    let slack = |objective: f64| objective * (1.0 + 1e-5) + 1e-5;
    assert!(objectives.windows(2).all(|two| two[1] <= slack(two[0])), "{name}: {objectives:?}");
}

/// Clusters `distinct` points, each `copies` times, into more clusters than that: each gets its own.
///
/// # Panics
/// If not.
pub fn check_distinct(
    clusterer: &dyn Clusterer,
    name: &str,
    (distinct, copies, dim, clusters): (usize, usize, usize, usize),
    seed: u64,
) {
    let points = Noise::new(seed).whole_numbers(distinct * dim, 50).repeat(copies);
    let view = Points::new(&points, dim, None).expect("points to cluster");
    let (found, _) = cluster(clusterer, &view, &settings(clusters, seed));
    assert!(found.objective < 1e-6, "{name}: {}", found.objective);
    for centroid in found.centroids.chunks_exact(dim) {
        let is_point = |point: &[f32]| point.iter().zip(centroid).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(points.chunks_exact(dim).any(is_point), "{name}: {centroid:?} is no point");
    }
}

/// Clusters points up to a magnitude: centroids are no larger, the objective is a number.
///
/// # Panics
/// If not.
pub fn check_magnitude(
    clusterer: &dyn Clusterer,
    name: &str,
    (count, dim, clusters): (usize, usize, usize),
    (seed, magnitude): (u64, f32),
) {
    let points = Noise::new(seed).vector(count * dim, magnitude);
    let view = Points::new(&points, dim, None).expect("points to cluster");
    let (found, _) = cluster(clusterer, &view, &settings(clusters, seed));
    assert!(found.centroids.iter().all(|x| x.abs() <= 1.001 * magnitude), "{name}");
    assert!(found.objective.is_finite(), "{name}");
}
