//! One decode step of one kv head: score, retrieve, attend, and estimate the rest.
//!
//! [`decode_step`] is the whole of it on one thread. An engine that spreads a step over threads calls the parts:
//! [`choose_rows`] per kv head, then [`Kernels::attend`] per kv head and chunk of [`attend_chunk`] chosen positions,
//! then [`Partial::merge`] in the chunks' order, then [`attend_rest`] per kv head. Both ways give the same bits, on any
//! number of threads.

mod sparsity;

use crate::{
    Codebook, Kernels,
    attention::{Partial, Selection},
    error::{Error, Result, expect_len},
    kv::{KvRows, Rows, check_group},
    retrieval::{RetrievalIndex, RetrievalScratch},
    rows::BLOCK,
    tail::{Rest, ValueSums},
};
pub use sparsity::{Sparsity, Tail};
use std::ops::Range;

/// How many of a kv head's `rows` one call of [`Kernels::attend`] takes when a step is split up: a quarter of them, so
/// that a few kv heads fill many cores, but 1024 to 8192. Each call has to wait for its first rows, 3 to 5 µs on Emerald
/// Rapids: with calls of 1024 rows, dense decode at 128K tokens reads 8% less.
pub fn attend_chunk(rows: usize) -> usize {
    rows.div_ceil(4).next_multiple_of(BLOCK).clamp(1024, 8192)
}

/// The codes of one kv head's tokens in one sequence: all of them, and indexed those that have left the window.
#[derive(Debug, Clone)]
pub struct HeadIndex {
    sparsity: Sparsity,
    codes: Vec<u16>,
    index: RetrievalIndex,
    /// Of the values of what is in `index`, where there is a tail and anything in it.
    sums: Option<ValueSums>,
}

/// What a step chose, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    /// The length of the context.
    pub tokens: usize,
    /// Rows that the group attends: sinks, window and the retrieved ones.
    pub attended: usize,
    /// Tokens in the union of the heads' picks, before sinks and window are added. A head that is to take more than
    /// there is to retrieve counts sinks and window tokens for the rest, as the published code's figure does.
    pub picked: usize,
}

impl HeadIndex {
    /// An empty index for a codebook of `codes` codewords.
    ///
    /// # Errors
    /// See [`Sparsity::check`] and [`RetrievalIndex::new`].
    pub fn new(codes: usize, sparsity: Sparsity) -> Result<Self> {
        sparsity.check()?;
        Ok(Self { sparsity, codes: Vec::new(), index: RetrievalIndex::new(codes)?, sums: None })
    }

    /// Adds the codes of the newest tokens.
    pub fn append(&mut self, codes: &[u16]) {
        self.codes.extend_from_slice(codes);
    }

    /// Forgets the tokens from position `tokens` on.
    ///
    /// # Errors
    /// If tokens that a decode step has indexed would be gone, or back in the window; nothing is forgotten then.
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        let indexed = self.index.next_position();
        if !self.index.is_empty() && tokens < indexed.saturating_add(self.sparsity.window) {
            let need = format!("tokens before {indexed} have left the window and stay so");
            return Err(Error::Position { position: tokens, need });
        }
        self.codes.truncate(tokens);
        Ok(())
    }

    /// What is attended.
    pub const fn sparsity(&self) -> Sparsity {
        self.sparsity
    }

    /// The codes of all tokens so far.
    pub fn codes(&self) -> &[u16] {
        &self.codes
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.codes[..]) + self.index.bytes() + self.sums.as_ref().map_or(0, ValueSums::bytes)
    }

    /// Sums of the values of what retrieval may choose from; none where there is no tail, or nothing to choose from.
    pub const fn sums(&self) -> Option<&ValueSums> {
        self.sums.as_ref()
    }

    /// Leaves in `positions` what the group attends: the sinks, the retrieved tokens, the window. Where there is a tail,
    /// `rows` are those of all tokens; else they are not looked at.
    ///
    /// # Errors
    /// If `scores` is not `[group, codes]`, rows are not as many as tokens, a code is not among the codewords, or memory runs out.
    pub fn choose(
        &mut self,
        kernels: &dyn Kernels,
        rows: Rows<'_>,
        scores: &[f32],
        scratch: &mut RetrievalScratch,
        positions: &mut Vec<u32>,
    ) -> Result<Choice> {
        if self.sparsity.tail.is_on() {
            expect_len("KV rows", rows.len(), self.codes.len())?;
        }
        let tokens = self.codes.len();
        let sinks = self.sparsity.sinks.min(tokens);
        let window = tokens.saturating_sub(self.sparsity.window).max(sinks);
        let indexed = self.index.next_position().max(sinks);
        if indexed < window {
            self.add_to_index(kernels, rows, indexed..window)?;
        }
        let take = self.sparsity.take(tokens);
        positions.clear();
        positions.extend(0..sinks as u32);
        self.index.retrieve(kernels, scores, take, scratch, positions)?;
        let retrieved = positions.len() - sinks;
        positions.extend(window as u32..tokens as u32);
        let picked = if take > self.index.len() { take.min(tokens) } else { retrieved };
        Ok(Choice { tokens, attended: positions.len(), picked })
    }

    /// Indexes tokens that have left the window.
    fn add_to_index(&mut self, kernels: &dyn Kernels, rows: Rows<'_>, positions: Range<usize>) -> Result<()> {
        self.index.extend(positions.start, &self.codes[positions.clone()])?;
        if self.sparsity.tail.is_on() {
            let sums = match &mut self.sums {
                Some(sums) => sums,
                none => none.insert(ValueSums::new(self.index.codes(), rows)?),
            };
            kernels.sum_values(sums, rows, positions.start, &self.codes[positions])?;
        }
        Ok(())
    }
}

/// The newest token's projections for one kv head.
#[derive(Debug, Clone, Copy)]
pub struct StepInput<'a> {
    /// `[group, head_dim]`: the group's queries, rotated to the token's position.
    pub queries: &'a [f32],
    /// `[group, head_dim]`: the same queries, rotated to the fixed relative position.
    pub windowed_queries: &'a [f32],
    /// `[group, head_dim]`: the same queries, rotated by [`Sparsity::averaged_rotation`]; empty, if there is none.
    pub averaged_queries: &'a [f32],
    /// `[head_dim]`: the key, not rotated.
    pub key: &'a [f32],
    /// `[head_dim]`: the key, rotated to the token's position.
    pub rotated_key: &'a [f32],
    /// `[head_dim]`
    pub value: &'a [f32],
}

/// Working memory of a step, to be kept between steps.
#[derive(Debug, Clone, Default)]
pub struct StepScratch {
    /// Windowed queries, then averaged ones.
    queries: Vec<f32>,
    /// `[queries, codes]`
    scores: Vec<f32>,
    retrieval: RetrievalScratch,
    positions: Vec<u32>,
    partials: [Partial; 2],
    rest: RestScratch,
}

/// What a choice leaves of each code.
#[derive(Debug, Clone, Default)]
struct RestScratch {
    /// `[slots]`: tokens that are not attended.
    left: Vec<u32>,
    /// Attended positions of codes of which a part is left, and their slots.
    boundary: Vec<u32>,
    boundary_slots: Vec<u16>,
    /// Where the scores begin that codes are estimated with.
    first_score: usize,
    /// `[group]`: q·μ of those, see [`Codebook::center`], not scaled.
    centers: Vec<f64>,
}

impl RestScratch {
    fn fill(&mut self, index: &RetrievalIndex, sums: &ValueSums, prefixes: &[u32]) {
        self.left.clear();
        self.boundary.clear();
        self.boundary_slots.clear();
        if sums.codes().len() == index.codes() {
            // All codes, in their order.
            self.left.extend(sums.tokens().iter().zip(prefixes).map(|(tokens, taken)| tokens - taken));
        } else {
            let slots = sums.codes().iter().zip(sums.tokens());
            self.left.extend(slots.map(|(&code, tokens)| tokens - prefixes[usize::from(code)]));
        }
        // Few codes are taken in part: most runs of sixteen are passed over at once.
        let is_part = |(left, tokens): (&u32, &u32)| (*left != 0) & (left != tokens);
        for (run, (left, tokens)) in self.left.chunks(16).zip(sums.tokens().chunks(16)).enumerate() {
            if !left.iter().zip(tokens).fold(false, |any, slot| any | is_part(slot)) {
                continue;
            }
            for (i, slot) in left.iter().zip(tokens).enumerate().filter(|(_, slot)| is_part(*slot)) {
                let (at, taken) = (run * 16 + i, slot.1 - slot.0);
                index.copy_prefix(usize::from(sums.codes()[at]), taken, &mut self.boundary);
                self.boundary_slots.resize(self.boundary.len(), at as u16);
            }
        }
    }
}

impl StepScratch {
    /// The positions that the last [`choose_rows`] chose: sinks first, window last.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }
}

/// Steps 1 to 3: appends the token, scores the codewords, finds the token's code, retrieves; keeps in `scratch` what
/// [`attend_rest`] needs.
///
/// # Errors
/// If the shapes do not fit together or memory runs out. Rows and index then keep their length; if a code in the index
/// is not among the codewords, both have grown by the token.
pub fn choose_rows(
    kernels: &dyn Kernels,
    book: &Codebook,
    rows: &mut KvRows,
    index: &mut HeadIndex,
    input: &StepInput<'_>,
    scratch: &mut StepScratch,
) -> Result<Choice> {
    let head_dim = book.head_dim();
    expect_len("head_dim of the rows", rows.head_dim(), head_dim)?;
    expect_len("KV rows", rows.len(), index.codes().len())?;
    expect_len("rotated key", input.rotated_key.len(), head_dim)?;
    expect_len("value", input.value.len(), head_dim)?;
    let group = input.windowed_queries.len() / head_dim;
    check_group(group)?;
    expect_len("windowed queries", input.windowed_queries.len(), group * head_dim)?;
    let is_averaged = index.sparsity.tail == Tail::Averaged;
    let averaged = if is_averaged { input.windowed_queries.len() } else { 0 };
    expect_len("averaged queries", input.averaged_queries.len(), averaged)?;
    let StepScratch { queries, scores, retrieval, positions, rest, .. } = scratch;
    queries.clear();
    queries.extend_from_slice(input.windowed_queries);
    queries.extend_from_slice(input.averaged_queries);
    scores.resize(book.codes() * queries.len() / head_dim, 0.0);
    let code = kernels.codeword_scores(book, queries, Some(input.key), scores)?;
    rows.append(input.rotated_key, input.value)?;
    index.append(&code.map_or([0; 1], |code| [code]));
    let windowed_scores = &scores[..book.codes() * group];
    let choice = index.choose(kernels, rows.rows(), windowed_scores, retrieval, positions)?;
    if let Some(sums) = &index.sums {
        rest.fill(&index.index, sums, retrieval.prefixes());
        rest.first_score = if is_averaged { windowed_scores.len() } else { 0 };
        let queries = if is_averaged { input.averaged_queries } else { input.windowed_queries };
        rest.centers.clear();
        rest.centers.extend(queries.chunks_exact(head_dim).map(|query| center_score(query, book.center())));
    }
    Ok(choice)
}

/// q·μ, in f64: it can be hundreds of times larger than what tells codewords apart.
fn center_score(query: &[f32], center: &[f32]) -> f64 {
    query.iter().zip(center).map(|(&q, &c)| f64::from(q) * f64::from(c)).sum()
}

/// The last step: adds the estimate of what the last [`choose_rows`] left out to attention over what it chose, if the index keeps
/// sums for it. Gives how many codes' sums were read.
///
/// # Errors
/// If `index`, `rows` and `scratch` are not those of the choice.
pub fn attend_rest(
    kernels: &dyn Kernels,
    rows: Rows<'_>,
    index: &HeadIndex,
    scale: f32,
    scratch: &StepScratch,
    out: &mut Partial,
) -> Result<usize> {
    let Some(sums) = &index.sums else { return Ok(0) };
    let RestScratch { left, boundary, boundary_slots, first_score, centers } = &scratch.rest;
    let offsets: Vec<f32> = centers.iter().map(|center| (center * f64::from(scale)) as f32).collect();
    let rest = Rest {
        sums: sums.sums(),
        codes: sums.codes(),
        left,
        scores: scratch.scores.get(*first_score..).unwrap_or_default(),
        offsets: &offsets,
        scale,
        rows,
        boundary,
        boundary_slots,
    };
    kernels.attend_rest(&rest, out)
}

/// A whole step on one thread; `scale` is 1/√head_dim as a rule, `out` is `[group, head_dim]`.
///
/// # Errors
/// As [`choose_rows`].
#[expect(clippy::too_many_arguments, reason = "what a step reads, what it changes, and where it writes")]
pub fn decode_step(
    kernels: &dyn Kernels,
    book: &Codebook,
    rows: &mut KvRows,
    index: &mut HeadIndex,
    input: &StepInput<'_>,
    scale: f32,
    scratch: &mut StepScratch,
    out: &mut [f32],
) -> Result<Choice> {
    let choice = choose_rows(kernels, book, rows, index, input, scratch)?;
    let [whole, part] = &mut scratch.partials;
    for (i, positions) in scratch.positions.chunks(attend_chunk(choice.attended)).enumerate() {
        let target = if i == 0 { &mut *whole } else { &mut *part };
        kernels.attend(rows.rows(), &Selection::Positions(positions), input.queries, scale, target)?;
        if i > 0 {
            whole.merge(part)?;
        }
    }
    let mut whole = std::mem::take(whole);
    attend_rest(kernels, rows.rows(), index, scale, scratch, &mut whole)?;
    whole.finish(out)?;
    scratch.partials[0] = whole;
    Ok(choice)
}
