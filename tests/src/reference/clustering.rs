//! k-means as the textbooks have it: k-means++ centroid by centroid, then Lloyd's iterations over all points and centroids.

use super::linear::{add_scaled, squared_distance};
use crate::inputs::Noise;

/// Centroids `[clusters, dim]`, the nearest one of each point, and Σ w·‖x − c‖².
#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// `[clusters, dim]`
    pub centroids: Vec<f64>,
    /// `[n]`
    pub labels: Vec<usize>,
    /// Σ w·‖x − c‖²
    pub objective: f64,
}

/// Clusters points `[n, dim]` of weights `[n]` in so many iterations, or until nothing changes.
pub fn k_means(
    points: &[f64],
    weights: &[f64],
    clusters: usize,
    iterations: usize,
    noise: &mut Noise,
) -> Clustering {
    let dim = points.len() / weights.len();
    let mut now = assign(points, weights, &plus_plus(points, weights, clusters, noise));
    for _ in 0..iterations {
        let next = assign(points, weights, &means(points, weights, dim, &now));
        let same = next == now;
        now = next;
        if same {
            break;
        }
    }
    now
}

/// Gives each point to the nearest centroid, the first of equally near ones.
pub fn assign(points: &[f64], weights: &[f64], centroids: &[f64]) -> Clustering {
    let dim = points.len() / weights.len();
    let (mut labels, mut objective) = (Vec::new(), 0.0);
    for (point, weight) in points.chunks_exact(dim).zip(weights) {
        let distances = centroids.chunks_exact(dim).map(|centroid| squared_distance(point, centroid));
        let nearest = distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        let (label, distance) = nearest.expect("there are centroids");
        labels.push(label);
        objective += weight * distance;
    }
    Clustering { centroids: centroids.to_vec(), labels, objective }
}

/// The mean of each cluster's points; where it has none, its centroid stays.
fn means(points: &[f64], weights: &[f64], dim: usize, of: &Clustering) -> Vec<f64> {
    let clusters = of.centroids.len() / dim;
    let (mut sums, mut totals) = (vec![0.0; of.centroids.len()], vec![0.0; clusters]);
    for ((point, weight), &label) in points.chunks_exact(dim).zip(weights).zip(&of.labels) {
        add_scaled(&mut sums[label * dim..(label + 1) * dim], *weight, point);
        totals[label] += weight;
    }
    let sums = sums.chunks_exact(dim).zip(&totals).zip(of.centroids.chunks_exact(dim));
    let mean = |((sum, &total), old): ((&[f64], &f64), &[f64])| -> Vec<f64> {
        if total == 0.0 { old.to_vec() } else { sum.iter().map(|x| x / total).collect() }
    };
    sums.flat_map(mean).collect()
}

/// k-means++: each next centroid is a point drawn with a probability proportional to w·D².
fn plus_plus(points: &[f64], weights: &[f64], clusters: usize, noise: &mut Noise) -> Vec<f64> {
    let dim = points.len() / weights.len();
    let mut odds = weights.to_vec();
    let mut distances = vec![f64::INFINITY; weights.len()];
    let mut centroids = Vec::new();
    for _ in 0..clusters {
        let mut left = noise.share() * odds.iter().sum::<f64>();
        let drawn = odds.iter().position(|odds| {
            left -= odds;
            left < 0.0
        });
        let centroid = &points[drawn.unwrap_or(0) * dim..][..dim];
        centroids.extend_from_slice(centroid);
        for (((point, weight), distance), odds) in
            points.chunks_exact(dim).zip(weights).zip(&mut distances).zip(&mut odds)
        {
            *distance = distance.min(squared_distance(point, centroid));
            *odds = weight * *distance;
        }
    }
    centroids
}

#[cfg(test)]
mod tests {
    use super::{assign, k_means};
    use crate::inputs::Noise;

    #[test]
    fn separate_groups_are_found() {
        let points = [0.0, 1.0, 10.0, 11.0, 12.0, -20.0];
        let found = k_means(&points, &[1.0; 6], 3, 20, &mut Noise::new(1));
        let mut centroids = found.centroids;
        centroids.sort_by(f64::total_cmp);
        assert_eq!(centroids, [-20.0, 0.5, 11.0]);
        assert_eq!(found.objective, 2.5);
    }

    #[test]
    fn weights_pull_means() {
        let found = k_means(&[0.0, 4.0], &[3.0, 1.0], 1, 5, &mut Noise::new(1));
        assert_eq!(found.centroids, [1.0]);
        assert_eq!(found.objective, 3.0 + 9.0);
    }

    #[test]
    fn the_first_of_equally_near_centroids_is_taken() {
        assert_eq!(assign(&[1.0], &[1.0], &[2.0, 0.0]).labels, [0]);
    }
}
