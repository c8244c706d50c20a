//! Lloyd's iterations.

use super::{Job, Status, THREADS, Which, failed};
use crate::{
    error::DeviceError,
    job::batches::Batch,
    layout::{DIGITS, KEYS_PER_BLOCK, Region, sort_passes},
};
use a2ats_kernel::clustering::fill_empty;
use cust::{launch, memory::DevicePointer};
use std::mem::offset_of;

impl Job<'_> {
    /// Moves the centroids to the means of their points, and gives points to their nearest centroids; `before` is what the pass before
    /// told.
    pub(crate) fn iterate(&mut self, before: &Status) -> Result<Status, DeviceError> {
        if before.empty > 0 && before.objective > 0.0 {
            self.fill_empty()?;
        }
        self.move_centroids()?;
        self.assign()?;
        self.add_up(true)?;
        self.status()
    }

    /// On the CPU: it is rare, and seldom more than a few points.
    fn fill_empty(&mut self) -> Result<(), DeviceError> {
        let layout = self.layout;
        let mut labels = self.workspace.download(layout.labels)?;
        let distances = self.workspace.download(layout.distances)?;
        let filled = fill_empty(&mut labels, &distances, self.shape.clusters)
            .map_err(|error| DeviceError::Labels { reason: error.to_string() })?;
        if filled.is_empty() {
            return Ok(());
        }
        let mut changed = self.workspace.download(layout.changed)?;
        for cluster in filled {
            changed[cluster as usize] = 1;
        }
        let mut sizes = vec![0; self.shape.clusters];
        for &label in &labels {
            sizes[label as usize] += 1;
        }
        self.workspace.upload(layout.labels, &labels)?;
        self.workspace.upload(layout.changed, &changed)?;
        self.workspace.upload(layout.sizes, &sizes)
    }

    fn move_centroids(&mut self) -> Result<(), DeviceError> {
        for number in 0..self.batches() {
            let batch = self.batch(number)?;
            let members = self.sort(batch)?;
            self.add_members(batch, members)?;
            self.done_with(batch)?;
        }
        let (move_centroids, list_moved) = (&self.kernels.move_centroids, &self.kernels.list_moved);
        let (layout, stream) = (&self.layout, &self.workspace.stream);
        let (clusters, stride, dim) = (self.clusters(), self.stride(), self.shape.dim as u32);
        let (sums, totals, changed) = (self.at(layout.sums), self.at(layout.totals), self.at(layout.changed));
        let (centroids, half_norms) = (self.at(layout.centroids), self.at(layout.half_norms));
        let (has_moved, ways) = (self.at(layout.has_moved), self.at(layout.ways));
        let (moved, others, status) = (self.at(layout.moved), self.at(layout.others), self.at(layout.status));
        // SAFETY: the types are the kernels', and the arrays those of the layout.
        let launched = unsafe {
            launch!(move_centroids<<<clusters, 128, 0, stream>>>(
                sums, totals, stride, dim, changed, centroids, half_norms, has_moved, ways
            ))
            .and_then(|()| launch!(list_moved<<<1, 1024, 0, stream>>>(clusters, has_moved, ways, moved, others, status)))
        };
        launched.map_err(failed)
    }

    /// Sorts the points of a batch by their labels, and finds where each cluster's begin. Gives the array that they are in.
    fn sort(&self, batch: Batch) -> Result<Region<u32>, DeviceError> {
        let (count_digits, offsets_of_counts) = (&self.kernels.count_digits, &self.kernels.offsets_of_counts);
        let (scatter, find_starts) = (&self.kernels.scatter, &self.kernels.find_starts);
        let (layout, stream) = (&self.layout, &self.workspace.stream);
        let blocks = batch.count.div_ceil(KEYS_PER_BLOCK as u32);
        let (count, counts, digits) = (batch.count, self.at(layout.digit_counts), DIGITS as u32);
        let (clusters, starts) = (self.clusters(), self.at(layout.starts));
        let all = digits * blocks;
        let mut keys = self.from(layout.labels, batch.first);
        let mut values = DevicePointer::null();
        let passes = sort_passes(self.shape.clusters);
        for pass in 0..passes {
            let (shift, turn) = (pass * 8, pass as usize % 2);
            let (sorted_keys, sorted_values) = (self.at(layout.keys[turn]), self.at(layout.members[turn]));
            // SAFETY: the types are the kernels', and the arrays those of the layout.
            let launched = unsafe {
                launch!(count_digits<<<blocks, digits, 0, stream>>>(keys, count, shift, counts))
                    .and_then(|()| launch!(offsets_of_counts<<<1, 1024, 0, stream>>>(counts, all)))
                    .and_then(|()| {
                        launch!(scatter<<<blocks, digits, 0, stream>>>(
                            keys, values, count, shift, counts, sorted_keys, sorted_values
                        ))
                    })
            };
            launched.map_err(failed)?;
            (keys, values) = (sorted_keys, sorted_values);
        }
        let grid = (count + 1).div_ceil(THREADS);
        // SAFETY: as above.
        let launched =
            unsafe { launch!(find_starts<<<grid, THREADS, 0, stream>>>(keys, count, clusters, starts)) };
        launched.map_err(failed)?;
        Ok(layout.members[(passes as usize - 1) % 2])
    }

    /// Adds the points of a batch to their clusters' sums.
    fn add_members(&self, batch: Batch, members: Region<u32>) -> Result<(), DeviceError> {
        let (add_members, stream) = (&self.kernels.add_members, &self.workspace.stream);
        let layout = &self.layout;
        let (points, weights) = (batch.rows, self.weights_from(batch.first));
        let (clusters, stride, dim) = (self.clusters(), self.stride(), self.shape.dim as u32);
        let (members, starts, changed) = (self.at(members), self.at(layout.starts), self.at(layout.changed));
        let (is_first, sums, totals) =
            (u32::from(batch.number == 0), self.at(layout.sums), self.at(layout.totals));
        // SAFETY: the types are the kernel's, and the arrays those of the layout.
        let launched = unsafe {
            launch!(add_members<<<clusters, 128, 0, stream>>>(
                points, weights, stride, dim, members, starts, changed, is_first, sums, totals
            ))
        };
        launched.map_err(failed)
    }

    /// Compares points with the centroids that moved, and those whose own centroid moved away with all the others too.
    fn assign(&mut self) -> Result<(), DeviceError> {
        for number in 0..self.batches() {
            let batch = self.batch(number)?;
            let Batch { first, count, rows, .. } = batch;
            let layout = self.layout;
            self.nearest(rows, count, &Which::All, (layout.moved, self.candidate_count()), None)?;
            self.workspace.fill(layout.open_count, 0)?;
            self.decide(first, count)?;
            let choices = (self.at(layout.choice_labels), self.at(layout.choice_scores));
            let others = (layout.others, self.status_field(offset_of!(Status, others)));
            self.nearest(rows, count, &Which::Open, others, Some(choices))?;
            self.take(rows, first, count)?;
            self.done_with(batch)?;
        }
        Ok(())
    }

    /// Finds the points that have to be compared with the centroids that have not moved, too.
    fn decide(&self, first: usize, count: u32) -> Result<(), DeviceError> {
        let (decide, stream) = (&self.kernels.decide, &self.workspace.stream);
        let layout = &self.layout;
        let (labels, scores) = (self.from(layout.labels, first), self.from(layout.scores, first));
        let has_moved = self.at(layout.has_moved);
        let (choice_labels, choice_scores) = (self.at(layout.choice_labels), self.at(layout.choice_scores));
        let (open, open_count, grid) =
            (self.at(layout.open), self.at(layout.open_count), count.div_ceil(THREADS));
        // SAFETY: the types are the kernel's, and the arrays those of the layout.
        let launched = unsafe {
            launch!(decide<<<grid, THREADS, 0, stream>>>(
                count, labels, scores, has_moved, choice_labels, choice_scores, open, open_count
            ))
        };
        launched.map_err(failed)
    }
}
