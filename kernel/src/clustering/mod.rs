//! k-means: the centroids that codebooks are made of.
//!
//! Minimises Σ wᵢ·‖xᵢ − c(i)‖² over `clusters` centroids c, where c(i) is the one nearest to point i (paper, section
//! 3.2; there the points are k·L_H, so that this is the error of attention scores). k-means++ chooses the first
//! centroids, Lloyd's iterations move them.
//!
//! | what | shape | dtype |
//! |---|---|---|
//! | points, up to 1e15 | `[n, dim]` | f32 |
//! | weights, above 0; all 1 without them | `[n]` | f32 |
//! | centroids | `[clusters, dim]` | f32 |
//! | labels: the number of each point's nearest centroid | `[n]` | u32 |
//!
//! [`Clusterer`] is what calibration needs; `CpuClusterer` (feature `clustering`) is the one for CPUs. It runs on the threads
//! of the rayon pool that it is called in, and gives the same bits for the same seed on the same backend, whatever their number.
//!
//! # How
//!
//! - Distances are matrix products in f32 with the points' mean taken out of them; the maximum of x·c − ½‖c‖² is taken while the
//!   products are in registers (`nearest.rs`).
//! - k-means++ draws centroids in batches: candidates with the probabilities from before the batch, of which each
//!   is kept with the probability that its distance shrank by since. That is exactly the distribution of drawing one after the
//!   other, and all distances are computed in matrix products, together those of one Lloyd iteration.
//! - An iteration compares points with those centroids only that moved: a point is still nearest to where it was among
//!   the others, unless its own centroid moved away from it. That is exact, and most of the work of later iterations
//!   falls away.
//! - Means are sums in f64 of the members in the order of their numbers. The mean of a cluster is computed anew only where
//!   its members changed.
//! - A cluster without members takes the point that is farthest from its centroid, if that is any distance. With fewer
//!   distinct points than clusters, the centroids left over are copies of points.

#[cfg(feature = "clustering")]
mod cpu;
mod empty;
#[cfg(feature = "clustering")]
mod lloyd;
mod nearest;
mod points;
#[cfg(feature = "clustering")]
mod seeding;

#[cfg(feature = "clustering")]
pub use cpu::CpuClusterer;

pub use empty::fill_empty;
pub use nearest::{Candidates, Nearest};
pub(crate) use nearest::{check, nearest};
pub use points::Points;

use crate::error::{Error, Result};
use std::ops::ControlFlow;

/// How to cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How many centroids.
    pub clusters: usize,
    /// Most Lloyd iterations.
    pub iterations: usize,
    /// It is enough when the centroids together moved less than this: the sum of the lengths of their ways.
    pub tolerance: f64,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Settings {
    /// Refuses settings that make no sense.
    ///
    /// # Errors
    /// For no clusters or too many to number, and a tolerance that is none.
    pub fn check(&self) -> Result<()> {
        let refuse = |what, got: String, supported| Err(Error::Unsupported { what, got, supported });
        if self.clusters == 0 || u32::try_from(self.clusters).is_err() {
            return refuse("the number of clusters", self.clusters.to_string(), "1 to 2^32 − 1");
        }
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return refuse("the tolerance", self.tolerance.to_string(), "0 and more");
        }
        Ok(())
    }
}

impl Default for Settings {
    /// The paper's: 4096 clusters, 300 iterations, 1e-4.
    fn default() -> Self {
        Self { clusters: 4096, iterations: 300, tolerance: 1e-4, seed: 0 }
    }
}

/// How far a clustering is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// So many of the first centroids were chosen.
    Seeding {
        /// How many.
        chosen: usize,
        /// Of how many.
        clusters: usize,
    },
    /// An iteration is done.
    Iteration {
        /// Its number, from 1 on.
        number: usize,
        /// How many centroids it moved.
        moved: usize,
        /// How far they moved, together.
        way: f64,
        /// Σ wᵢ·‖xᵢ − c(i)‖² after it.
        objective: f64,
    },
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// `[clusters, dim]`
    pub centroids: Vec<f32>,
    /// `[n]`: the nearest centroid of each point.
    pub labels: Vec<u32>,
    /// Σ wᵢ·‖xᵢ − c(i)‖²
    pub objective: f64,
    /// Lloyd iterations that it took.
    pub iterations: usize,
    /// Whether the centroids had come to rest, or iterations ran out.
    pub converged: bool,
}

/// Something that clusters points.
pub trait Clusterer: Sync {
    /// Clusters `points`. `keep_on` is told about every step and may break off: then there is no result.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for settings that make no sense, and if memory or a device fails.
    fn cluster(
        &self,
        points: &Points<'_>,
        settings: &Settings,
        keep_on: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Option<Clustering>>;

    /// How many clusterings should run at a time, from as many threads: one, where each keeps all there is busy.
    fn at_a_time(&self) -> usize {
        1
    }

    /// Measures how many seconds comparing a point with a centroid takes, where there are many of both.
    ///
    /// # Errors
    /// For a dimension of 0, or one that is too large to measure with, and if memory or a device fails.
    fn seconds_per_pair(&self, dim: usize) -> Result<f64>;
}
