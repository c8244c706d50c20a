//! Kernels that only this crate calls: pieces of retrieval, of laying out a store, of clustering. The trait cannot be named outside,
//! which also keeps others from implementing [`Kernels`](crate::Kernels).

use crate::{
    clustering::{self, Candidates, Nearest},
    dtype::Elements,
    error::{Error, Result, expect_len},
    estimate,
    retrieval::select::{Boundary, select},
    rows::Rows,
    shape::row_width,
    simd::{Simd, Stored},
};
use half::{bf16, f16};
use std::ops::Range;

/// See the file.
pub trait Internals {
    /// The codes that one query head takes by these `scores`, given how many tokens each has, until it has `take`:
    /// raises `prefixes` to `counts` where a code is taken whole, and describes the rest in `boundary`. All are
    /// `[codes]`; `take` is above 0 and below the sum of `counts`. See [`crate::retrieval`].
    fn select_codes(
        &self,
        scores: &[f32],
        counts: &[u32],
        take: u32,
        prefixes: &mut [u32],
        boundary: &mut Boundary,
    );

    /// Adds the values of consecutive rows to `sums`, `[width]`.
    fn sum_values(&self, rows: Rows<'_>, range: Range<usize>, sums: &mut [f32]) -> Result<()>;

    /// Compares each of `points`, `[n, dim]`, with all candidates; raises `best` where one is better. See
    /// [`crate::clustering`].
    fn nearest(&self, points: &[f32], candidates: &Candidates<'_>, best: &mut Nearest<'_>) -> Result<()>;
}

impl<S: Simd> Internals for S {
    fn select_codes(
        &self,
        scores: &[f32],
        counts: &[u32],
        take: u32,
        prefixes: &mut [u32],
        boundary: &mut Boundary,
    ) {
        select(self.plain(), scores, counts, take, prefixes, boundary);
    }

    fn sum_values(&self, rows: Rows<'_>, range: Range<usize>, sums: &mut [f32]) -> Result<()> {
        let width = row_width(rows.head_dim());
        expect_len("sums", sums.len(), width)?;
        let place = |row: usize| row.saturating_mul(2 * width);
        let Some(elements) = rows.elements().range(place(range.start)..place(range.end)) else {
            let need = format!("there are {} rows", rows.len());
            return Err(Error::Position { position: range.end, need });
        };
        let s = self.plain();
        match elements {
            Elements::F32(_) => estimate::add_values(s, f32::of(elements), sums),
            Elements::F16(_) => estimate::add_values(s, f16::of(elements), sums),
            Elements::Bf16(_) => estimate::add_values(s, bf16::of(elements), sums),
        }
        Ok(())
    }

    fn nearest(&self, points: &[f32], candidates: &Candidates<'_>, best: &mut Nearest<'_>) -> Result<()> {
        let dim = clustering::check(points, candidates, best)?;
        clustering::nearest(self.plain(), points, dim, candidates, best);
        Ok(())
    }
}
