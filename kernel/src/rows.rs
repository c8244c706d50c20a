//! KV rows as they lie in memory, and runs of them.
//!
//! A row is the rotated key and the value of one token side by side, so that reading a token is one run of memory:
//! `[key, value]`, each half padded with zeros to a multiple of [`ROW_ALIGN`] elements (head_dim 32, 64, 96, 128 and 256 need no
//! padding). Per token that is `2 · width · dtype` bytes, 512 for head_dim 128 in bf16.
//!
//! What a kernel attends to is a list of [`Run`]s in a few areas of memory: retrieval from a store that is laid out by code gives a
//! few runs per code, and dense attention is one run per area.

use crate::{
    dtype::{Dtype, Elements},
    error::{Error, Result, expect_len},
    shape::check_head_dim,
};
use std::ops::Range;

pub use crate::shape::{ROW_ALIGN, row_width};

/// Most areas of memory that the rows of one kv head lie in.
pub const MAX_AREAS: usize = 4;

/// Bytes of the row of one token.
pub const fn row_bytes(dtype: Dtype, head_dim: usize) -> usize {
    row_width(head_dim).saturating_mul(2 * dtype.size())
}

/// Borrowed KV rows: one area of memory.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    elements: Elements<'a>,
    head_dim: usize,
}

impl<'a> Rows<'a> {
    /// Sees `elements` as rows of `[key, value]`, each half [`row_width`]`(head_dim)` long and zero beyond head_dim.
    ///
    /// # Errors
    /// If head_dim is not an even number in 16..=256 or the elements are not whole rows.
    pub fn new(elements: Elements<'a>, head_dim: usize) -> Result<Self> {
        check_head_dim(head_dim)?;
        let row = 2 * row_width(head_dim);
        expect_len("rows", elements.len(), elements.len() / row * row)?;
        Ok(Self { elements, head_dim })
    }

    /// The elements, row after row.
    pub const fn elements(&self) -> Elements<'a> {
        self.elements
    }

    /// Dimension of a key, before padding.
    pub const fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// How many rows there are.
    pub const fn len(&self) -> usize {
        self.elements.len() / (2 * row_width(self.head_dim))
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Consecutive rows of an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Which area.
    pub area: u32,
    /// Its first row.
    pub start: u32,
    /// How many rows.
    pub len: u32,
}

impl Run {
    /// Some rows of an area. What is beyond 32 bits, which no area has, becomes the largest number of 32 bits.
    pub const fn new(area: usize, rows: Range<usize>) -> Self {
        const fn narrow(x: usize) -> u32 {
            if x > u32::MAX as usize { u32::MAX } else { x as u32 }
        }
        Self {
            area: narrow(area),
            start: narrow(rows.start),
            len: narrow(rows.end.saturating_sub(rows.start)),
        }
    }

    /// The rows.
    pub const fn rows(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// Runs of rows, in the order in which a kernel goes over them. Rows are numbered in that order, from 0 on.
#[derive(Debug, Clone, Copy)]
pub struct Runs<'a> {
    areas: &'a [Rows<'a>],
    runs: &'a [Run],
    len: usize,
}

impl<'a> Runs<'a> {
    /// Checks that the areas go together and that the runs lie inside of them.
    ///
    /// # Errors
    /// If there are not 1 to [`MAX_AREAS`] areas, or they differ in head_dim or storage type, or a run is not inside its area.
    pub fn new(areas: &'a [Rows<'a>], runs: &'a [Run]) -> Result<Self> {
        let Some(first) = areas.first().filter(|_| areas.len() <= MAX_AREAS) else {
            return Err(Error::Unsupported {
                what: "areas of rows",
                got: areas.len().to_string(),
                supported: "1..=4",
            });
        };
        for area in areas {
            expect_len("head_dim of the rows", area.head_dim, first.head_dim)?;
            if area.elements.dtype() != first.elements.dtype() {
                let got = format!("{} beside {}", area.elements.dtype(), first.elements.dtype());
                return Err(Error::Unsupported {
                    what: "storage type of the rows",
                    got,
                    supported: "one for all areas",
                });
            }
        }
        let mut len = 0_usize;
        for run in runs {
            let Some(area) = areas.get(run.area as usize) else {
                let need = format!("runs lie in one of {} areas", areas.len());
                return Err(Error::Position { position: run.area as usize, need });
            };
            if run.rows().end > area.len() {
                let need = format!("area {} has {} rows", run.area, area.len());
                return Err(Error::Position { position: run.rows().end - 1, need });
            }
            len = len.saturating_add(run.len as usize);
        }
        Ok(Self { areas, runs, len })
    }

    /// Runs that are known to lie in their areas, which go together.
    pub(crate) fn trusted(areas: &'a [Rows<'a>], runs: &'a [Run]) -> Self {
        Self { areas, runs, len: runs.iter().map(|run| run.len as usize).sum() }
    }

    /// The areas that the runs lie in.
    pub const fn areas(&self) -> &'a [Rows<'a>] {
        self.areas
    }

    /// The runs.
    pub const fn runs(&self) -> &'a [Run] {
        self.runs
    }

    /// How many rows they have together.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Dimension of a key.
    pub fn head_dim(&self) -> usize {
        self.areas[0].head_dim
    }

    /// Storage type of the rows.
    pub fn dtype(&self) -> Dtype {
        self.areas[0].elements.dtype()
    }
}
