//! k-means, and what only the kernels' crate calls.

use crate::{
    Case,
    attention::stored,
    draw::{Draw, is_inside, is_whole, numbers},
};
use a2ats_kernel::{
    clustering::{Candidates, Clusterer, CpuClusterer, Nearest, Points, Settings, fill_empty},
    rows::{Rows, row_width},
};
use std::ops::ControlFlow;

pub const CASES: &[Case] = &[
    ("Points::new", new),
    ("Settings::check", check),
    ("Clusterer::cluster", cluster),
    ("Clusterer::seconds_per_pair", seconds_per_pair),
    ("clustering::fill_empty", empty),
    ("Internals::nearest", nearest),
    ("Internals::sum_values", sum_values),
];

fn new(draw: &mut Draw<'_>) {
    let (count, dim) = (1 + draw.below(9), 1 + draw.below(20));
    let (mut coordinates, mut weights) = (numbers(draw.len(count * dim)), vec![1.0; draw.len(count)]);
    let (x, weight) =
        (draw.instead(0.5, &[f32::NAN, 1.1e15, f32::INFINITY]), draw.instead(0.5, &[0.0, -1.0, f32::NAN]));
    coordinates.iter_mut().take(1).for_each(|first| *first = x);
    weights.iter_mut().take(1).for_each(|first| *first = weight);
    let (dim, weights) = (draw.number(dim), Some(&weights[..]).filter(|_| draw.below(3) < 2));
    let done = Points::new(&coordinates, dim, weights);
    let points = coordinates.len().checked_div(dim).unwrap_or(0);
    let fits = points > 0
        && is_whole(coordinates.len(), dim)
        && x == 0.5
        && weights.is_none_or(|weights| weights.len() == points && weight == 0.5);
    draw.hold(done, fits, true);
}

fn settings(draw: &mut Draw<'_>, clusters: usize) -> (Settings, bool) {
    let settings = Settings {
        clusters: draw.number(clusters),
        tolerance: draw.instead(1e-4, &[f64::NAN, -1.0, f64::INFINITY]),
        iterations: draw.number(3),
        seed: 5,
    };
    (settings, (1..1 << 32).contains(&settings.clusters) && settings.tolerance >= 0.0)
}

fn check(draw: &mut Draw<'_>) {
    let (settings, fits) = settings(draw, 5);
    draw.hold(settings.check(), fits, true);
}

fn cluster(draw: &mut Draw<'_>) {
    let (count, dim) = (1 + draw.below(9), 1 + draw.below(20));
    let (coordinates, clusters) = (numbers(count * dim), 1 + draw.below(count));
    let (settings, fits) = settings(draw, clusters);
    let points = Points::new(&coordinates, dim, None).unwrap();
    let clusterer = CpuClusterer { kernels: draw.kernels };
    draw.hold(clusterer.cluster(&points, &settings, &mut |_| ControlFlow::Continue(())), fits, true);
}

fn seconds_per_pair(draw: &mut Draw<'_>) {
    let dim = 1 + draw.below(3);
    let dim = draw.number(dim);
    let done = CpuClusterer { kernels: draw.kernels }.seconds_per_pair(dim);
    draw.hold(done, (1..=1 << 16).contains(&dim), true);
}

fn empty(draw: &mut Draw<'_>) {
    let (points, clusters) = (draw.below(9), 1 + draw.below(5));
    let (labels, distances) = (draw.len(points), vec![1.0; draw.len(points)]);
    let mut labels: Vec<u32> = (0..labels).map(|i| (i % clusters) as u32).collect();
    let label = draw.narrow(clusters - 1);
    labels.iter_mut().take(1).for_each(|first| *first = label);
    let (before, clusters) = (labels.clone(), draw.number(clusters));
    let done = fill_empty(&mut labels, &distances, clusters);
    let fits = distances.len() == labels.len()
        && u32::try_from(clusters).is_ok()
        && before.iter().all(|&label| (label as usize) < clusters);
    draw.hold(done, fits, labels == before);
}

fn nearest(draw: &mut Draw<'_>) {
    let (count, dim, candidates) = (1 + draw.below(9), 1 + draw.below(20), draw.below(9));
    let (points, centroids) = (numbers(draw.len(count * dim)), numbers(draw.len(candidates * dim)));
    let half_norms = vec![0.0; draw.len(candidates)];
    let (mut scores, mut numbered) = (vec![-1e9; draw.len(count)], vec![7; draw.len(count)]);
    let mut best = Nearest { scores: &mut scores, numbers: &mut numbered };
    let candidates = Candidates { centroids: &centroids, half_norms: &half_norms };
    let done = draw.kernels.nearest(&points, &candidates, &mut best);
    let dim = points.len().checked_div(scores.len()).unwrap_or(0);
    let fits = scores.len() == numbered.len()
        && points.len() == scores.len() * dim
        && centroids.len() == half_norms.len() * dim;
    draw.hold(done, fits, scores.iter().all(|&x| x == -1e9) && numbered.iter().all(|&x| x == 7));
}

fn sum_values(draw: &mut Draw<'_>) {
    let (count, head_dim, dtype) = (draw.below(9), draw.head_dim(), draw.dtype());
    let stored = stored(count, head_dim, dtype);
    let rows = Rows::new(stored.elements(), head_dim).unwrap();
    let (range, mut sums) = (draw.range(count), vec![-1.0; draw.len(row_width(head_dim))]);
    let done = draw.kernels.sum_values(rows, range.clone(), &mut sums);
    let fits = is_inside(&range, count) && sums.len() == row_width(head_dim);
    draw.hold(done, fits, sums.iter().all(|&x| x == -1.0));
}
