//! Which tokens to attend: exact top-k over codes, at a cost that does not depend on the context's length.
//!
//! Scores belong to codes, so the best `take` tokens of a query head are whole codes in descending score and a part
//! of the last one. [`RetrievalIndex`] keeps, per kv head and sequence, the positions of each code in ascending order
//! (its posting list); a step looks at the scores of the codes and at the positions it puts out, and at nothing else.
//!
//! | what | shape | dtype |
//! |---|---|---|
//! | scores | `[group, codes]`, as [`crate::codebook`] leaves them | f32 |
//! | output | positions of the union over the group, each once, in no particular order | u32 |
//!
//! Exact, ties included: each query head takes its `take` best-scoring tokens; tokens of equal score, be it by
//! sharing a code or by codes that score the same (+0 and −0 do), the lower position first. Cost: O(codes · group)
//! to choose and O(output) to write, plus O(output · log codes) where codes tie exactly at the boundary. Scores that
//! are NaN are never chosen by a head that takes less than all.

mod posting;
mod select;

use crate::{
    dispatch::Kernels,
    error::{Error, Result, expect_len},
    kv::{check_codes, check_group},
};
use posting::PostingLists;
pub use select::Boundary;
pub(crate) use select::select;
use std::{cmp::Reverse, collections::BinaryHeap};

/// Positions of one kv head's tokens by code, for the tokens that retrieval may choose from.
#[derive(Debug, Clone)]
pub struct RetrievalIndex {
    lists: PostingLists,
    len: usize,
    next_position: usize,
}

/// Working memory of [`RetrievalIndex::retrieve`], to be kept between steps.
#[derive(Debug, Clone, Default)]
pub struct RetrievalScratch {
    boundary: Boundary,
    /// `[codes]`: how many of its lowest positions some head of the group takes.
    prefixes: Vec<u32>,
}

impl RetrievalScratch {
    /// `[codes]`: how many of each code's lowest positions the last selection took.
    pub fn prefixes(&self) -> &[u32] {
        &self.prefixes
    }
}

/// Checks the shapes of a selection.
pub(crate) fn check_select(scores: &[f32], counts: &[u32], prefixes: &[u32]) -> Result<()> {
    expect_len("counts", counts.len(), scores.len())?;
    expect_len("prefixes", prefixes.len(), scores.len())
}

impl RetrievalIndex {
    /// An empty index over `codes` codewords.
    ///
    /// # Errors
    /// If there are not 1 to 65536 codewords.
    pub fn new(codes: usize) -> Result<Self> {
        check_codes(codes)?;
        Ok(Self { lists: PostingLists::new(codes), len: 0, next_position: 0 })
    }

    /// How many codes there are.
    pub(crate) fn codes(&self) -> usize {
        self.lists.codes()
    }

    /// How many tokens it holds.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One more than the last position added.
    pub const fn next_position(&self) -> usize {
        self.next_position
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        self.lists.bytes()
    }

    /// Adds tokens at `first_position`, `first_position + 1`, … with these codes.
    ///
    /// # Errors
    /// If `first_position` is below what was added before, positions do not fit 32 bits, or a code is not among the
    /// codewords; nothing is added then.
    pub fn extend(&mut self, first_position: usize, codes: &[u16]) -> Result<()> {
        let end = first_position.saturating_add(codes.len());
        if first_position < self.next_position || u32::try_from(end).is_err() {
            let need =
                format!("positions are added in ascending order from {} and below 2^32", self.next_position);
            return Err(Error::Position { position: first_position, need });
        }
        if let Some(bad) = codes.iter().find(|&&code| usize::from(code) >= self.lists.codes()) {
            let need = "codes below the number of codewords";
            return Err(Error::Unsupported { what: "code", got: bad.to_string(), supported: need });
        }
        self.lists.extend(first_position as u32, codes);
        self.len += codes.len();
        self.next_position = end;
        Ok(())
    }

    /// Appends the `prefix` lowest positions of a code.
    pub(crate) fn copy_prefix(&self, code: usize, prefix: u32, positions: &mut Vec<u32>) {
        self.lists.copy_prefix(code, prefix, positions);
    }

    /// Appends to `positions` the union of each query head's `take` best-scoring tokens; `scores` is
    /// `[group, codes]`. A `take` of all tokens or more gives all of them.
    ///
    /// # Errors
    /// As [`RetrievalIndex::select`].
    pub fn retrieve(
        &self,
        kernels: &dyn Kernels,
        scores: &[f32],
        take: usize,
        scratch: &mut RetrievalScratch,
        positions: &mut Vec<u32>,
    ) -> Result<()> {
        self.select(kernels, scores, take, scratch)?;
        self.write_positions(scratch, positions);
        Ok(())
    }

    /// The first half of [`RetrievalIndex::retrieve`]: leaves in `scratch` how much of each code's posting list is in
    /// the union. Its cost does not depend on how many tokens there are.
    ///
    /// # Errors
    /// If `scores` is not `[group, codes]` with a group in 1..=16.
    pub fn select(
        &self,
        kernels: &dyn Kernels,
        scores: &[f32],
        take: usize,
        scratch: &mut RetrievalScratch,
    ) -> Result<()> {
        let counts = self.lists.counts();
        check_group(scores.len() / counts.len())?;
        expect_len("scores", scores.len(), scores.len() / counts.len() * counts.len())?;
        let RetrievalScratch { boundary, prefixes } = scratch;
        prefixes.clear();
        if take >= self.len {
            prefixes.extend_from_slice(counts);
            return Ok(());
        }
        prefixes.resize(counts.len(), 0);
        if take > 0 {
            for scores in scores.chunks_exact(counts.len()) {
                kernels.select_codes(scores, counts, take as u32, prefixes, boundary)?;
                self.share_among_tied(boundary, prefixes);
            }
        }
        Ok(())
    }

    /// The codes at the boundary score the same: the lowest of their positions, merged, are taken.
    fn share_among_tied(&self, boundary: &Boundary, prefixes: &mut [u32]) {
        let mut raise = |code: u32, taken: u32| {
            let prefix = &mut prefixes[code as usize];
            *prefix = taken.max(*prefix);
        };
        if let [code] = boundary.codes[..] {
            raise(code, boundary.left);
            return;
        }
        let mut rest: Vec<_> =
            boundary.codes.iter().map(|&code| self.lists.positions(code as usize)).collect();
        let mut taken = vec![0_u32; rest.len()];
        let mut next = BinaryHeap::new();
        for (i, positions) in rest.iter_mut().enumerate() {
            next.extend(positions.next().map(|position| Reverse((position, i))));
        }
        for _ in 0..boundary.left {
            let Some(Reverse((_, i))) = next.pop() else { break };
            taken[i] += 1;
            next.extend(rest[i].next().map(|position| Reverse((position, i))));
        }
        boundary.codes.iter().zip(taken).for_each(|(&code, taken)| raise(code, taken));
    }

    /// The second half: appends the positions that were selected, which `scratch` has from a selection of this index.
    pub fn write_positions(&self, scratch: &RetrievalScratch, positions: &mut Vec<u32>) {
        // Few codes are taken: most runs of eight are passed over at once.
        for (run, prefixes) in scratch.prefixes.chunks(8).enumerate() {
            if prefixes.iter().any(|&prefix| prefix > 0) {
                for (i, &prefix) in prefixes.iter().enumerate() {
                    self.lists.copy_prefix(run * 8 + i, prefix, positions);
                }
            }
        }
    }
}
