//! One transformer layer, as the papers write it: normalize, attend, add; normalize, gate, add.

use crate::{
    codebooks::Codebooks,
    error::{Error, Result},
    linear::Linear,
    model::Model,
    step::{HeadScratch, ReadCount, Scratch},
};
use a2ats_kernel::{
    Codebook, Kernels,
    attention::{self, Causal, Partial},
    codebook::BestCode,
    decode::{Amount, Estimate, Sparsity, rows_per_task},
    elementwise::Rotation,
    linear::Precision,
    rows::Runs,
    store::Store,
};
use rayon::prelude::*;
use std::ops::Range;

/// Tokens that go through the projections at once: each weight is used so many times when it is in the cache, and the
/// MLP's activations of an 8B model take 30 MB.
const PIECE: usize = 128;

/// Query positions of one task in prefill: whole tiles of the kernel for groups of 1, 2, 4, 5, 8 and 10.
const CAUSAL_POSITIONS: usize = 40;

/// Squares of the lengths of queries and keys at most: products of two such vectors stay within f32.
const LARGEST_SQUARE: f32 = f32::MAX / 4.0;

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
    pub(crate) model: &'a Model,
    pub(crate) codebooks: Option<&'a Codebooks>,
    pub(crate) observer: Option<&'a dyn Observer>,
    /// One per token of the pass, by its position.
    pub(crate) rotations: &'a [Rotation],
    /// What decode steps attend to; nothing where attention is dense.
    pub(crate) sparsity: Option<Sparsity>,
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
        heads: &mut [Store],
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
        let pieces = x.chunks_mut(PIECE * self.model.spec.hidden_size).zip(attended.chunks(PIECE * width));
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
        self.kernels().rms_norm(&mut h, weight, self.model.spec.rms_norm_eps as f32)?;
        Ok(h)
    }

    /// Query, key and value projections of the normalized tokens, by kv head.
    fn project(&self, layer: &Layer, x: &[f32]) -> Result<Vec<HeadInput>> {
        let spec = &self.model.spec;
        let (d, group) = (spec.head_dim, spec.group());
        let mut heads: Vec<HeadInput> = (0..spec.num_key_value_heads).map(|_| HeadInput::default()).collect();
        for x in x.chunks(PIECE * spec.hidden_size) {
            let h = self.normalized(x, &layer.input_norm)?;
            let queries = layer.query.apply(self.model, &h)?;
            let keys = layer.key.apply(self.model, &h)?;
            let values = layer.value.apply(self.model, &h)?;
            heads.par_iter_mut().enumerate().try_for_each(|(head, input)| {
                let before = (input.queries.len(), input.keys.len());
                take_head(&mut input.queries, &queries, group * d, spec.num_key_value_heads, head);
                take_head(&mut input.keys, &keys, d, spec.num_key_value_heads, head);
                take_head(&mut input.values, &values, d, spec.num_key_value_heads, head);
                self.check_scores(&input.queries[before.0..], &input.keys[before.1..])
            })?;
        }
        Ok(heads)
    }

    /// Refuses queries and keys whose products are no numbers or could be infinite: softmax would make weights of them all the same.
    fn check_scores(&self, queries: &[f32], keys: &[f32]) -> Result<()> {
        let d = self.model.spec.head_dim;
        let square = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>();
        let fine = queries.chunks(d).chain(keys.chunks(d)).all(|vector| square(vector) <= LARGEST_SQUARE);
        if fine { Ok(()) } else { Err(self.model.no_number(self.start + self.rotations.len())) }
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
        (1.0 / (self.model.spec.head_dim as f64).sqrt()) as f32
    }

    /// Prefill: every token attends to itself and all before it, to those of this pass as they are and not as the
    /// cache rounds them. Gives `[n, heads · head_dim]`.
    fn attend_causally(
        &self,
        layer: usize,
        heads: &mut [Store],
        mut inputs: Vec<HeadInput>,
        scratch: &mut Scratch,
    ) -> Result<Vec<f32>> {
        let group = self.model.spec.group();
        let exact = &mut scratch.exact_rows;
        let mut past = vec![Vec::new(); heads.len()];
        heads.par_iter_mut().zip(&mut inputs).zip(exact).zip(&mut past).enumerate().try_for_each(
            |(number, (((head, input), exact), past))| {
                head.rows_before(self.start, past);
                self.append(layer, number, head, input)?;
                exact.truncate(self.kernels(), 0)?;
                exact.append(&input.keys, &input.values, &[])?;
                self.rotate(&mut input.queries)
            },
        )?;
        let task = CAUSAL_POSITIONS * group * self.model.spec.head_dim;
        let mut outputs: Vec<Vec<f32>> = inputs.iter().map(|input| vec![0.0; input.queries.len()]).collect();
        let tasks: Vec<_> = heads
            .iter()
            .zip(&past)
            .zip(&scratch.exact_rows)
            .zip(&inputs)
            .zip(&mut outputs)
            .flat_map(|((((head, past), exact), input), output)| {
                let parts = input.queries.chunks(task).zip(output.chunks_mut(task)).enumerate();
                parts.map(move |(part, (queries, output))| (head, past, exact, part, queries, output))
            })
            .collect();
        tasks.into_par_iter().try_for_each_init(
            attention::Scratch::default,
            |scratch, (head, past, exact, part, queries, output)| {
                let areas = head.areas();
                let past = if self.start > 0 { Some(Runs::new(&areas, past)?) } else { None };
                let first = part * CAUSAL_POSITIONS;
                let (rows, scale, precision) = (exact.areas()[0], self.scale(), Precision::Full);
                let request = Causal { past, rows, first, group, queries, scale, precision };
                self.kernels().attend_causal(&request, scratch, output)
            },
        )?;
        Ok(self.by_token(&outputs))
    }

    /// Adds tokens to a head's store: codes of the keys first, then the rotated keys and the values.
    fn append(&self, layer: usize, number: usize, head: &mut Store, input: &mut HeadInput) -> Result<()> {
        let codes = match head.layout().codes {
            0 => Vec::new(),
            _ => encode(self.kernels(), self.book(layer, number)?, &input.keys)?,
        };
        self.rotate(&mut input.keys)?;
        head.append(&input.keys, &input.values, &codes)?;
        Ok(())
    }

    /// Decode: one token. Rows are chosen per kv head, attended in parts of fixed size, merged in their order: the
    /// numbers do not depend on how many threads did it.
    fn attend_step(
        &self,
        layer: usize,
        heads: &mut [Store],
        mut inputs: Vec<HeadInput>,
        scratch: &mut Scratch,
    ) -> Result<(Vec<f32>, ReadCount)> {
        let amounts: Vec<Amount> = heads
            .par_iter_mut()
            .zip(&mut inputs)
            .zip(&mut scratch.heads)
            .enumerate()
            .map(|(number, ((head, input), scratch))| self.choose(layer, number, head, input, scratch))
            .collect::<Result<_>>()?;
        let parts: Vec<(usize, Range<usize>)> = (0..heads.len())
            .flat_map(|head| {
                let rows = amounts[head].attended;
                let part = rows_per_task(rows);
                (0..rows).step_by(part).map(move |at| (head, at..rows.min(at + part)))
            })
            .collect();
        let partials: Vec<Partial> = parts
            .par_iter()
            .map_init(attention::Scratch::default, |working, (head, part)| {
                let mut partial = Partial::default();
                let (choice, queries) = (&scratch.heads[*head].choice, &inputs[*head].queries);
                let store = &heads[*head];
                choice.attend(
                    self.kernels(),
                    store,
                    part.clone(),
                    queries,
                    self.scale(),
                    working,
                    &mut partial,
                )?;
                Ok(partial)
            })
            .collect::<Result<_>>()?;
        let mut merged: Vec<Option<Partial>> = vec![None; heads.len()];
        for ((head, _), partial) in parts.into_iter().zip(partials) {
            match &mut merged[head] {
                Some(whole) => whole.merge(&partial)?,
                none => *none = Some(partial),
            }
        }
        let outputs: Vec<Vec<f32>> = merged
            .into_par_iter()
            .zip(&*heads)
            .zip(&mut scratch.heads)
            .enumerate()
            .map(|(number, ((whole, head), scratch))| {
                self.finish(layer, number, whole.unwrap_or_default(), head, scratch)
            })
            .collect::<Result<_>>()?;
        Ok((self.by_token(&outputs), self.count(layer, heads, scratch)?))
    }

    /// Estimates what one head's group did not attend, if that is asked for, and divides.
    fn finish(
        &self,
        layer: usize,
        number: usize,
        mut whole: Partial,
        head: &Store,
        scratch: &mut HeadScratch,
    ) -> Result<Vec<f32>> {
        let HeadScratch { choice, scores, scored, of_estimate, estimated, .. } = scratch;
        if choice.leaves() {
            let book = self.book(layer, number)?;
            let part = choice.whole_estimate();
            let of_estimate_scores = scores.len() - scored.len() / book.head_dim() * book.codes();
            let by = (&scored[..], &scores[of_estimate_scores..]);
            choice.estimate(self.kernels(), head, book, &part, by, self.scale(), of_estimate, estimated)?;
            whole.merge(estimated)?;
        }
        let mut output = vec![0.0; self.model.spec.group() * self.model.spec.head_dim];
        whole.finish(&mut output)?;
        Ok(output)
    }

    /// Appends the token to one head and says which rows its group attends to; rotates the queries.
    fn choose(
        &self,
        layer: usize,
        number: usize,
        head: &mut Store,
        input: &mut HeadInput,
        scratch: &mut HeadScratch,
    ) -> Result<Amount> {
        let (Some(sparsity), Some(relative)) = (self.sparsity, self.relative) else {
            self.append(layer, number, head, input)?;
            self.rotate(&mut input.queries)?;
            return Ok(scratch.choice.choose_all(head));
        };
        let HeadScratch { probes, scores, choice, scored, .. } = scratch;
        let book = self.book(layer, number)?;
        scored.clone_from(&input.queries);
        self.kernels().rotate(scored, relative)?;
        let mut queries = scored.clone();
        if let (Estimate::Averaged, Some(rotation)) = (sparsity.estimate, self.averaged) {
            scored.clone_from(&input.queries);
            self.kernels().rotate(scored, rotation)?;
            queries.extend_from_slice(scored);
        }
        scores.resize(queries.len() / book.head_dim() * book.codes(), 0.0);
        let mut best = [BestCode::default()];
        self.kernels().prepare_probes(book, &queries, &input.keys, probes)?;
        self.kernels().codeword_scores(book, probes, 0..book.codes(), scores, &mut best)?;
        self.rotate(&mut input.queries)?;
        self.rotate(&mut input.keys)?;
        head.append(&input.keys, &input.values, &[best[0].code()])?;
        let by_group = self.model.spec.group() * book.codes();
        Ok(choice.choose(self.kernels(), head, &sparsity, &scores[..by_group])?)
    }

    fn count(&self, layer: usize, heads: &[Store], scratch: &Scratch) -> Result<ReadCount> {
        let mut read = ReadCount::default();
        for (number, (head, HeadScratch { choice, .. })) in heads.iter().zip(&scratch.heads).enumerate() {
            let codewords = match head.layout().codes {
                0 => 0,
                _ => self.book(layer, number)?.table_bytes(),
            };
            let estimate = if choice.leaves() { choice.estimate_bytes(head) } else { 0 };
            read.add(choice.amount(), head.layout().row_bytes(), codewords, estimate);
        }
        Ok(read)
    }

    /// From one `[n, group, head_dim]` per kv head to `[n, heads · head_dim]`.
    fn by_token(&self, outputs: &[Vec<f32>]) -> Vec<f32> {
        let width = self.model.spec.group() * self.model.spec.head_dim;
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
