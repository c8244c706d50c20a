//! k-means++ in rounds: see `kernels/seeding.cu`.

use super::{Job, THREADS, WARPS, Which, failed};
use crate::{
    error::DeviceError,
    layout::{CANDIDATES, DIGITS},
};
use a2ats_kernel::clustering::{Progress, Settings};
use cust::{launch, memory::DevicePointer};
use std::ops::ControlFlow;

/// Candidates of a side of a block of `compare`.
const SIDE: u32 = 32;

const _: () = assert!(CANDIDATES == 32 * 32 && DIGITS == 256);

impl Job<'_> {
    /// Chooses the first centroids, and gives each point to the nearest. Gives the objective, or nothing if it was broken off.
    pub(crate) fn seed(
        &mut self,
        settings: &Settings,
        keep_on: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Option<super::Status>, DeviceError> {
        self.add_up(false)?;
        let (mut chosen, mut drawn) = (0_u32, 0_u64);
        loop {
            // Before the first one, nothing says how far candidates are from anything. Later about every second is kept.
            let wanted = self.clusters() - chosen;
            let candidates = if chosen == 0 { 1 } else { wanted.saturating_mul(2).min(CANDIDATES as u32) };
            self.choose(settings.seed, drawn, candidates, chosen)?;
            drawn += u64::from(candidates);
            self.compare_with_new(chosen > 0)?;
            self.add_up(true)?;
            let status = self.status()?;
            chosen += status.candidates;
            let progress = Progress::Seeding { chosen: chosen as usize, clusters: settings.clusters };
            if keep_on(progress).is_break() {
                return Ok(None);
            }
            if chosen == self.clusters() {
                return Ok(Some(status));
            }
        }
    }

    /// Draws candidates and makes centroids of those that are kept, numbers `chosen` and up.
    fn choose(&mut self, seed: u64, drawn: u64, candidates: u32, chosen: u32) -> Result<(), DeviceError> {
        let layout = self.layout;
        let (count, stride, most) = (self.shape.count as u32, self.stride(), self.clusters() - chosen);
        let (sums, blocks) = (self.at(layout.block_sums), layout.block_sums.len as u32);
        let (weights, distances) = (
            self.weights_from(0),
            if chosen > 0 { self.at(layout.distances) } else { DevicePointer::null() },
        );
        let (numbers, least, rows) = (self.at(layout.numbers), self.at(layout.least), self.at(layout.rows));
        let (too_near, kept, status) =
            (self.at(layout.too_near), self.at(layout.kept), self.at(layout.status));
        let (centroids, half_norms, list) =
            (self.at(layout.centroids), self.at(layout.half_norms), self.at(layout.moved));
        let (draw, grid) = (&self.kernels.draw, candidates.div_ceil(WARPS));
        {
            let stream = &self.workspace.stream;
            // SAFETY: the types are the kernel's, and the arrays those of the layout.
            let launched = unsafe {
                launch!(draw<<<grid, THREADS, 0, stream>>>(
                    weights, distances, count, sums, blocks, seed, drawn, candidates, numbers, least
                ))
            };
            launched.map_err(failed)?;
        }
        for number in 0..self.batches() {
            let batch = self.batch(number)?;
            let (gather, stream) = (&self.kernels.gather, &self.workspace.stream);
            let (points, first, count) = (batch.rows, batch.first as u32, batch.count);
            // SAFETY: as above.
            let launched = unsafe {
                launch!(gather<<<candidates, 128, 0, stream>>>(points, first, count, stride, numbers, rows))
            };
            launched.map_err(failed)?;
            self.done_with(batch)?;
        }
        let (compare, keep, append) = (&self.kernels.compare, &self.kernels.keep, &self.kernels.append);
        let (stream, side) = (&self.workspace.stream, candidates.div_ceil(SIDE));
        // SAFETY: as above.
        let launched = unsafe {
            launch!(compare<<<(side, side), THREADS, 0, stream>>>(rows, candidates, stride, least, too_near))
                .and_then(|()| launch!(keep<<<1, 32, 0, stream>>>(too_near, candidates, most, kept, status)))
                .and_then(|()| {
                    launch!(append<<<candidates, 128, 0, stream>>>(
                        rows, stride, kept, status, chosen, centroids, half_norms, list
                    ))
                })
        };
        launched.map_err(failed)
    }

    /// Gives points to those of the new centroids that are nearer than what they have, if they have any.
    fn compare_with_new(&mut self, has_centroids: bool) -> Result<(), DeviceError> {
        for number in 0..self.batches() {
            let batch = self.batch(number)?;
            let has =
                (self.from(self.layout.labels, batch.first), self.from(self.layout.scores, batch.first));
            let new = (self.layout.moved, self.candidate_count());
            self.nearest(batch.rows, batch.count, &Which::All, new, has_centroids.then_some(has))?;
            self.take(batch.rows, batch.first, batch.count)?;
            self.done_with(batch)?;
        }
        Ok(())
    }
}
