//! Vectors that are to be packed, as callers have them.

use crate::error::{Error, Result, expect_len};

/// Vectors to be packed.
#[derive(Debug, Clone, Copy)]
pub enum Vectors<'a> {
    /// `[n, cols]`: one vector after the other.
    Rows(&'a [f32]),
    /// `[cols, stride]`, of which these vectors are columns `first` to `first + count`: how products leave their output.
    Columns {
        /// The numbers.
        values: &'a [f32],
        /// Numbers from one row to the next.
        stride: usize,
        /// The first column.
        first: usize,
        /// How many columns.
        count: usize,
    },
}

impl<'a> Vectors<'a> {
    /// How many there are, of dimension `cols`.
    pub(super) fn count(&self, cols: usize) -> usize {
        match *self {
            Self::Rows(values) => values.len().checked_div(cols).unwrap_or(0),
            Self::Columns { count, .. } => count,
        }
    }

    /// Some of them.
    pub(super) fn part(&self, cols: usize, start: usize, len: usize) -> Self {
        match *self {
            Self::Rows(values) => Self::Rows(&values[start * cols..(start + len) * cols]),
            Self::Columns { values, stride, first, .. } => {
                Self::Columns { values, stride, first: first + start, count: len }
            }
        }
    }

    /// How many there are, if they are whole.
    pub(crate) fn check(&self, cols: usize) -> Result<usize> {
        match *self {
            Self::Rows(values) => {
                let count = self.count(cols);
                expect_len("inputs", values.len(), count * cols)?;
                Ok(count)
            }
            Self::Columns { values, stride, first, count } => {
                expect_len("inputs", values.len(), cols.saturating_mul(stride))?;
                let end = first.saturating_add(count);
                if end <= stride {
                    return Ok(count);
                }
                Err(Error::Position { position: end, need: format!("there are {stride} columns") })
            }
        }
    }

    /// Puts elements `start` to `start + to.len()` of a vector into `to`; where it has ended, zeros.
    #[inline(always)]
    pub(super) fn read_vector(&self, cols: usize, vector: usize, start: usize, to: &mut [f32]) {
        let len = to.len().min(cols.saturating_sub(start));
        let (some, rest) = to.split_at_mut(len);
        rest.fill(0.0);
        match *self {
            Self::Rows(values) => some.copy_from_slice(&values[vector * cols + start..][..len]),
            Self::Columns { values, stride, first, .. } => {
                for (row, to) in values.chunks_exact(stride.max(1)).skip(start).zip(some) {
                    *to = row[first + vector];
                }
            }
        }
    }

    /// Puts one element of the vectors from `vector` on into `to`, as far as there are any.
    #[inline(always)]
    pub(super) fn read_element(&self, cols: usize, element: usize, vector: usize, to: &mut [f32]) {
        match *self {
            Self::Rows(values) => {
                for (values, to) in values[vector * cols..].chunks_exact(cols).zip(to) {
                    *to = values[element];
                }
            }
            Self::Columns { values, stride, first, count } => {
                let len = to.len().min(count - vector);
                to[..len].copy_from_slice(&values[element * stride + first + vector..][..len]);
            }
        }
    }
}
