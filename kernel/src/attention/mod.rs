//! Exact attention of one kv head's query group over KV rows: selected ones, or all of them.
//!
//! For each query head h: `softmax_j(scale · q_h·k_j) · v_j` over the rows j that are attended, with an online
//! softmax, so that each row is read once, for the whole group. Work splits over ranges of rows: every call leaves a
//! [`Partial`], and partials merge.
//!
//! | what | shape | dtype |
//! |---|---|---|
//! | queries, rotated to their true position | `[group, head_dim]` | f32 |
//! | rows, keys rotated to their true positions | runs of `[2 · width]`, see [`crate::rows`] | f32, f16, bf16 |
//! | output | `[group, head_dim]` | f32 |
//!
//! Sums are f32. Against the same rows in f64 the relative error of the output stays below 1e-5 for scores up to a
//! hundred or so; it grows with the size of the scores, as f32 scores do. The BF16 instructions see a query as the
//! sum of two bf16 numbers (16 significant bits): 1e-4.
//!
//! How it is done: blocks of 32 rows (`microkernel/rows.rs`); per block first all scores (tiles of `microkernel/dot.rs`), then the
//! softmax terms, then the values, whose sums stay in registers over the block (`weigh.rs`). Meanwhile the rows that come next are
//! prefetched, at two distances (`microkernel/prefetch.rs`).

mod block;
mod partial;
#[cfg(test)]
mod tests;
mod weigh;

pub use block::Scratch;
pub use partial::{Partial, segment_rows};

use crate::{
    dtype::Elements,
    error::{Error, Result, expect_len},
    microkernel::block::RowSet,
    precision::Precision,
    rows::{MAX_AREAS, Rows, Run, Runs},
    shape::{check_group, row_width},
    simd::{Simd, Stored},
};
use block::attend_rows;
pub(crate) use block::{Request, Visible, restore_order};
use half::f16;
pub(crate) use partial::Segment;
use std::ops::Range;
pub(crate) use weigh::weigh_block;

/// Checks the shapes of a decode step's attention.
pub(crate) fn check_attend(rows: &Runs<'_>, part: &Range<usize>, queries: &[f32]) -> Result<()> {
    let group = queries.len() / rows.head_dim();
    check_group(group)?;
    expect_len("queries", queries.len(), group * rows.head_dim())?;
    if part.start <= part.end && part.end <= rows.len() {
        return Ok(());
    }
    let need = format!("there are {} rows, and {part:?} is no part of them", rows.len());
    Err(Error::Position { position: part.end, need })
}

/// The rows of some runs, as elements of their type.
#[inline(always)]
pub(crate) fn typed<'a, T: Stored>(rows: &Runs<'a>) -> RowSet<'a, T> {
    let mut areas = [&[][..]; MAX_AREAS];
    for (to, area) in areas.iter_mut().zip(rows.areas()) {
        *to = T::of(area.elements());
    }
    RowSet::new(areas, 2 * row_width(rows.head_dim()), rows.runs())
}

/// Attention over rows `part` of some runs.
#[inline(always)]
pub(crate) fn attend<S: Simd>(
    s: S,
    rows: &Runs<'_>,
    part: Range<usize>,
    request: &Request<'_>,
    scratch: &mut Scratch,
    out: &mut Partial,
) {
    match rows.areas()[0].elements() {
        Elements::F32(_) => attend_rows(s.plain(), &typed::<f32>(rows), part, request, scratch, out),
        Elements::F16(_) => attend_rows(s.plain(), &typed::<f16>(rows), part, request, scratch, out),
        Elements::Bf16(_) => attend_rows(s, &typed::<S::Bf16>(rows), part, request, scratch, out),
    }
}

/// A request for causal attention: what prefill does for one kv head.
#[derive(Debug, Clone, Copy)]
pub struct Causal<'a> {
    /// Rows that every query sees, if there are any: the tokens of earlier chunks.
    pub past: Option<Runs<'a>>,
    /// Rows of which the group at position i sees those up to and including `first + i`.
    pub rows: Rows<'a>,
    /// The row of the first query position.
    pub first: usize,
    /// Query heads per position.
    pub group: usize,
    /// `[positions, group, head_dim]`, rotated to their true positions.
    pub queries: &'a [f32],
    /// What scores are multiplied by: 1/√head_dim as a rule.
    pub scale: f32,
    /// How exactly queries are seen; decode always sees them in full.
    pub precision: Precision,
}

/// Checks the shapes of causal attention.
pub(crate) fn check_causal(request: &Causal<'_>, out: &[f32]) -> Result<()> {
    let Causal { past, rows, first, group, queries, .. } = request;
    check_group(*group)?;
    let positions = queries.len() / (group * rows.head_dim());
    expect_len("queries", queries.len(), positions * group * rows.head_dim())?;
    expect_len("attention output", out.len(), queries.len())?;
    if let Some(past) = past {
        expect_len("head_dim of the past", past.head_dim(), rows.head_dim())?;
    }
    let end = first.saturating_add(positions);
    if end > rows.len() {
        let need = format!("queries attend to their own rows, and there are {}", rows.len());
        return Err(Error::Position { position: end - 1, need });
    }
    if u32::try_from(end).is_err() {
        return Err(Error::Position { position: end, need: "rows are numbered below 2^32".to_owned() });
    }
    Ok(())
}

/// Query vectors that share a pass over the rows in prefill.
const CAUSAL_TILE: usize = 40;

/// See [`Causal`]; `out` is `[positions, group, head_dim]`.
#[inline(always)]
pub(crate) fn attend_causal<S: Simd>(s: S, causal: &Causal<'_>, scratch: &mut Scratch, out: &mut [f32]) {
    let Causal { past, rows, first, group, queries, scale, precision } = *causal;
    let head_dim = rows.head_dim();
    let positions = queries.len() / (group * head_dim);
    // Tiles of nearly equal size: each is a pass over the rows, and a tile of the last few positions costs a whole one.
    let tiles = positions.div_ceil((CAUSAL_TILE / group).max(1)).max(1);
    let tile_positions = positions.div_ceil(tiles).max(1);
    let tile_len = tile_positions * group * head_dim;
    let [mut earlier, mut recent] = std::mem::take(&mut scratch.partials);
    for (t, (queries, out)) in queries.chunks(tile_len).zip(out.chunks_mut(tile_len)).enumerate() {
        let first = first + t * tile_positions;
        let seen = Run::new(0, 0..first + queries.len() / (group * head_dim));
        let own = Runs::trusted(std::slice::from_ref(&rows), std::slice::from_ref(&seen));
        let request = Request {
            queries,
            head_dim,
            scale,
            visible: Visible::Causal { first, group },
            precision,
            segment: usize::MAX,
        };
        attend(s, &own, 0..own.len(), &request, scratch, &mut recent);
        if let Some(past) = past {
            let request = Request { visible: Visible::All, ..request };
            attend(s, &past, 0..past.len(), &request, scratch, &mut earlier);
            recent.merge_same(&earlier);
        }
        recent.write_output(out);
    }
    scratch.partials = [earlier, recent];
}
