//! Lloyd's iterations: centroids to the means of their points, points to their nearest centroids.

use super::{Candidates, Clustering, Nearest, Points, fill_empty};
use crate::{dispatch::Kernels, error::Result};
use rayon::prelude::*;

/// Points of a task: whole panels on every backend.
const PIECE: usize = 480;

/// Points, centroids, and which belongs to which.
pub(super) struct State<'p> {
    kernels: &'static dyn Kernels,
    pub(super) points: &'p Points<'p>,
    /// The mean of the points. Centroids are kept less it.
    pub(super) center: Vec<f32>,
    pub(super) centroids: Vec<f32>,
    half_norms: Vec<f32>,
    /// Of each point: its nearest centroid, the score of that (see [`Nearest`]), and the square of the distance to it, computed
    /// as such, which keeps digits that the score has lost.
    pub(super) labels: Vec<u32>,
    scores: Vec<f32>,
    pub(super) distances: Vec<f32>,
    /// Whether a cluster's members are others than those its centroid is the mean of.
    changed: Vec<bool>,
}

/// The centroids that moved.
pub(super) struct Moved {
    /// Their numbers, ascending.
    pub(super) numbers: Vec<u32>,
    /// How far they moved, together.
    pub(super) way: f64,
}

/// Best centroid of a point, and its score.
type Choice = (u32, f32);

impl<'p> State<'p> {
    /// Points without centroids.
    pub(super) fn new(kernels: &'static dyn Kernels, points: &'p Points<'p>) -> Self {
        let count = points.count();
        Self {
            kernels,
            points,
            center: points.mean(),
            centroids: Vec::new(),
            half_norms: Vec::new(),
            labels: vec![0; count],
            scores: vec![f32::NEG_INFINITY; count],
            distances: vec![f32::INFINITY; count],
            changed: Vec::new(),
        }
    }

    /// How many centroids there are.
    pub(super) fn clusters(&self) -> usize {
        self.half_norms.len()
    }

    /// Adds points as centroids, and gives each point to the nearest.
    pub(super) fn add_centroids(&mut self, points: &[u32]) -> Result<()> {
        let first = self.clusters();
        for &point in points {
            let from = self.points.point(point as usize);
            self.centroids.extend(from.iter().zip(&self.center).map(|(x, center)| x - center));
        }
        let dim = self.points.dim();
        self.half_norms.extend(self.centroids[first * dim..].chunks_exact(dim).map(half_norm));
        self.changed.resize(self.clusters(), true);
        let new: Vec<u32> = (first as u32..self.clusters() as u32).collect();
        let all: Vec<u32> = (0..self.labels.len() as u32).collect();
        let choices = self.nearest_of(&new, &all, |point| (self.labels[point], self.scores[point]))?;
        self.take(&all, &choices, &[]);
        Ok(())
    }

    /// Compares points with the centroids that moved, and those whose own centroid moved away with all the others too.
    pub(super) fn assign(&mut self, moved: &[u32]) -> Result<()> {
        if moved.is_empty() {
            return Ok(());
        }
        let mut has_moved = vec![false; self.clusters()];
        for &number in moved {
            has_moved[number as usize] = true;
        }
        let all: Vec<u32> = (0..self.labels.len() as u32).collect();
        let mut choices = self.nearest_of(moved, &all, |_| (u32::MAX, f32::NEG_INFINITY))?;
        let mut open = Vec::new();
        for (point, choice) in choices.iter_mut().enumerate() {
            let own = (self.labels[point], self.scores[point]);
            if !has_moved[own.0 as usize] {
                if choice.1 <= own.1 {
                    *choice = own;
                }
            } else if choice.1 < own.1 {
                open.push(point as u32);
            }
        }
        let others: Vec<u32> =
            (0..self.clusters() as u32).filter(|&number| !has_moved[number as usize]).collect();
        let of_open = self.nearest_of(&others, &open, |point| choices[point])?;
        for (&point, choice) in open.iter().zip(of_open) {
            choices[point as usize] = choice;
        }
        self.take(&all, &choices, &has_moved);
        Ok(())
    }

    /// The best of some centroids for each of some points, or what it has, if none is better.
    fn nearest_of(
        &self,
        centroids: &[u32],
        points: &[u32],
        has: impl Fn(usize) -> Choice + Sync,
    ) -> Result<Vec<Choice>> {
        let dim = self.points.dim();
        let rows = |number: &u32| &self.centroids[*number as usize * dim..][..dim];
        let gathered: Vec<f32> = centroids.iter().flat_map(rows).copied().collect();
        let half_norms: Vec<f32> = centroids.iter().map(|&number| self.half_norms[number as usize]).collect();
        let candidates = Candidates { centroids: &gathered, half_norms: &half_norms };
        let of_piece = |points: &[u32]| {
            let mut coordinates = vec![0.0; points.len() * dim];
            for (to, &point) in coordinates.chunks_exact_mut(dim).zip(points) {
                for ((to, x), center) in
                    to.iter_mut().zip(self.points.point(point as usize)).zip(&self.center)
                {
                    *to = x - center;
                }
            }
            let (before, mut scores): (Vec<u32>, Vec<f32>) =
                points.iter().map(|&point| has(point as usize)).unzip();
            let mut numbers = vec![u32::MAX; points.len()];
            let mut best = Nearest { scores: &mut scores, numbers: &mut numbers };
            self.kernels.nearest(&coordinates, &candidates, &mut best)?;
            let chosen = numbers.iter().zip(before).map(|(&number, before)| match number {
                u32::MAX => before,
                number => centroids[number as usize],
            });
            Ok(chosen.zip(scores).collect::<Vec<Choice>>())
        };
        let pieces: Vec<Vec<Choice>> = points.par_chunks(PIECE).map(of_piece).collect::<Result<_>>()?;
        Ok(pieces.concat())
    }

    /// Gives points to centroids, of which some have moved.
    fn take(&mut self, points: &[u32], choices: &[Choice], has_moved: &[bool]) {
        let mut stale = Vec::new();
        for (&point, &(label, score)) in points.iter().zip(choices) {
            let at = point as usize;
            if self.labels[at] != label || self.distances[at].is_infinite() {
                self.changed[self.labels[at] as usize] = true;
                self.changed[label as usize] = true;
                stale.push(point);
            } else if has_moved.get(label as usize).is_some_and(|moved| *moved) {
                stale.push(point);
            }
            (self.labels[at], self.scores[at]) = (label, score);
        }
        let distance = |&point: &u32| self.distance(point as usize, self.labels[point as usize] as usize);
        let distances: Vec<f32> = stale.par_iter().with_min_len(PIECE).map(distance).collect();
        for (point, distance) in stale.into_iter().zip(distances) {
            self.distances[point as usize] = distance;
        }
    }

    /// The square of the distance between a point and a centroid.
    fn distance(&self, point: usize, centroid: usize) -> f32 {
        let dim = self.points.dim();
        let centroid = &self.centroids[centroid * dim..][..dim];
        squared_distance(self.points.point(point), &self.center, centroid)
    }

    /// Moves centroids to the means of their points.
    pub(super) fn move_centroids(&mut self) -> Result<Moved> {
        let clusters = self.clusters();
        for cluster in fill_empty(&mut self.labels, &self.distances, clusters)? {
            self.changed[cluster as usize] = true;
        }
        let members = self.members();
        let dim = self.points.dim();
        let means = members.par_iter().zip(&self.changed).zip(self.centroids.par_chunks(dim));
        let means: Vec<Option<(Vec<f32>, f64)>> = means
            .map(|((members, changed), old)| {
                let mean = (*changed && !members.is_empty()).then(|| self.mean(members))?;
                let way = mean.iter().zip(old).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
                (way > 0.0).then_some((mean, way))
            })
            .collect();
        let mut moved = Moved { numbers: Vec::new(), way: 0.0 };
        for (number, mean) in means.into_iter().enumerate() {
            self.changed[number] = false;
            let Some((mean, way)) = mean else { continue };
            self.half_norms[number] = half_norm(&mean);
            self.centroids[number * dim..][..dim].copy_from_slice(&mean);
            moved.numbers.push(number as u32);
            moved.way += way;
        }
        Ok(moved)
    }

    /// The points of each cluster, ascending.
    fn members(&self) -> Vec<Vec<u32>> {
        let mut members = vec![Vec::new(); self.clusters()];
        for (point, &label) in self.labels.iter().enumerate() {
            members[label as usize].push(point as u32);
        }
        members
    }

    /// The mean of some points, less the center.
    fn mean(&self, members: &[u32]) -> Vec<f32> {
        let mut sum = vec![0.0_f64; self.points.dim()];
        let mut total = 0.0;
        for &point in members {
            let weight = f64::from(self.points.weight(point as usize));
            total += weight;
            for ((sum, &x), &center) in
                sum.iter_mut().zip(self.points.point(point as usize)).zip(&self.center)
            {
                *sum += weight * f64::from(x - center);
            }
        }
        sum.into_iter().map(|sum| (sum / total) as f32).collect()
    }

    /// Σ wᵢ·‖xᵢ − c(i)‖²
    pub(super) fn objective(&self) -> f64 {
        let weighted =
            |(point, &distance): (usize, &f32)| f64::from(self.points.weight(point)) * f64::from(distance);
        self.distances.iter().enumerate().map(weighted).sum()
    }

    /// What came out.
    pub(super) fn finish(mut self, iterations: usize, converged: bool) -> Clustering {
        let objective = self.objective();
        for centroid in self.centroids.chunks_exact_mut(self.points.dim()) {
            for (x, center) in centroid.iter_mut().zip(&self.center) {
                *x += center;
            }
        }
        Clustering { centroids: self.centroids, labels: self.labels, objective, iterations, converged }
    }
}

/// ‖(x − center) − c‖², in sixteen partial sums.
pub(super) fn squared_distance(x: &[f32], center: &[f32], c: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (center, center_rest) = center.as_chunks::<LANES>();
    let (c, c_rest) = c.as_chunks::<LANES>();
    let square = |((x, center), c): ((&f32, &f32), &f32)| ((x - center) - c) * ((x - center) - c);
    let mut sums = [0.0_f32; LANES];
    for ((x, center), c) in x.iter().zip(center).zip(c) {
        for lane in 0..LANES {
            sums[lane] += square(((&x[lane], &center[lane]), &c[lane]));
        }
    }
    let rest: f32 = x_rest.iter().zip(center_rest).zip(c_rest).map(square).sum();
    sums.iter().sum::<f32>() + rest
}

/// ½‖c‖²
fn half_norm(centroid: &[f32]) -> f32 {
    (0.5 * centroid.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()) as f32
}
