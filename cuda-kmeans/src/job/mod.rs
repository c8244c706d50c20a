//! One clustering on the card: the state of it, and the passes over points that its steps are made of.
//!
//! The steps are those of the CPU path (`kernel/src/clustering/lloyd.rs`): what is compared with what is the same, and so
//! are the orders of sums. All kernels of a clustering run on its stream, one after the other; several clusterings fill the card. The host
//! waits once per iteration, and once per round of first centroids.

#![allow(unsafe_code, reason = "kernels are launched with addresses of the layout")]

mod batches;
mod lloyd;
mod seeding;

use crate::{
    error::DeviceError,
    kernels::Kernels,
    layout::{Layout, ODDS_BLOCK, Region, Shape},
    measure::shortest,
    workspace::Workspace,
};
use a2ats_kernel::clustering::{Clustering, Points, Settings};
use batches::Batches;
use cust::{
    error::CudaError,
    launch,
    memory::{DeviceCopy, DevicePointer},
};
use std::{mem::offset_of, ops::ControlFlow};

/// What kernels tell: `Status` of `kernels/common.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Status {
    /// Σ wᵢ·‖xᵢ − c(i)‖²
    pub(crate) objective: f64,
    /// How far centroids moved, together.
    pub(crate) way: f64,
    /// Centroids that were added, or have moved.
    pub(crate) candidates: u32,
    others: u32,
    empty: u32,
    unused: u32,
}

// SAFETY: numbers without padding.
unsafe impl DeviceCopy for Status {}

/// Threads of a block where nothing else is said.
const THREADS: u32 = 256;

/// Points, or candidates, that are handled by a warp each.
const WARPS: u32 = THREADS / 32;

/// Points of a block of `nearest`.
const TILE: u32 = 128;

/// A clustering.
pub(crate) struct Job<'a> {
    kernels: &'a Kernels<'a>,
    workspace: &'a mut Workspace,
    layout: Layout,
    shape: Shape,
    batches: Batches<'a>,
}

/// Points to compare.
enum Which {
    /// All of the batch.
    All,
    /// Those that `decide` found.
    Open,
}

impl<'a> Job<'a> {
    /// Begins with `points`; the workspace must be of the layout's size.
    pub(crate) fn new(
        kernels: &'a Kernels<'a>,
        workspace: &'a mut Workspace,
        layout: Layout,
        shape: Shape,
        points: &'a Points<'a>,
    ) -> Result<Self, DeviceError> {
        let job = Self { kernels, workspace, layout, shape, batches: Batches::new(points) };
        if let Some(weights) = points.weights() {
            job.workspace.upload(layout.weights, weights)?;
        }
        job.workspace.fill(layout.labels, 0xff)?;
        job.workspace.fill(layout.changed, 0)?;
        job.workspace.fill(layout.has_moved, 0)?;
        job.workspace.fill(layout.sizes, 0)?;
        Ok(job)
    }

    fn at<T: DeviceCopy>(&self, region: Region<T>) -> DevicePointer<T> {
        self.workspace.at(region)
    }

    /// An array of all points, from point `first` on.
    fn from<T: DeviceCopy>(&self, region: Region<T>, first: usize) -> DevicePointer<T> {
        self.at(region).wrapping_add(first)
    }

    /// Null where all weights are one.
    fn weights_from(&self, first: usize) -> DevicePointer<f32> {
        if self.shape.weighted { self.from(self.layout.weights, first) } else { DevicePointer::null() }
    }

    fn status_field(&self, offset: usize) -> DevicePointer<u32> {
        DevicePointer::from_raw(self.at(self.layout.status).as_raw() + offset as u64)
    }

    fn stride(&self) -> u32 {
        self.shape.stride() as u32
    }

    fn clusters(&self) -> u32 {
        self.shape.clusters as u32
    }

    /// How many batches there are.
    fn batches(&self) -> usize {
        self.shape.count.div_ceil(self.layout.batch)
    }

    /// Finds the best of some centroids for points of a batch: of `candidates`, whose number is at an address. Choices start from what
    /// `had` holds, or from nothing.
    fn nearest(
        &self,
        rows: DevicePointer<f32>,
        count: u32,
        which: &Which,
        (candidates, candidate_count): (Region<u32>, DevicePointer<u32>),
        had: Option<(DevicePointer<u32>, DevicePointer<f32>)>,
    ) -> Result<(), DeviceError> {
        let (nearest, stream) = (&self.kernels.nearest, &self.workspace.stream);
        let (list, list_count) = match which {
            Which::All => (DevicePointer::null(), DevicePointer::null()),
            Which::Open => (self.at(self.layout.open), self.at(self.layout.open_count)),
        };
        let (had_labels, had_scores) = had.unwrap_or((DevicePointer::null(), DevicePointer::null()));
        let (centroids, half_norms) = (self.at(self.layout.centroids), self.at(self.layout.half_norms));
        let candidates = self.at(candidates);
        let (labels, scores) = (self.at(self.layout.choice_labels), self.at(self.layout.choice_scores));
        let (stride, blocks) = (self.stride(), count.div_ceil(TILE));
        // SAFETY: the types are the kernel's, and the arrays those of the layout.
        let launched = unsafe {
            launch!(nearest<<<blocks, THREADS, 0, stream>>>(
                rows, list, list_count, count, centroids, half_norms, candidates, candidate_count, stride, had_labels, had_scores,
                labels, scores
            ))
        };
        launched.map_err(failed)
    }

    /// Gives the points of a batch to their choices.
    fn take(&self, rows: DevicePointer<f32>, first: usize, count: u32) -> Result<(), DeviceError> {
        let (take, stream) = (&self.kernels.take, &self.workspace.stream);
        let layout = &self.layout;
        let (centroids, has_moved) = (self.at(layout.centroids), self.at(layout.has_moved));
        let (choice_labels, choice_scores) = (self.at(layout.choice_labels), self.at(layout.choice_scores));
        let (labels, scores, distances) = (
            self.from(layout.labels, first),
            self.from(layout.scores, first),
            self.from(layout.distances, first),
        );
        let (changed, sizes) = (self.at(layout.changed), self.at(layout.sizes));
        let (stride, blocks) = (self.stride(), count.div_ceil(WARPS));
        // SAFETY: the types are the kernel's, and the arrays those of the layout.
        let launched = unsafe {
            launch!(take<<<blocks, THREADS, 0, stream>>>(
                count, rows, stride, centroids, has_moved, choice_labels, choice_scores, labels, scores, distances, changed, sizes
            ))
        };
        launched.map_err(failed)
    }

    /// Adds up the points' parts of the objective, which are their odds of becoming a centroid: with no centroid yet, their weights.
    fn add_up(&self, has_centroids: bool) -> Result<(), DeviceError> {
        let (sum_odds, finish_pass, stream) =
            (&self.kernels.sum_odds, &self.kernels.finish_pass, &self.workspace.stream);
        let layout = &self.layout;
        let distances = if has_centroids { self.at(layout.distances) } else { DevicePointer::null() };
        let weights = self.weights_from(0);
        let (count, clusters) = (self.shape.count as u32, self.clusters());
        let (sums, sizes, status) =
            (self.at(layout.block_sums), self.at(layout.sizes), self.at(layout.status));
        let blocks = count.div_ceil(ODDS_BLOCK as u32);
        // SAFETY: the types are the kernels', and the arrays those of the layout.
        let launched = unsafe {
            launch!(sum_odds<<<blocks, THREADS, 0, stream>>>(weights, distances, count, sums)).and_then(
                |()| launch!(finish_pass<<<1, 1024, 0, stream>>>(sums, blocks, sizes, clusters, status)),
            )
        };
        launched.map_err(failed)
    }

    /// Waits for the stream and reads what the kernels have to tell.
    fn status(&mut self) -> Result<Status, DeviceError> {
        let words = self.workspace.download(self.layout.status)?;
        Ok(bytemuck::pod_read_unaligned(&bytemuck::cast_slice(&words)[..size_of::<Status>()]))
    }

    /// The number of candidates, in the card's memory.
    fn candidate_count(&self) -> DevicePointer<u32> {
        self.status_field(offset_of!(Status, candidates))
    }

    /// Seconds to compare the first batch of points with centroids, and with how many: those that an iteration moved.
    pub(crate) fn time_assignment(&mut self) -> Result<(f64, usize), DeviceError> {
        let settings = Settings { clusters: self.shape.clusters, ..Settings::default() };
        let Some(seeded) = self.seed(&settings, &mut |_| ControlFlow::Continue(()))? else {
            return Ok((0.0, 0));
        };
        let moved = self.iterate(&seeded)?.candidates as usize;
        let batch = self.batch(0)?;
        let candidates = (self.layout.moved, self.candidate_count());
        let nearest = || self.nearest(batch.rows, batch.count, &Which::All, candidates, None);
        Ok((shortest(&self.workspace.stream, nearest)?, moved))
    }

    /// What came out.
    pub(crate) fn finish(
        &mut self,
        objective: f64,
        iterations: usize,
        converged: bool,
    ) -> Result<Clustering, DeviceError> {
        let rows = self.workspace.download(self.layout.centroids)?;
        let labels = self.workspace.download(self.layout.labels)?;
        let mut centroids = Vec::with_capacity(self.shape.clusters * self.shape.dim);
        for row in rows.chunks_exact(self.shape.stride()) {
            centroids.extend(row.iter().zip(self.batches.center()).map(|(x, center)| x + center));
        }
        Ok(Clustering { centroids, labels, objective, iterations, converged })
    }
}

fn failed(error: CudaError) -> DeviceError {
    DeviceError::driver("launching a kernel", error)
}
