//! What others see of it.

use crate::{
    card::Card,
    error::DeviceError,
    job::Job,
    kernels::Kernels,
    layout::{Layout, Shape},
};
use a2ats_kernel::{
    Error, Result,
    clustering::{Clusterer, Clustering, Points, Progress, Settings},
};
use std::{ops::ControlFlow, time::Instant};

/// Clusterings that run at a time: while some wait for the CPU, or for a last block of points, others fill the card.
const AT_A_TIME: usize = 8;

/// Clusters on a GPU, from any thread.
pub struct CudaClusterer {
    card: Card,
}

impl CudaClusterer {
    /// Opens GPU number `ordinal`, counted from 0.
    ///
    /// # Errors
    /// If there is no driver or no such GPU, or it is too old or fails.
    pub fn new(ordinal: u32) -> std::result::Result<Self, DeviceError> {
        Ok(Self { card: Card::open(ordinal, None)? })
    }

    /// Opens a GPU, to use at most so many bytes of its memory. Points that do not fit go through it in batches.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_memory(ordinal: u32, bytes: usize) -> std::result::Result<Self, DeviceError> {
        Ok(Self { card: Card::open(ordinal, Some(bytes))? })
    }

    /// The GPU's name.
    pub fn name(&self) -> &str {
        &self.card.name
    }

    /// Bytes of the GPU's memory that clusterings may take.
    pub fn memory(&self) -> usize {
        self.card.memory
    }

    /// Whether points of a shape can be clustered: how they would lie in memory.
    ///
    /// # Errors
    /// [`DeviceError::TooLittleMemory`] if they cannot.
    pub fn check(&self, shape: &Shape) -> std::result::Result<Layout, DeviceError> {
        Layout::new(shape, self.card.memory)
    }

    pub(crate) const fn card(&self) -> &Card {
        &self.card
    }

    /// Does some work on points of a shape, in a workspace that is given back for others.
    pub(crate) fn with_job<T>(
        &self,
        shape: &Shape,
        points: &Points<'_>,
        work: impl FnOnce(&mut Job<'_>) -> std::result::Result<T, DeviceError>,
    ) -> std::result::Result<T, DeviceError> {
        let layout = self.check(shape)?;
        self.card.make_current()?;
        let kernels = Kernels::new(&self.card.modules)?;
        let mut lease = self.card.workspace(layout.bytes)?;
        let done = work(&mut Job::new(&kernels, lease.workspace(), layout, *shape, points)?)?;
        lease.give_back();
        Ok(done)
    }
}

/// First centroids, then iterations until they rest.
fn cluster(
    job: &mut Job<'_>,
    settings: &Settings,
    keep_on: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> std::result::Result<Option<Clustering>, DeviceError> {
    let Some(mut status) = job.seed(settings, keep_on)? else { return Ok(None) };
    let (mut iterations, mut converged) = (0, false);
    while iterations < settings.iterations && !converged {
        status = job.iterate(&status)?;
        iterations += 1;
        converged = status.way < settings.tolerance;
        let progress = Progress::Iteration {
            number: iterations,
            moved: status.candidates as usize,
            way: status.way,
            objective: status.objective,
        };
        if keep_on(progress).is_break() {
            return Ok(None);
        }
    }
    job.finish(status.objective, iterations, converged).map(Some)
}

impl Clusterer for CudaClusterer {
    fn cluster(
        &self,
        points: &Points<'_>,
        settings: &Settings,
        keep_on: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Option<Clustering>> {
        settings.check()?;
        let (count, dim, clusters) = (points.count(), points.dim(), settings.clusters);
        let shape = Shape { count, dim, clusters, weighted: points.weights().is_some() };
        self.with_job(&shape, points, |job| cluster(job, settings, keep_on))
            .map_err(|error| Error::Device { device: self.card.name.clone(), reason: error.to_string() })
    }

    fn at_a_time(&self) -> usize {
        AT_A_TIME
    }

    /// By one iteration over scattered points.
    fn seconds_per_pair(&self, dim: usize) -> Result<f64> {
        const POINTS: usize = 1 << 15;
        const CENTROIDS: usize = 1 << 12;
        if !(1..=1 << 16).contains(&dim) {
            let what = "the dimension of points to measure with";
            return Err(Error::Unsupported { what, got: dim.to_string(), supported: "1..=65536" });
        }
        let scattered = |number: usize| (number.wrapping_mul(0x9e37_79b9) % (1 << 20)) as f32;
        let coordinates: Vec<f32> = (0..POINTS * dim).map(scattered).collect();
        let points = Points::new(&coordinates, dim, None)?;
        let settings = Settings { clusters: CENTROIDS, iterations: 1, ..Settings::default() };
        let mut start = Instant::now();
        let mut seconds = 0.0;
        let mut watch = |progress| {
            if matches!(progress, Progress::Iteration { .. }) {
                seconds = start.elapsed().as_secs_f64();
            }
            start = Instant::now();
            ControlFlow::Continue(())
        };
        self.cluster(&points, &settings, &mut watch)?;
        Ok(seconds / (POINTS * CENTROIDS) as f64)
    }
}
