//! Points on the card: all of them, or two batches at a time that others are copied into in turn, while kernels run.

use super::Job;
use crate::{
    error::DeviceError,
    workspace::{record, wait},
};
use a2ats_kernel::clustering::Points;
use cust::{event::Event, memory::DevicePointer};

/// Which points are there.
pub(super) struct Batches<'a> {
    points: &'a Points<'a>,
    /// Points are kept less their mean.
    center: Vec<f32>,
    /// The batch in each slot.
    held: [Option<usize>; 2],
    /// When the last kernel that reads a slot is done.
    read: [Option<Event>; 2],
}

impl<'a> Batches<'a> {
    pub(super) fn new(points: &'a Points<'a>) -> Self {
        Self { points, center: points.mean(), held: [None; 2], read: [None, None] }
    }

    pub(super) fn center(&self) -> &[f32] {
        &self.center
    }
}

/// Points of a batch that are on the card.
#[derive(Clone, Copy)]
pub(super) struct Batch {
    /// Which one.
    pub(super) number: usize,
    /// The number of the first point.
    pub(super) first: usize,
    /// How many points.
    pub(super) count: u32,
    /// `[count, stride]`
    pub(super) rows: DevicePointer<f32>,
}

impl Job<'_> {
    /// Has a batch on the card, for kernels that are launched from now on until it is [`done_with`](Self::done_with).
    pub(super) fn batch(&mut self, number: usize) -> Result<Batch, DeviceError> {
        let range = self.layout.range(self.shape.count, number);
        let slot = number % self.layout.slots;
        let first_row = slot * self.layout.batch;
        let stride = self.shape.stride();
        if self.batches.held[slot] != Some(number) {
            if let Some(read) = self.batches.read[slot].take() {
                wait(&self.workspace.copies, read)?;
            }
            let Batches { points, center, .. } = &self.batches;
            let fill = |row: usize, to: &mut [f32]| {
                let point = points.point(range.start + row);
                for ((to, x), center) in to.iter_mut().zip(point).zip(center) {
                    *to = x - center;
                }
                to[point.len()..].fill(0.0);
            };
            self.workspace.stream_rows(self.layout.points, first_row, range.len(), stride, fill)?;
            wait(&self.workspace.stream, record(&self.workspace.copies)?)?;
            self.batches.held[slot] = Some(number);
        }
        let rows = self.from(self.layout.points, first_row * stride);
        Ok(Batch { number, first: range.start, count: range.len() as u32, rows })
    }

    /// Kernels that are launched from now on do not read the batch.
    pub(super) fn done_with(&mut self, batch: Batch) -> Result<(), DeviceError> {
        if self.layout.slots > 1 {
            self.batches.read[batch.number % self.layout.slots] = Some(record(&self.workspace.stream)?);
        }
        Ok(())
    }
}
