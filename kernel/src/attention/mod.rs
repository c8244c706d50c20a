//! Exact attention of one kv head's query group over KV rows: selected ones, or all of them.
//!
//! For each query head h: `softmax_j(scale · q_h·k_j) · v_j` over the rows j that are attended, with an online
//! softmax, so that each row is read once, for the whole group. Work splits over ranges of rows: every call leaves a
//! [`Partial`], and partials merge.
//!
//! | what | shape | dtype |
//! |---|---|---|
//! | queries, rotated to their true position | `[group, head_dim]` | f32 |
//! | rows, keys rotated to their true positions | `[n, 2 · width]`, see [`crate::kv`] | f32, f16, bf16 |
//! | output | `[group, head_dim]` | f32 |
//!
//! Sums are f32. Against the same rows in f64 the relative error of the output stays below 1e-5 for scores up to a
//! hundred or so; it grows with the size of the scores, as f32 scores do. The BF16 instructions see a query as the
//! sum of two bf16 numbers (16 significant bits): 1e-4.
//!
//! How it is done: blocks of 32 rows (`rows.rs`); per block first all scores (tiles of `tile.rs`), then the softmax
//! terms, then the values, whose sums stay in registers over the block (`weigh.rs`). Meanwhile memory is asked for the
//! rows that come next, at two distances (`ahead.rs`).
//!
//! Positions are attended in the order they come in, posting list by posting list. Sorted, selective attention at 128K
//! tokens takes 4% less on Granite Rapids, in the order of their 2 MiB 3%, before what sorting costs.

mod block;
mod partial;
mod weigh;

pub use partial::Partial;

use crate::{
    dtype::{Element, Elements},
    error::{Error, Result, expect_len},
    kv::{Rows, check_group, row_width},
    linear::Precision,
    rows::RowSet,
    simd::Simd,
};
pub(crate) use block::Visible;
use block::{Queries, attend_rows};
use std::ops::Range;

/// Which rows are attended.
#[derive(Debug, Clone)]
pub enum Selection<'a> {
    /// All rows of a range of positions.
    Range(Range<usize>),
    /// The rows at these positions, in any order, each at most once.
    Positions(&'a [u32]),
}

impl Selection<'_> {
    /// How many rows are attended.
    pub fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::Positions(positions) => positions.len(),
        }
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Checks the shapes of a decode step's attention; gives the size of the group.
pub(crate) fn check_attend(rows: &Rows<'_>, selection: &Selection<'_>, queries: &[f32]) -> Result<usize> {
    let group = queries.len() / rows.head_dim();
    check_group(group)?;
    expect_len("queries", queries.len(), group * rows.head_dim())?;
    let end = match selection {
        Selection::Range(range) => range.end.max(range.start),
        Selection::Positions(positions) => positions.iter().max().map_or(0, |&last| last as usize + 1),
    };
    if end > rows.len() {
        let need = format!("the cache has {} rows", rows.len());
        return Err(Error::Position { position: end - 1, need });
    }
    Ok(group)
}

#[expect(clippy::too_many_arguments, reason = "what is asked, how exactly, and where it goes")]
/// Attention of some queries over the selected rows, of which each query sees those that `visible` says.
#[inline(always)]
pub(crate) fn attend<S: Simd>(
    s: S,
    rows: Rows<'_>,
    selection: &Selection<'_>,
    queries: &[f32],
    scale: f32,
    visible: Visible,
    precision: Precision,
    out: &mut Partial,
) {
    match rows.elements() {
        Elements::F32(elements) => {
            attend_typed(s, elements, rows, selection, queries, scale, visible, precision, out)
        }
        Elements::F16(elements) => {
            attend_typed(s, elements, rows, selection, queries, scale, visible, precision, out)
        }
        Elements::Bf16(elements) => {
            attend_typed(s, elements, rows, selection, queries, scale, visible, precision, out)
        }
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the arguments of `attend`, and its typed elements")]
fn attend_typed<S: Simd, T: Element>(
    s: S,
    elements: &[T],
    rows: Rows<'_>,
    selection: &Selection<'_>,
    queries: &[f32],
    scale: f32,
    visible: Visible,
    precision: Precision,
    out: &mut Partial,
) {
    let stride = 2 * row_width(rows.head_dim());
    let set = match selection {
        Selection::Range(range) => {
            let elements = &elements[range.start * stride..range.end.max(range.start) * stride];
            RowSet::new(elements, stride, None)
        }
        Selection::Positions(positions) => RowSet::new(elements, stride, Some(positions)),
    };
    let queries = Queries::new::<S, T>(s, queries, rows.head_dim(), scale);
    attend_rows(s, &set, &queries, visible, precision, out);
}

/// A request for causal attention: what prefill does for one kv head.
#[derive(Debug, Clone, Copy)]
pub struct Causal<'a> {
    /// Rows that every query sees, if there are any: the tokens of earlier chunks.
    pub past: Option<Rows<'a>>,
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
    Ok(())
}

/// Query vectors that share a pass over the rows in prefill.
const CAUSAL_TILE: usize = 40;

/// See [`Causal`]; `out` is `[positions, group, head_dim]`.
#[inline(always)]
pub(crate) fn attend_causal<S: Simd>(s: S, request: &Causal<'_>, out: &mut [f32]) {
    let Causal { past, rows, first, group, queries, scale, precision } = *request;
    let head_dim = rows.head_dim();
    let positions = queries.len() / (group * head_dim);
    // Tiles of nearly equal size: each is a pass over the rows, and a tile of the last few positions costs a whole one.
    let tiles = positions.div_ceil((CAUSAL_TILE / group).max(1)).max(1);
    let tile_positions = positions.div_ceil(tiles).max(1);
    let tile_len = tile_positions * group * head_dim;
    let (mut earlier, mut recent) = (Partial::default(), Partial::default());
    for (t, (queries, out)) in queries.chunks(tile_len).zip(out.chunks_mut(tile_len)).enumerate() {
        let first = first + t * tile_positions;
        let seen = Selection::Range(0..first + queries.len() / (group * head_dim));
        attend(s, rows, &seen, queries, scale, Visible::Causal { first, group }, precision, &mut recent);
        if let Some(past) = past {
            attend(
                s,
                past,
                &Selection::Range(0..past.len()),
                queries,
                scale,
                Visible::All,
                precision,
                &mut earlier,
            );
            recent.merge_same(&earlier);
        }
        recent.write_output(out);
    }
}
