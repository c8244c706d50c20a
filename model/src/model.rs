//! A Llama: its weights in place, and one forward pass of a batch through all layers.

use crate::{
    attention::{Context, PREFILL_CHUNK, crossover, no_number},
    batch::{Batch, Chunk, Wanted, Workspace},
    block::{Block, sized},
    codebooks::{Codebooks, Owner},
    error::{Error, Result},
    families,
    files::{Loading, identity::Identity, safetensors::Tensors},
    linear::{Linear, Packed, multiply, transpose_into},
    observer::Observer,
    sequence::Sequence,
    spec::Spec,
    weight::Weight,
};
use a2ats_kernel::{Dtype, Kernels, decode::Sparsity, linear::Method};
use std::{ops::ControlFlow, path::Path};

/// A loaded model. Weights stay in their files' mappings; only vectors (norms, biases) are copied.
#[derive(Debug)]
pub struct Model {
    pub(crate) spec: Spec,
    pub(crate) kernels: &'static dyn Kernels,
    tensors: Tensors,
    identity: Identity,
    pub(crate) blocks: Vec<Block>,
    embedding: Weight,
    final_norm: Vec<f32>,
    output: Linear,
    pub(crate) frequencies: Vec<f64>,
}

impl Model {
    /// Opens a Hugging Face folder: config.json and the safetensors checkpoint, which is mapped.
    ///
    /// # Errors
    /// If a file is missing, unreadable, damaged, or of a model that is not supported.
    pub fn open(folder: &Path, kernels: &'static dyn Kernels) -> Result<Self> {
        Self::from_parts(families::load(folder)?, Tensors::open_model(folder, Loading::Map)?, kernels)
    }

    /// Puts a model together from its configuration and its tensors.
    ///
    /// # Errors
    /// If a tensor is missing or does not have the shape that the configuration says.
    pub fn from_parts(spec: Spec, tensors: Tensors, kernels: &'static dyn Kernels) -> Result<Self> {
        let hidden = spec.hidden_size;
        let blocks = (0..spec.num_hidden_layers)
            .map(|number| Block::load(&tensors, &spec, number))
            .collect::<Result<_>>()?;
        let embedding = Weight::load(&tensors, "model.embed_tokens.weight", spec.vocab_size, hidden)?;
        let final_norm = tensors.vector("model.norm.weight", hidden)?;
        let output = if spec.tie_word_embeddings {
            Linear::without_bias(embedding.clone())
        } else {
            Linear::load(&tensors, "lm_head", spec.vocab_size, hidden, false)?
        };
        let (frequencies, identity) = (spec.rope_frequencies(), Identity::of(&tensors));
        Ok(Self { spec, kernels, tensors, identity, blocks, embedding, final_norm, output, frequencies })
    }

    /// The model's shape.
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The backend that it computes with.
    pub const fn kernels(&self) -> &'static dyn Kernels {
        self.kernels
    }

    /// The checkpoint.
    pub const fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// What tells this model from others.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What files that belong to it must state.
    pub const fn owner(&self) -> Owner<'_> {
        Owner { spec: &self.spec, identity: &self.identity }
    }

    /// Inverse frequencies of the rotary position embedding, `[head_dim / 2]`.
    pub fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }

    /// Passes a batch through the model and adds its tokens to their sequences. The logits are left in `workspace`. `keep_on` is asked
    /// after each layer, given how many are done; if it breaks off, there are no logits.
    ///
    /// A sequence's numbers do not depend on what else is in the batch, nor on the number of threads.
    ///
    /// # Errors
    /// For token ids outside the vocabulary, sequences without room, memory that runs out, and a model whose output is
    /// not a number. Then, and after breaking off, the sequences are as they were before.
    pub fn forward(
        &self,
        batch: &mut Batch<'_>,
        workspace: &mut Workspace,
        keep_on: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        self.check(batch)?;
        let outcome = self.pass(batch, workspace, keep_on);
        let sequences = batch.steps.iter_mut().map(|sequence| (sequence, 1)).zip(batch.ids.chunks(1));
        let chunk = batch.chunk.as_mut().map(|chunk| ((&mut *chunk.sequence, chunk.ids.len()), chunk.ids));
        for ((sequence, _), ids) in sequences.chain(chunk) {
            match &outcome {
                Ok(ControlFlow::Continue(())) => sequence.push(ids),
                _ => sequence.rewind(self.kernels, sequence.len())?,
            }
        }
        outcome
    }

    /// Reads tokens into a sequence, chunk by chunk, and leaves the logits of the last one in row 0 of `workspace`. `progress` is told
    /// every now and then how many tokens' worth of work is done, and may break off: then the sequence holds the chunks that
    /// were finished.
    ///
    /// # Errors
    /// For no tokens at all, and as [`Model::forward`].
    pub fn prefill(
        &self,
        sequence: &mut Sequence,
        ids: &[u32],
        observer: Option<&dyn Observer>,
        workspace: &mut Workspace,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        if ids.is_empty() {
            return Err(Error::Usage("the prompt is empty; give at least one token".to_owned()));
        }
        self.check_ids(ids)?;
        sequence.check_room(&self.spec, ids.len())?;
        let (layers, mut done) = (self.blocks.len(), 0);
        for ids in ids.chunks(PREFILL_CHUNK) {
            done += ids.len();
            let logits = if done == ids.len() { Wanted::Last } else { Wanted::None };
            let chunk = Some(Chunk { sequence: &mut *sequence, ids, logits, observer });
            let mut batch = Batch { chunk, ..Batch::default() };
            let before = done - ids.len();
            let mut of_layer = |layer| progress(before + ids.len() * layer / layers);
            if self.forward(&mut batch, workspace, &mut of_layer)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        sequence.sort(self.kernels)?;
        Ok(ControlFlow::Continue(()))
    }

    /// Measures from how many tokens on a sparse step is faster than a dense one here: what [`Attention::Auto`](crate::Attention::Auto) is told.
    ///
    /// # Errors
    /// If the codebooks are of a model of another shape, or memory runs out.
    pub fn crossover(&self, books: &Codebooks, sparsity: &Sparsity, dtype: Dtype) -> Result<usize> {
        if !books.fit(&self.spec) {
            return Err(Error::Usage("the codebooks were opened for a model of another shape".to_owned()));
        }
        crossover(self.context(), books, sparsity, dtype)
    }

    /// Refuses ids outside the vocabulary.
    pub(crate) fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let size = self.embedding.rows();
        match ids.iter().find(|&&id| id as usize >= size) {
            None => Ok(()),
            Some(id) => Err(Error::Usage(format!(
                "token {id} is outside the model's vocabulary of {size}; tokenizer.json and the model must belong together"
            ))),
        }
    }

    /// Refuses what cannot be computed, before anything changes.
    fn check(&self, batch: &Batch<'_>) -> Result<()> {
        self.check_ids(batch.ids)?;
        if batch.ids.len() != batch.steps.len() {
            let (ids, steps) = (batch.ids.len(), batch.steps.len());
            return Err(Error::Usage(format!("a batch of {steps} sequences has {ids} tokens")));
        }
        batch.steps.iter().try_for_each(|sequence| sequence.check_room(&self.spec, 1))?;
        let Some(chunk) = &batch.chunk else { return Ok(()) };
        self.check_ids(chunk.ids)?;
        if !(1..=PREFILL_CHUNK).contains(&chunk.ids.len()) {
            let problem = format!("a chunk of {} tokens; give 1 to {PREFILL_CHUNK}", chunk.ids.len());
            return Err(Error::Usage(problem));
        }
        chunk.sequence.check_room(&self.spec, chunk.ids.len())
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context { spec: &self.spec, kernels: self.kernels, frequencies: &self.frequencies }
    }

    fn pass(
        &self,
        batch: &mut Batch<'_>,
        workspace: &mut Workspace,
        keep_on: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let context = self.context();
        let Workspace { steps, prefill, products, x: [of_steps, of_chunk], .. } = workspace;
        let of_steps = self.embed(batch.ids, of_steps);
        steps.begin(context, batch.steps);
        let of_chunk = self.embed(batch.chunk.as_ref().map_or(&[], |chunk| chunk.ids), of_chunk);
        if let Some(chunk) = &batch.chunk {
            prefill.begin(context, chunk.sequence.len(), chunk.ids.len())?;
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            if !batch.steps.is_empty() {
                let step = block.step(context, layer, batch.steps, (&mut *steps, &mut *products), of_steps);
                step.map_err(|error| self.named(error))?;
            }
            if let Some(chunk) = &mut batch.chunk {
                let reading = (&mut *chunk.sequence, chunk.observer);
                let read = block.read(context, layer, reading, (&mut *prefill, &mut *products), of_chunk);
                read.map_err(|error| self.named(error))?;
            }
            if keep_on(layer + 1).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.compute_logits(batch, workspace)?;
        Ok(ControlFlow::Continue(()))
    }

    /// The embeddings of some tokens, `[n, hidden]`.
    fn embed<'x>(&self, ids: &[u32], x: &'x mut Vec<f32>) -> &'x mut [f32] {
        let (table, hidden) = (self.embedding.matrix(), self.spec.hidden_size);
        let x = sized(x, ids.len() * hidden);
        for (&id, x) in ids.iter().zip(x.chunks_exact_mut(hidden)) {
            table.row_range(id as usize..id as usize + 1).elements().widen(x);
        }
        x
    }

    /// The logits of the steps, and of the tokens of the chunk for which they are wanted.
    fn compute_logits(&self, batch: &Batch<'_>, workspace: &mut Workspace) -> Result<()> {
        let (hidden, vocabulary, steps) = (self.spec.hidden_size, self.output.rows(), batch.steps.len());
        let count = batch.chunk.as_ref().map_or(0, |chunk| chunk.ids.len());
        let of_chunk = match batch.chunk.as_ref().map_or(Wanted::None, |chunk| chunk.logits) {
            Wanted::None => count..count,
            Wanted::Last => count - 1..count,
            Wanted::All => 0..count,
        };
        let Workspace { products, x: [of_steps, x], logits, .. } = workspace;
        workspace.vocabulary = vocabulary;
        let logits = sized(logits, (steps + of_chunk.len()) * vocabulary);
        let (to_steps, to_chunk) = logits.split_at_mut(steps * vocabulary);
        // A single token of a chunk is computed like a step.
        let method = if of_chunk.len() > 1 { Method::Many } else { Method::Few };
        let parts = [
            (&mut of_steps[..steps * hidden], to_steps, Method::Few),
            (&mut x[of_chunk.start * hidden..of_chunk.end * hidden], to_chunk, method),
        ];
        for (x, logits, method) in parts {
            let pieces = x.chunks_mut(crate::block::PIECE * hidden);
            for (x, logits) in pieces.zip(logits.chunks_mut(crate::block::PIECE * vocabulary)) {
                self.output_of(x, logits, method, (&mut products.packed, &mut products.out))?;
            }
            if logits.iter().any(|x| x.is_nan()) {
                return Err(self.named(no_number()));
            }
        }
        Ok(())
    }

    /// `[n, vocabulary]` of the last layer's `[n, hidden]`.
    fn output_of(
        &self,
        x: &mut [f32],
        logits: &mut [f32],
        method: Method,
        (packed, out): (&mut Packed, &mut Vec<f32>),
    ) -> Result<()> {
        let n = x.len() / self.spec.hidden_size;
        packed.pack_rows(self.kernels, &[&self.output], method, x, |_, x| {
            Ok(self.kernels.rms_norm(x, &self.final_norm, self.spec.rms_norm_eps as f32)?)
        })?;
        let out = sized(out, logits.len());
        multiply(self.kernels, packed, [(&self.output, &mut *out)])?;
        transpose_into(out, self.output.rows(), n, logits, |to, x| *to = x);
        Ok(())
    }

    /// The same error, and for numbers that are none the file that they come from.
    fn named(&self, error: Error) -> Error {
        let Error::Numerics(problem) = error else { return error };
        let file = self.tensors.label().display();
        Error::Numerics(format!(
            "{file}: {problem}; the weights contain NaN or overflow: use an undamaged checkpoint"
        ))
    }
}
