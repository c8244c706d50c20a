//! One transformer layer, as the papers write it: normalize, attend, add; normalize, gate, add.

use crate::{
    cache::HeadCache,
    codebooks::Codebooks,
    error::{Error, Result},
    linear::Linear,
    model::Llama,
    step::{ReadCount, Scratch},
};
use a2ats_kernel::{
    Codebook, Kernels,
    attention::{Causal, Partial, Selection},
    decode::{Choice, HeadIndex, StepInput, StepScratch, attend_chunk, attend_rest, choose_rows},
    elementwise::Rotation,
    linear::Precision,
};
use rayon::prelude::*;
use std::ops::Range;

/// Tokens that go through the projections at once: each weight is used so many times when it is in the cache, and the
/// MLP's activations of an 8B model take 30 MB.
const PIECE: usize = 128;

/// Query positions of one task in prefill: whole tiles of the kernel for groups of 1, 2, 4, 5, 8 and 10.
const CAUSAL_POSITIONS: usize = 40;

/// The weights of one layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) input_norm: Vec<f32>,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) output: Linear,
    pub(crate) post_attention_norm: Vec<f32>,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// Looks at projections on their way to attention; called from several threads, for each kv head of a layer once a pass.
pub trait Observer: Sync {
    /// `queries` is `[n, group, head_dim]`, `keys` and `values` are `[n, head_dim]`; nothing is rotated.
    ///
    /// # Errors
    /// Whatever ends the pass.
    fn projected(
        &self,
        layer: usize,
        kv_head: usize,
        queries: &[f32],
        keys: &[f32],
        values: &[f32],
    ) -> Result<()>;
}

/// What all layers of one forward pass share.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Llama,
    pub(crate) codebooks: Option<&'a Codebooks>,
    pub(crate) observer: Option<&'a dyn Observer>,
    /// One per token of the pass, by its position.
    pub(crate) rotations: &'a [Rotation],
    /// By the fixed relative position that codewords are scored at.
    pub(crate) relative: Option<&'a Rotation>,
    /// By which queries are rotated for the estimate of what is not attended, if not by `relative`.
    pub(crate) averaged: Option<&'a Rotation>,
    /// The position of the first token.
    pub(crate) start: usize,
    /// Whether this is a decode step, which may attend to a choice of the tokens, or prefill, which attends to all.
    pub(crate) decode: bool,
}

/// Projections of some tokens for one kv head and its group, each head's numbers together.
#[derive(Default)]
struct HeadInput {
    /// `[n, group, head_dim]`
    queries: Vec<f32>,
    /// `[n, head_dim]`
    keys: Vec<f32>,
    /// `[n, head_dim]`
    values: Vec<f32>,
}

impl Pass<'_> {
    fn kernels(&self) -> &'static dyn Kernels {
        self.model.kernels
    }

    /// x ← x + attention(norm(x)); x ← x + mlp(norm(x)), for x of `[n, hidden]`.
    pub(crate) fn layer(
        &self,
        number: usize,
        heads: &mut [HeadCache],
        x: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<ReadCount> {
        let layer = &self.model.layers[number];
        let inputs = self.project(layer, x)?;
        if let Some(observer) = self.observer {
            let heads = inputs.par_iter().enumerate();
            heads.try_for_each(|(head, input)| {
                observer.projected(number, head, &input.queries, &input.keys, &input.values)
            })?;
        }
        let (attended, read) = if self.decode {
            self.attend_step(number, heads, inputs, scratch)?
        } else {
            (self.attend_causally(number, heads, inputs, scratch)?, ReadCount::default())
        };
        let width = attended.len() / self.rotations.len();
        let pieces = x.chunks_mut(PIECE * self.model.config.hidden_size).zip(attended.chunks(PIECE * width));
        for (x, attended) in pieces {
            add(x, &layer.output.apply(self.model, attended)?);
            let h = self.normalized(x, &layer.post_attention_norm)?;
            let mut gate = layer.gate.apply(self.model, &h)?;
            let up = layer.up.apply(self.model, &h)?;
            self.kernels().silu_mul(&mut gate, &up)?;
            add(x, &layer.down.apply(self.model, &gate)?);
        }
        Ok(read)
    }

    fn normalized(&self, x: &[f32], weight: &[f32]) -> Result<Vec<f32>> {
        let mut h = x.to_vec();
        self.kernels().rms_norm(&mut h, weight, self.model.config.rms_norm_eps as f32)?;
        Ok(h)
    }

    /// Query, key and value projections of the normalized tokens, by kv head.
    fn project(&self, layer: &Layer, x: &[f32]) -> Result<Vec<HeadInput>> {
        let config = &self.model.config;
        let (d, group) = (config.head_dim, config.group());
        let mut heads: Vec<HeadInput> =
            (0..config.num_key_value_heads).map(|_| HeadInput::default()).collect();
        for x in x.chunks(PIECE * config.hidden_size) {
            let h = self.normalized(x, &layer.input_norm)?;
            let queries = layer.query.apply(self.model, &h)?;
            let keys = layer.key.apply(self.model, &h)?;
            let values = layer.value.apply(self.model, &h)?;
            heads.par_iter_mut().enumerate().for_each(|(head, input)| {
                take_head(&mut input.queries, &queries, group * d, config.num_key_value_heads, head);
                take_head(&mut input.keys, &keys, d, config.num_key_value_heads, head);
                take_head(&mut input.values, &values, d, config.num_key_value_heads, head);
            });
        }
        Ok(heads)
    }

    fn book(&self, layer: usize, head: usize) -> Result<&Codebook> {
        let books =
            self.codebooks.ok_or_else(|| Error::Usage("a2ats attention needs codebooks".to_owned()))?;
        Ok(books.of_head(layer, head))
    }

    /// Turns each token's vectors, `[n, vectors, head_dim]`, by its own position.
    fn rotate(&self, vectors: &mut [f32]) -> Result<()> {
        let per_token = vectors.len() / self.rotations.len();
        for (vectors, rotation) in vectors.chunks_exact_mut(per_token).zip(self.rotations) {
            self.kernels().rotate(vectors, rotation)?;
        }
        Ok(())
    }

    fn scale(&self) -> f32 {
        (1.0 / (self.model.config.head_dim as f64).sqrt()) as f32
    }

    /// Prefill: every token attends to itself and all before it, to those of this pass as they are and not as the
    /// cache rounds them. Gives `[n, heads · head_dim]`.
    fn attend_causally(
        &self,
        layer: usize,
        heads: &mut [HeadCache],
        mut inputs: Vec<HeadInput>,
        scratch: &mut Scratch,
    ) -> Result<Vec<f32>> {
        let group = self.model.config.group();
        let exact = &mut scratch.exact_rows;
        heads.par_iter_mut().zip(&mut inputs).zip(exact).enumerate().try_for_each(
            |(number, ((head, input), exact))| {
                self.append(layer, number, head, input)?;
                exact.truncate(0);
                exact.append(&input.keys, &input.values)?;
                self.rotate(&mut input.queries)
            },
        )?;
        let task = CAUSAL_POSITIONS * group * self.model.config.head_dim;
        let mut outputs: Vec<Vec<f32>> = inputs.iter().map(|input| vec![0.0; input.queries.len()]).collect();
        let tasks: Vec<_> = heads
            .iter()
            .zip(&scratch.exact_rows)
            .zip(&inputs)
            .zip(&mut outputs)
            .flat_map(|(((head, exact), input), output)| {
                let parts = input.queries.chunks(task).zip(output.chunks_mut(task)).enumerate();
                parts.map(move |(part, (queries, output))| (head, exact, part, queries, output))
            })
            .collect();
        tasks.into_par_iter().try_for_each(|(head, exact, part, queries, output)| {
            let past = (self.start > 0).then(|| head.rows.rows().before(self.start));
            let first = part * CAUSAL_POSITIONS;
            let (rows, scale, precision) = (exact.rows(), self.scale(), Precision::Full);
            let request = Causal { past, rows, first, group, queries, scale, precision };
            self.kernels().attend_causal(&request, output)
        })?;
        Ok(self.by_token(&outputs))
    }

    /// Adds tokens to a head's cache: codes of the keys first, then the rotated keys and the values.
    fn append(&self, layer: usize, number: usize, head: &mut HeadCache, input: &mut HeadInput) -> Result<()> {
        let codes = match &head.index {
            None => Vec::new(),
            Some(_) => encode(self.kernels(), self.book(layer, number)?, &input.keys)?,
        };
        self.rotate(&mut input.keys)?;
        head.rows.append(&input.keys, &input.values)?;
        if let Some(index) = &mut head.index {
            index.append(&codes);
        }
        Ok(())
    }

    /// Decode: one token. Rows are chosen per kv head, attended in chunks of fixed size, merged in their order: the
    /// numbers do not depend on how many threads did it.
    fn attend_step(
        &self,
        layer: usize,
        heads: &mut [HeadCache],
        mut inputs: Vec<HeadInput>,
        scratch: &mut Scratch,
    ) -> Result<(Vec<f32>, ReadCount)> {
        let choices: Vec<Choice> = heads
            .par_iter_mut()
            .zip(&mut inputs)
            .zip(&mut scratch.heads)
            .enumerate()
            .map(|(number, ((head, input), scratch))| self.choose(layer, number, head, input, scratch))
            .collect::<Result<_>>()?;
        let chunks: Vec<(usize, Range<usize>)> = (0..heads.len())
            .flat_map(|head| {
                let rows = choices[head].attended;
                let chunk = attend_chunk(rows);
                (0..rows).step_by(chunk).map(move |at| (head, at..rows.min(at + chunk)))
            })
            .collect();
        let partials: Vec<Partial> = chunks
            .par_iter()
            .map(|(head, chunk)| {
                let selection = match &heads[*head].index {
                    None => Selection::Range(chunk.clone()),
                    Some(_) => Selection::Positions(&scratch.heads[*head].positions()[chunk.clone()]),
                };
                let mut partial = Partial::default();
                let rows = heads[*head].rows.rows();
                self.kernels().attend(
                    rows,
                    &selection,
                    &inputs[*head].queries,
                    self.scale(),
                    &mut partial,
                )?;
                Ok(partial)
            })
            .collect::<Result<_>>()?;
        let mut merged: Vec<Option<Partial>> = vec![None; heads.len()];
        for ((head, _), partial) in chunks.into_iter().zip(partials) {
            match &mut merged[head] {
                Some(whole) => whole.merge(&partial)?,
                none => *none = Some(partial),
            }
        }
        let finished: Vec<(Vec<f32>, usize)> = merged
            .into_par_iter()
            .zip(&*heads)
            .zip(&scratch.heads)
            .map(|((whole, head), scratch)| self.finish(whole.unwrap_or_default(), head, scratch))
            .collect::<Result<_>>()?;
        let (outputs, tail_codes): (Vec<_>, Vec<_>) = finished.into_iter().unzip();
        Ok((self.by_token(&outputs), self.count(layer, heads, &choices, &tail_codes)?))
    }

    /// Estimates what one head's group did not attend, if that is asked for, and divides. Gives the output, and how many
    /// codes' sums were read.
    fn finish(
        &self,
        mut whole: Partial,
        head: &HeadCache,
        scratch: &StepScratch,
    ) -> Result<(Vec<f32>, usize)> {
        let codes = match &head.index {
            None => 0,
            Some(index) => {
                attend_rest(self.kernels(), head.rows.rows(), index, self.scale(), scratch, &mut whole)?
            }
        };
        let mut output = vec![0.0; self.model.config.group() * self.model.config.head_dim];
        whole.finish(&mut output)?;
        Ok((output, codes))
    }

    /// Appends the token to one head and says which rows its group attends to; rotates the queries.
    fn choose(
        &self,
        layer: usize,
        number: usize,
        head: &mut HeadCache,
        input: &mut HeadInput,
        scratch: &mut StepScratch,
    ) -> Result<Choice> {
        let (Some(index), Some(relative)) = (&mut head.index, self.relative) else {
            self.append(layer, number, head, input)?;
            self.rotate(&mut input.queries)?;
            let tokens = head.rows.len();
            return Ok(Choice { tokens, attended: tokens, picked: tokens });
        };
        let mut windowed = input.queries.clone();
        self.kernels().rotate(&mut windowed, relative)?;
        let mut averaged = Vec::new();
        if let Some(rotation) = self.averaged {
            averaged.clone_from(&input.queries);
            self.kernels().rotate(&mut averaged, rotation)?;
        }
        self.rotate(&mut input.queries)?;
        let mut rotated_key = input.keys.clone();
        self.rotate(&mut rotated_key)?;
        let step = StepInput {
            queries: &input.queries,
            windowed_queries: &windowed,
            averaged_queries: &averaged,
            key: &input.keys,
            rotated_key: &rotated_key,
            value: &input.values,
        };
        Ok(choose_rows(self.kernels(), self.book(layer, number)?, &mut head.rows, index, &step, scratch)?)
    }

    fn count(
        &self,
        layer: usize,
        heads: &[HeadCache],
        choices: &[Choice],
        tail_codes: &[usize],
    ) -> Result<ReadCount> {
        let mut read = ReadCount::default();
        for (number, (head, choice)) in heads.iter().zip(choices).enumerate() {
            let codewords = match &head.index {
                None => 0,
                Some(_) => self.book(layer, number)?.table_bytes(),
            };
            read.add(choice, head.rows.row_bytes(), codewords);
            if let Some(sums) = head.index.as_ref().and_then(HeadIndex::sums) {
                read.add_tail(tail_codes[number], sums);
            }
        }
        Ok(read)
    }

    /// From one `[n, group, head_dim]` per kv head to `[n, heads · head_dim]`.
    fn by_token(&self, outputs: &[Vec<f32>]) -> Vec<f32> {
        let width = self.model.config.group() * self.model.config.head_dim;
        let tokens = self.rotations.len();
        let mut all = Vec::with_capacity(tokens * width * outputs.len());
        for token in 0..tokens {
            for output in outputs {
                all.extend_from_slice(&output[token * width..(token + 1) * width]);
            }
        }
        all
    }
}

/// The codes of one head's keys, spread over threads: a long prompt on few kv heads still uses all cores.
pub(crate) fn encode(kernels: &dyn Kernels, book: &Codebook, keys: &[f32]) -> Result<Vec<u16>> {
    let d = book.head_dim();
    let mut codes = vec![0; keys.len() / d];
    let parts = codes.par_chunks_mut(PIECE).zip(keys.par_chunks(PIECE * d));
    parts.try_for_each(|(codes, keys)| kernels.encode(book, keys, codes))?;
    Ok(codes)
}

/// Appends what belongs to one of `heads` heads, `width` numbers of every token.
fn take_head(to: &mut Vec<f32>, all: &[f32], width: usize, heads: usize, head: usize) {
    for token in all.chunks_exact(width * heads) {
        to.extend_from_slice(&token[head * width..(head + 1) * width]);
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
