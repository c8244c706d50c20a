//! Which tokens to attend: exact top-k over codes, at a cost that does not depend on the context's length.
//!
//! Scores belong to codes, so the best `take` tokens of a query head are whole codes in descending score and a part
//! of the last one. [`RetrievalIndex`] keeps, per kv head and sequence, the positions of each code in ascending order
//! (its posting list); a step looks at the scores of the codes and at the positions it puts out, and at nothing else.
//!
//! | what | shape | dtype |
//! |---|---|---|
//! | scores | `[codes, group]`, as [`crate::codebook`] leaves them | f32 |
//! | output | positions of the union over the group, each once, in no particular order | u32 |
//!
//! Exact, ties included: each query head takes its `take` best-scoring tokens; tokens of equal score, be it by
//! sharing a code or by codes that score the same (+0 and −0 do), the lower position first. Cost: O(codes · group)
//! to choose and O(output) to write, plus O(output · log codes) where codes tie exactly at the boundary.

mod posting;
mod select;

use crate::error::{Error, Result, expect_len};
use crate::kv::{check_codes, check_group};
use posting::PostingLists;
use select::Selector;

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
    selector: Selector,
    /// `[codes]`: how many of its lowest positions some head of the group takes.
    prefixes: Vec<u32>,
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

    /// Appends to `positions` the union of each query head's `take` best-scoring tokens; `scores` is
    /// `[codes, group]`. A `take` of all tokens or more gives all of them.
    ///
    /// # Errors
    /// If `scores` has another length or `group` is not in 1..=16.
    pub fn retrieve(
        &self,
        scores: &[f32],
        group: usize,
        take: usize,
        scratch: &mut RetrievalScratch,
        positions: &mut Vec<u32>,
    ) -> Result<()> {
        check_group(group)?;
        expect_len("scores", scores.len(), self.lists.codes() * group)?;
        if take == 0 || self.len == 0 {
            return Ok(());
        }
        scratch.prefixes.clear();
        if take >= self.len {
            scratch.prefixes.extend(self.lists.counts());
        } else {
            scratch.prefixes.resize(self.lists.codes(), 0);
            for head in 0..group {
                let of_head = scores.iter().skip(head).step_by(group);
                scratch.selector.select(&self.lists, of_head, take as u32, &mut scratch.prefixes);
            }
        }
        for (code, &prefix) in scratch.prefixes.iter().enumerate() {
            self.lists.copy_prefix(code, prefix, positions);
        }
        Ok(())
    }
}
