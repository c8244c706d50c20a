//! A Llama: its weights in place, and the pass of some tokens through all layers.

use crate::{
    cache::Cache,
    codebooks::Codebooks,
    error::{Error, Result},
    families,
    files::safetensors::{MatrixHandle, Tensors},
    layer::{Layer, Observer, Pass},
    linear::Linear,
    spec::Spec,
    step::{ReadCount, Scratch},
};
use a2ats_kernel::{Kernels, elementwise::Rotation};
use std::{ops::ControlFlow, path::Path};

/// How tokens pass through a model.
#[derive(Clone, Copy)]
pub(crate) struct Manner<'a> {
    pub(crate) codebooks: Option<&'a Codebooks>,
    pub(crate) observer: Option<&'a dyn Observer>,
    /// Attend as the cache's attention says; otherwise densely, as prefill does. A decode step is one token.
    pub(crate) decode: bool,
}

/// A loaded model. Weights stay in their files' mappings; only vectors (norms, biases) are copied.
#[derive(Debug)]
pub struct Model {
    pub(crate) spec: Spec,
    pub(crate) kernels: &'static dyn Kernels,
    pub(crate) tensors: Tensors,
    pub(crate) layers: Vec<Layer>,
    embedding: MatrixHandle,
    final_norm: Vec<f32>,
    output: Linear,
    pub(crate) frequencies: Vec<f64>,
}

impl Model {
    /// Opens a Hugging Face folder: config.json and the safetensors checkpoint.
    ///
    /// # Errors
    /// If a file is missing, unreadable, damaged, or of a model that is not supported.
    pub fn open(folder: &Path, kernels: &'static dyn Kernels) -> Result<Self> {
        Self::from_parts(families::load(folder)?, Tensors::open_model(folder)?, kernels)
    }

    /// Puts a model together from its configuration and its tensors.
    ///
    /// # Errors
    /// If a tensor is missing or does not have the shape that the configuration says.
    pub fn from_parts(spec: Spec, mut tensors: Tensors, kernels: &'static dyn Kernels) -> Result<Self> {
        let hidden = spec.hidden_size;
        let layers = (0..spec.num_hidden_layers)
            .map(|layer| load_layer(&mut tensors, &spec, layer))
            .collect::<Result<_>>()?;
        let embedding = tensors.matrix_handle("model.embed_tokens.weight", spec.vocab_size, hidden)?;
        let final_norm = tensors.vector("model.norm.weight", hidden)?;
        let output = if spec.tie_word_embeddings {
            Linear::without_bias(embedding.clone())
        } else {
            Linear::load(&mut tensors, "lm_head", spec.vocab_size, hidden, false)?
        };
        let frequencies = spec.rope_frequencies();
        Ok(Self { spec, kernels, tensors, layers, embedding, final_norm, output, frequencies })
    }

    /// The model's shape.
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The backend that it computes with.
    pub fn kernels(&self) -> &'static dyn Kernels {
        self.kernels
    }

    /// The first bytes of layer 0's key projection, as stored: what tells models of the same shape apart.
    pub(crate) fn key_projection_bytes(&self, limit: usize) -> &[u8] {
        let bytes = self.layers[0].key.bytes(self);
        &bytes[..limit.min(bytes.len())]
    }

    /// The checkpoint.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// Passes tokens through the model, adds them to the cache, and gives the logits of the last one. `keep_on` is asked
    /// after each layer, given how many are done; if it breaks off, there are no logits, and the cache is as before.
    ///
    /// # Errors
    /// For token ids outside the vocabulary, missing codebooks, memory that runs out, and a model whose output is
    /// not a number.
    pub(crate) fn forward(
        &self,
        ids: &[u32],
        cache: &mut Cache,
        manner: &Manner<'_>,
        scratch: &mut Scratch,
        mut keep_on: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<(Vec<f32>, ReadCount)>> {
        let Manner { codebooks, observer, decode } = *manner;
        let mut x = self.embed(ids)?;
        let start = cache.tokens;
        let rotations: Vec<_> =
            (start..start + ids.len()).map(|position| Rotation::new(position, &self.frequencies)).collect();
        let relative = codebooks.map(|books| Rotation::new(books.relative_position(), &self.frequencies));
        let relative = relative.as_ref();
        let sparsity = cache.sparsity().filter(|_| decode);
        let averaged = sparsity.and_then(|sparsity| sparsity.averaged_rotation(start + 1, &self.frequencies));
        let averaged = averaged.as_ref();
        let rotations = &rotations[..];
        let pass =
            Pass { model: self, codebooks, observer, rotations, sparsity, relative, averaged, start, decode };
        let mut read = ReadCount::default();
        for number in 0..self.layers.len() {
            read.absorb(&pass.layer(number, &mut cache.layers[number], &mut x, scratch)?);
            if keep_on(number + 1).is_break() {
                cache.truncate(self.kernels, start)?;
                return Ok(None);
            }
        }
        cache.tokens += ids.len();
        Ok(Some((self.logits(&x, cache.tokens)?, read)))
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

    /// The embeddings of some tokens, `[n, hidden]`.
    fn embed(&self, ids: &[u32]) -> Result<Vec<f32>> {
        self.check_ids(ids)?;
        let table = self.tensors.matrix(&self.embedding);
        let row = |&id: &u32| table.row_range(id as usize..id as usize + 1).elements().to_f32();
        Ok(ids.iter().flat_map(row).collect())
    }

    fn logits(&self, x: &[f32], tokens: usize) -> Result<Vec<f32>> {
        let mut last = x[x.len() - self.spec.hidden_size..].to_vec();
        self.kernels.rms_norm(&mut last, &self.final_norm, self.spec.rms_norm_eps as f32)?;
        let logits = self.output.apply(self, &last)?;
        if logits.iter().any(|x| x.is_nan()) {
            return Err(self.no_number(tokens));
        }
        Ok(logits)
    }

    /// The error of a model that computes what is no number.
    pub(crate) fn no_number(&self, tokens: usize) -> Error {
        let file = self.tensors.label().display();
        Error::Numerics(format!(
            "{file}: the model's output after token {tokens} is not a number; its weights contain NaN or overflow: \
             use an undamaged checkpoint"
        ))
    }
}

fn load_layer(tensors: &mut Tensors, spec: &Spec, layer: usize) -> Result<Layer> {
    let (hidden, inner) = (spec.hidden_size, spec.intermediate_size);
    let queries = spec.num_attention_heads * spec.head_dim;
    let keys = spec.num_key_value_heads * spec.head_dim;
    let name = |part: &str| format!("model.layers.{layer}.{part}");
    Ok(Layer {
        input_norm: tensors.vector(&name("input_layernorm.weight"), hidden)?,
        query: Linear::load(tensors, &name("self_attn.q_proj"), queries, hidden, spec.attention_bias)?,
        key: Linear::load(tensors, &name("self_attn.k_proj"), keys, hidden, spec.attention_bias)?,
        value: Linear::load(tensors, &name("self_attn.v_proj"), keys, hidden, spec.attention_bias)?,
        output: Linear::load(tensors, &name("self_attn.o_proj"), hidden, queries, spec.attention_bias)?,
        post_attention_norm: tensors.vector(&name("post_attention_layernorm.weight"), hidden)?,
        gate: Linear::load(tensors, &name("mlp.gate_proj"), inner, hidden, spec.mlp_bias)?,
        up: Linear::load(tensors, &name("mlp.up_proj"), inner, hidden, spec.mlp_bias)?,
        down: Linear::load(tensors, &name("mlp.down_proj"), hidden, inner, spec.mlp_bias)?,
    })
}
