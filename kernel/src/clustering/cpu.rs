//! k-means on the CPU: first centroids, then iterations until they rest.

use super::{Candidates, Clusterer, Clustering, Nearest, Points, Progress, Settings, lloyd::State, seeding};
use crate::{
    dispatch::Kernels,
    error::{Error, Result},
};
use rayon::prelude::*;
use std::{ops::ControlFlow, time::Instant};

/// Clusters on the CPU.
#[derive(Debug, Clone, Copy)]
pub struct CpuClusterer {
    /// The backend.
    pub kernels: &'static dyn Kernels,
}

impl Clusterer for CpuClusterer {
    fn cluster(
        &self,
        points: &Points<'_>,
        settings: &Settings,
        keep_on: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Option<Clustering>> {
        settings.check()?;
        let mut state = State::new(self.kernels, points);
        if seeding::seed(&mut state, settings, keep_on)?.is_break() {
            return Ok(None);
        }
        let (mut iterations, mut converged) = (0, false);
        while iterations < settings.iterations && !converged {
            let moved = state.move_centroids()?;
            state.assign(&moved.numbers)?;
            iterations += 1;
            converged = moved.way < settings.tolerance;
            let progress = Progress::Iteration {
                number: iterations,
                moved: moved.numbers.len(),
                way: moved.way,
                objective: state.objective(),
            };
            if keep_on(progress).is_break() {
                return Ok(None);
            }
        }
        Ok(Some(state.finish(iterations, converged)))
    }

    /// By a few points and centroids on every thread.
    fn seconds_per_pair(&self, dim: usize) -> Result<f64> {
        const POINTS: usize = 480;
        const CENTROIDS: usize = 1024;
        if !(1..=1 << 16).contains(&dim) {
            let what = "the dimension of points to measure with";
            return Err(Error::Unsupported { what, got: dim.to_string(), supported: "1..=65536" });
        }
        let threads = rayon::current_num_threads();
        let (points, centroids, half_norms) =
            (vec![0.5; POINTS * dim], vec![0.25; CENTROIDS * dim], vec![0.0; CENTROIDS]);
        let start = Instant::now();
        (0..threads).into_par_iter().try_for_each(|_| {
            let (mut scores, mut numbers) = (vec![f32::NEG_INFINITY; POINTS], vec![0; POINTS]);
            let candidates = Candidates { centroids: &centroids, half_norms: &half_norms };
            let mut best = Nearest { scores: &mut scores, numbers: &mut numbers };
            self.kernels.nearest(&points, &candidates, &mut best)
        })?;
        Ok(start.elapsed().as_secs_f64() / (threads * POINTS * CENTROIDS) as f64)
    }
}
