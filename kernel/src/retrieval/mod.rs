//! Which tokens to attend: exact top-k over codes, at a cost that does not depend on the context's length.
//!
//! Scores belong to codes, so the best `take` tokens of a query head are whole codes in descending score and a part
//! of the last one. A step looks at the scores of the codes and at how many tokens each has, and at nothing else.
//!
//! | what | shape | dtype |
//! |---|---|---|
//! | scores | `[group, codes]`, as [`crate::codebook`] leaves them | f32 |
//! | counts: how many tokens have each code | `[codes]` | u32 |
//! | prefixes: how many of each code's tokens, the lowest positions first, some head takes | `[codes]` | u32 |
//!
//! Exact, ties included: each query head takes its `take` best-scoring tokens; tokens of equal score, be it by
//! sharing a code or by codes that score the same (+0 and −0 do), the lower position first. The union over the group is, per code,
//! the longest prefix any head takes. Cost: O(codes · group), plus O(tokens taken · log codes) where codes tie exactly at the
//! boundary. Scores that are NaN are never chosen by a head that takes less than all.

pub(crate) mod select;

use crate::{
    dispatch::Kernels,
    error::{Error, Result, expect_len},
    shape::check_group,
};
use select::Boundary;
use std::{cmp::Reverse, collections::BinaryHeap};

/// Where the tokens of a code are: looked at only where codes tie at the end of a head's taking.
pub trait Postings {
    /// The position of a code's token number `number` in ascending order.
    fn position(&self, code: usize, number: usize) -> Option<u32>;
}

/// Working memory of [`retrieve`], to be kept between steps.
#[derive(Debug, Clone)]
pub struct Scratch {
    boundary: Boundary,
    /// The next position of each tied code, and how many are taken.
    next: BinaryHeap<Reverse<(u32, usize)>>,
    taken: Vec<u32>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { boundary: Boundary::none(), next: BinaryHeap::new(), taken: Vec::new() }
    }
}

/// Puts into `prefixes`, `[codes]`, how many of each code's tokens are in the union of each query head's `take` best-scoring ones;
/// `scores` is `[group, codes]`, `counts` is `[codes]`. A `take` of all tokens or more gives all of them.
///
/// # Errors
/// If `scores` is not `[group, codes]` with a group in 1..=16, or there are 2³² tokens or more.
pub fn retrieve(
    kernels: &dyn Kernels,
    scores: &[f32],
    counts: &[u32],
    take: usize,
    postings: &impl Postings,
    scratch: &mut Scratch,
    prefixes: &mut Vec<u32>,
) -> Result<()> {
    let codes = counts.len();
    let group = scores.len().checked_div(codes).unwrap_or(0);
    check_group(group)?;
    expect_len("scores", scores.len(), group * codes)?;
    let tokens: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    if tokens > u64::from(u32::MAX) {
        let (what, got) = ("tokens to retrieve from", tokens.to_string());
        return Err(Error::Unsupported { what, got, supported: "fewer than 2^32" });
    }
    prefixes.clear();
    if take as u64 >= tokens {
        prefixes.extend_from_slice(counts);
        return Ok(());
    }
    prefixes.resize(codes, 0);
    if take > 0 {
        for scores in scores.chunks_exact(codes) {
            kernels.select_codes(scores, counts, take as u32, prefixes, &mut scratch.boundary);
            share_among_tied(postings, scratch, prefixes);
        }
    }
    Ok(())
}

/// The codes at the boundary score the same: the lowest of their positions, merged, are taken.
fn share_among_tied(postings: &impl Postings, scratch: &mut Scratch, prefixes: &mut [u32]) {
    let Scratch { boundary, next, taken } = scratch;
    let mut raise = |code: u32, taken: u32| {
        let prefix = &mut prefixes[code as usize];
        *prefix = taken.max(*prefix);
    };
    if let [code] = boundary.codes[..] {
        raise(code, boundary.left);
        return;
    }
    taken.clear();
    taken.resize(boundary.codes.len(), 0);
    next.clear();
    let position = |i: usize, number: u32| postings.position(boundary.codes[i] as usize, number as usize);
    for i in 0..boundary.codes.len() {
        next.extend(position(i, 0).map(|position| Reverse((position, i))));
    }
    for _ in 0..boundary.left {
        let Some(Reverse((_, i))) = next.pop() else { break };
        taken[i] += 1;
        next.extend(position(i, taken[i]).map(|position| Reverse((position, i))));
    }
    boundary.codes.iter().zip(taken).for_each(|(&code, taken)| raise(code, *taken));
}
