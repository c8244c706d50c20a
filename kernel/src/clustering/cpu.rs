//! k-means on the CPU: first centroids, then iterations until they rest.

use super::{Clusterer, Clustering, Points, Progress, Settings, lloyd::State, seeding};
use crate::{dispatch::Kernels, error::Result};
use std::ops::ControlFlow;

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
            let moved = state.move_centroids();
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
}
