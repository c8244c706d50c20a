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
    attention::{Partial, Selection},
    decode::{ATTEND_CHUNK, Choice, StepInput, StepScratch, choose_rows},
    elementwise::Rotation,
};
use rayon::prelude::*;
use std::ops::Range;

/// Query positions of one task in prefill.
const CAUSAL_POSITIONS: usize = 32;

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

/// What all layers of one forward pass share.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Llama,
    pub(crate) codebooks: Option<&'a Codebooks>,
    /// One per token of the pass, by its position.
    pub(crate) rotations: &'a [Rotation],
    /// By the fixed relative position that codewords are scored at.
    pub(crate) relative: Option<&'a Rotation>,
    /// The position of the first token.
    pub(crate) start: usize,
    /// Whether this is a decode step, which may attend to a choice of the tokens, or prefill, which attends to all.
    pub(crate) decode: bool,
}

/// Projections of some tokens for one kv head and its group, each head's numbers together.
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
        let epsilon = self.model.config.rms_norm_eps as f32;

        let mut h = x.to_vec();
        self.kernels().rms_norm(&mut h, &layer.input_norm, epsilon)?;
        let inputs = self.project(layer, &h)?;
        let (attended, read) = if self.decode {
            self.attend_step(number, heads, inputs, scratch)?
        } else {
            self.attend_causally(number, heads, inputs)?
        };
        add(x, &layer.output.apply(self.model, &attended)?);

        h.copy_from_slice(x);
        self.kernels().rms_norm(&mut h, &layer.post_attention_norm, epsilon)?;
        let mut gate = layer.gate.apply(self.model, &h)?;
        let up = layer.up.apply(self.model, &h)?;
        self.kernels().silu_mul(&mut gate, &up)?;
        add(x, &layer.down.apply(self.model, &gate)?);
        Ok(read)
    }

    /// Query, key and value projections, by kv head.
    fn project(&self, layer: &Layer, h: &[f32]) -> Result<Vec<HeadInput>> {
        let config = &self.model.config;
        let (d, group) = (config.head_dim, config.group());
        let queries = layer.query.apply(self.model, h)?;
        let keys = layer.key.apply(self.model, h)?;
        let values = layer.value.apply(self.model, h)?;
        let of_head = |all: &[f32], width: usize, head: usize| -> Vec<f32> {
            let tokens = all.chunks_exact(width * config.num_key_value_heads);
            tokens.flat_map(|token| &token[head * width..(head + 1) * width]).copied().collect()
        };
        Ok((0..config.num_key_value_heads)
            .into_par_iter()
            .map(|head| HeadInput {
                queries: of_head(&queries, group * d, head),
                keys: of_head(&keys, d, head),
                values: of_head(&values, d, head),
            })
            .collect())
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

    /// Prefill: every token attends to itself and all before it. Gives `[n, heads · head_dim]`.
    fn attend_causally(
        &self,
        layer: usize,
        heads: &mut [HeadCache],
        mut inputs: Vec<HeadInput>,
    ) -> Result<(Vec<f32>, ReadCount)> {
        let group = self.model.config.group();
        heads.par_iter_mut().zip(&mut inputs).enumerate().try_for_each(|(number, (head, input))| {
            self.append(layer, number, head, input)?;
            self.rotate(&mut input.queries)
        })?;
        let task = CAUSAL_POSITIONS * group * self.model.config.head_dim;
        let mut outputs: Vec<Vec<f32>> = inputs.iter().map(|input| vec![0.0; input.queries.len()]).collect();
        let tasks: Vec<_> = heads
            .iter()
            .zip(&inputs)
            .zip(&mut outputs)
            .flat_map(|((head, input), output)| {
                let parts = input.queries.chunks(task).zip(output.chunks_mut(task)).enumerate();
                parts.map(move |(part, (queries, output))| (head, part, queries, output))
            })
            .collect();
        tasks.into_par_iter().try_for_each(|(head, part, queries, output)| {
            let first = self.start + part * CAUSAL_POSITIONS;
            self.kernels().attend_causal(head.rows.rows(), queries, group, first, self.scale(), output)
        })?;
        Ok((self.by_token(&outputs), ReadCount::default()))
    }

    /// Adds tokens to a head's cache: codes of the keys first, then the rotated keys and the values.
    fn append(&self, layer: usize, number: usize, head: &mut HeadCache, input: &mut HeadInput) -> Result<()> {
        let codes = match &head.index {
            None => Vec::new(),
            Some(_) => {
                let mut codes = vec![0; input.keys.len() / self.model.config.head_dim];
                self.kernels().encode(self.book(layer, number)?, &input.keys, &mut codes)?;
                codes
            }
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
                (0..rows).step_by(ATTEND_CHUNK).map(move |at| (head, at..rows.min(at + ATTEND_CHUNK)))
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
        let mut outputs: Vec<Vec<f32>> = inputs.iter().map(|input| vec![0.0; input.queries.len()]).collect();
        for (output, whole) in outputs.iter_mut().zip(merged) {
            whole.unwrap_or_default().finish(output)?;
        }
        Ok((self.by_token(&outputs), self.count(layer, heads, &choices)?))
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
        self.rotate(&mut input.queries)?;
        let mut rotated_key = input.keys.clone();
        self.rotate(&mut rotated_key)?;
        let step = StepInput {
            queries: &input.queries,
            windowed_queries: &windowed,
            key: &input.keys,
            rotated_key: &rotated_key,
            value: &input.values,
        };
        Ok(choose_rows(self.kernels(), self.book(layer, number)?, &mut head.rows, index, &step, scratch)?)
    }

    fn count(&self, layer: usize, heads: &[HeadCache], choices: &[Choice]) -> Result<ReadCount> {
        let mut read = ReadCount::default();
        for (number, (head, choice)) in heads.iter().zip(choices).enumerate() {
            let codewords = match &head.index {
                None => 0,
                Some(_) => self.book(layer, number)?.table_bytes(),
            };
            read.add(choice, head.rows.row_bytes(), codewords);
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

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
