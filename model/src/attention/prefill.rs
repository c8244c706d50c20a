//! Prefill: tokens that attend to themselves and to all before them.

use super::Context;
use crate::{
    codebooks::Codebooks,
    error::{Error, Result},
    linear::transpose_into,
    observer::Observer,
    sequence::{self, Sequence, inner},
};
use a2ats_kernel::{
    Codebook, Dtype, Kernels,
    attention::{self, Causal},
    elementwise::Rotation,
    linear::Precision,
    rows::{Run, Runs},
    store::{Layout, Store},
};
use rayon::prelude::*;

/// Most tokens of one chunk of prefill. Within a chunk keys and values are attended as computed, before the store rounds
/// them, so codes and logits of prompts up to this long do not depend on the store's storage type. An 8B model's
/// activations for it take 130 MB.
pub const PREFILL_CHUNK: usize = 2048;

/// Query positions of one task: whole tiles of the kernel for groups of 1, 2, 4, 5, 8 and 10.
const CAUSAL_POSITIONS: usize = 40;

/// Keys that are encoded in one task.
const ENCODED: usize = 128;

/// The chunk that is read, and its working memory.
#[derive(Debug, Default)]
pub(crate) struct Prefill {
    heads: Vec<Head>,
    /// One for each token, by its position.
    rotations: Vec<Rotation>,
    start: usize,
    count: usize,
}

/// The chunk's projections for one kv head and its group.
#[derive(Debug, Default)]
struct Head {
    /// `[n, group, head_dim]`
    queries: Vec<f32>,
    /// `[n, head_dim]`
    keys: Vec<f32>,
    /// `[n, head_dim]`
    values: Vec<f32>,
    codes: Vec<u16>,
    /// Runs of the rows before the chunk.
    past: Vec<Run>,
    /// Rows of the chunk, not rounded to the store's storage type.
    exact: Option<Store>,
    /// `[n, group, head_dim]`
    outputs: Vec<f32>,
}

impl Prefill {
    /// Begins a chunk of so many tokens behind `start` others.
    pub(crate) fn begin(&mut self, context: Context<'_>, start: usize, count: usize) -> Result<()> {
        let (spec, width) = (context.spec, context.width());
        self.heads.resize_with(spec.num_key_value_heads, Head::default);
        for head in &mut self.heads {
            head.queries.resize(count * width, 0.0);
            head.keys.resize(count * spec.head_dim, 0.0);
            head.values.resize(count * spec.head_dim, 0.0);
            head.outputs.resize(count * width, 0.0);
            if head.exact.as_ref().is_none_or(|exact| exact.layout().head_dim != spec.head_dim) {
                let layout =
                    Layout { dtype: Dtype::F32, head_dim: spec.head_dim, codes: 0, window: 1, sinks: 0 };
                head.exact = Some(Store::new(layout, PREFILL_CHUNK)?);
            }
        }
        (self.start, self.count) = (start, count);
        self.rotations.resize_with(count.max(self.rotations.len()), Rotation::default);
        let rotations = self.rotations[..count].par_iter_mut().enumerate();
        rotations.for_each(|(token, rotation)| rotation.set_position(start + token, context.frequencies));
        Ok(())
    }

    /// Takes in the projections of `n` tokens from the chunk's token `first` on, each `[rows, n]` as products leave them.
    pub(crate) fn take(
        &mut self,
        context: Context<'_>,
        first: usize,
        n: usize,
        [queries, keys, values]: [&[f32]; 3],
    ) -> Result<()> {
        let (width, d) = (context.width(), context.spec.head_dim);
        self.heads.par_iter_mut().enumerate().try_for_each(|(number, head)| {
            let take = |from: &[f32], width: usize, to: &mut [f32]| {
                let from = &from[number * width * n..(number + 1) * width * n];
                transpose_into(from, width, n, &mut to[first * width..(first + n) * width], |to, x| *to = x);
            };
            take(queries, width, &mut head.queries);
            take(keys, d, &mut head.keys);
            take(values, d, &mut head.values);
            context.check_scores(&head.queries[first * width..(first + n) * width])?;
            context.check_scores(&head.keys[first * d..(first + n) * d])
        })
    }

    /// Adds the tokens to a layer of the sequence; each attends to itself and to all before it, to those of this chunk as they are and
    /// not as the store rounds them.
    pub(crate) fn attend(
        &mut self,
        context: Context<'_>,
        layer: usize,
        sequence: &mut Sequence,
        observer: Option<&dyn Observer>,
    ) -> Result<()> {
        let codebooks = sequence.codebooks().cloned();
        let rotations = &self.rotations[..self.count];
        let (start, position) = (self.start, CAUSAL_POSITIONS * context.width());
        let heads = self.heads.par_iter_mut().zip(sequence.layer_mut(layer)).enumerate();
        heads.try_for_each(|(number, (head, kept))| {
            let kept = inner(kept);
            if let Some(observer) = observer {
                observer.projected(layer, number, &head.queries, &head.keys, &head.values)?;
            }
            kept.store.rows_before(start, &mut head.past);
            head.append(context, book(codebooks.as_deref(), &kept.store, layer, number)?, kept, rotations)?;
            let Head { queries, past, exact, outputs, .. } = head;
            let Some(exact) = exact else { return Ok(()) };
            let areas = kept.store.areas();
            let past = if start > 0 { Some(Runs::new(&areas, past)?) } else { None };
            let own = exact.areas()[0];
            let tasks = queries.par_chunks(position).zip(outputs.par_chunks_mut(position)).enumerate();
            tasks.try_for_each_init(attention::Scratch::default, |scratch, (part, (queries, output))| {
                let first = part * CAUSAL_POSITIONS;
                let (group, scale, precision) = (context.spec.group(), context.scale(), Precision::Full);
                let request = Causal { past, rows: own, first, group, queries, scale, precision };
                Ok(context.kernels.attend_causal(&request, scratch, output)?)
            })
        })
    }

    /// Puts what tokens from `first` on attended to into `to`, `[n, heads, head_dim]`.
    pub(crate) fn output(&self, context: Context<'_>, first: usize, to: &mut [f32]) {
        let width = context.width();
        for (token, to) in to.chunks_exact_mut(width * self.heads.len()).enumerate() {
            for (head, to) in self.heads.iter().zip(to.chunks_exact_mut(width)) {
                to.copy_from_slice(&head.outputs[(first + token) * width..][..width]);
            }
        }
    }
}

impl Head {
    /// Adds the tokens to the store: codes of the keys first, then the rotated keys and the values. Rotates the queries, too.
    fn append(
        &mut self,
        context: Context<'_>,
        book: Option<&Codebook>,
        kept: &mut sequence::Head,
        rotations: &[Rotation],
    ) -> Result<()> {
        let kernels = context.kernels;
        self.codes.clear();
        if let Some(book) = book {
            kept.encode(kernels, book)?;
            self.codes.resize(rotations.len(), 0);
            encode(kernels, book, &self.keys, &mut self.codes)?;
        }
        rotate(context, &mut self.keys, rotations)?;
        rotate(context, &mut self.queries, rotations)?;
        kept.store.append(&self.keys, &self.values, &self.codes)?;
        if let Some(exact) = &mut self.exact {
            exact.truncate(kernels, 0)?;
            exact.append(&self.keys, &self.values, &[])?;
        }
        Ok(())
    }
}

/// The codes of one head's keys, spread over threads: a long prompt on few kv heads still uses all cores.
pub(crate) fn encode(kernels: &dyn Kernels, book: &Codebook, keys: &[f32], codes: &mut [u16]) -> Result<()> {
    let parts = codes.par_chunks_mut(ENCODED).zip(keys.par_chunks(ENCODED * book.head_dim()));
    Ok(parts.try_for_each(|(codes, keys)| kernels.encode(book, keys, codes))?)
}

/// The codebook of a store that keeps codes.
fn book<'b>(
    codebooks: Option<&'b Codebooks>,
    store: &Store,
    layer: usize,
    head: usize,
) -> Result<Option<&'b Codebook>> {
    match (store.layout().codes, codebooks) {
        (0, _) => Ok(None),
        (_, Some(books)) => Ok(Some(books.of_head(layer, head))),
        (_, None) => Err(Error::Usage("a2ats attention needs codebooks".to_owned())),
    }
}

/// Turns each token's vectors, `[n, vectors, head_dim]`, by its own position.
fn rotate(context: Context<'_>, vectors: &mut [f32], rotations: &[Rotation]) -> Result<()> {
    let per_token = vectors.len() / rotations.len();
    let tokens = vectors.par_chunks_exact_mut(per_token).zip(rotations).with_min_len(64);
    tokens.try_for_each(|(vectors, rotation)| Ok(context.kernels.rotate(vectors, rotation)?))
}
