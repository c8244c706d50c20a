//! Sums of the values of a code's rows, made while a base is laid out.

use super::layout::Layout;
use crate::{
    dispatch::Kernels,
    dtype::Dtype,
    error::Result,
    estimate::{Sums, put_f32, put_int8},
    rows::Rows,
};
use std::ops::Range;

/// Rows that are added up in f32 before the sum is added to one in f64: a million rows of the same value then have an exact
/// sum, to the last bits of f32, at the speed of f32.
const AT_ONCE: usize = 64;

/// The sum of the values of some rows.
#[derive(Debug)]
pub(super) struct Sum {
    layout: Layout,
    whole: Vec<f64>,
    part: Vec<f32>,
}

impl Sum {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, whole: vec![0.0; layout.width()], part: vec![0.0; layout.width()] }
    }

    /// Adds the values of consecutive rows.
    pub(super) fn add(&mut self, kernels: &dyn Kernels, rows: Rows<'_>, range: Range<usize>) -> Result<()> {
        for start in range.clone().step_by(AT_ONCE) {
            self.part.fill(0.0);
            kernels.sum_values(rows, start..range.end.min(start + AT_ONCE), &mut self.part)?;
            for (whole, &part) in self.whole.iter_mut().zip(&self.part) {
                *whole += f64::from(part);
            }
        }
        Ok(())
    }

    /// Puts the sum into a slot of a table, and begins another one.
    pub(super) fn put(&mut self, slot: usize, slots: usize, numbers: &mut [u8], scales: &mut [f32]) {
        match self.layout.dtype {
            Dtype::F32 => put_f32(&self.whole, slot, slots, bytemuck::cast_slice_mut(numbers)),
            Dtype::F16 | Dtype::Bf16 => {
                scales[slot] = put_int8(&self.whole, slot, slots, bytemuck::cast_slice_mut(numbers));
            }
        }
        self.whole.fill(0.0);
    }
}

/// Memory as sums.
pub(super) fn see<'a>(layout: &Layout, numbers: &'a [u8], scales: &'a [f32]) -> Sums<'a> {
    match layout.dtype {
        Dtype::F32 => Sums::F32(bytemuck::cast_slice(numbers)),
        Dtype::F16 | Dtype::Bf16 => Sums::Int8 { numbers: bytemuck::cast_slice(numbers), scales },
    }
}
