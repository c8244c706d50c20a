//! The whole model against the reference, on random tiny models of odd shapes written as Hugging Face folders.

use a2ats_kernel::{
    Dtype, Kernels,
    decode::{self, Sparsity},
};
use a2ats_model::{Attention, Codebooks, Model};
use a2ats_tests::{
    backends::on_every_backend,
    inputs::{Noise, config, dtypes, estimates, query_precision, rounded},
    reader::Reader,
    reference::{
        codebook::Codebook as ReferenceBook,
        llama::{Estimate, Llama as Reference, Shape, Sparse},
        relative_error,
        rope::{Scaling, rope_frequencies},
        to_f64,
    },
};
use half::{bf16, f16};
use proptest::{prelude::*, sample::select};
use safetensors::{serialize_to_file, tensor::TensorView};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

/// ‖got − want‖ / ‖want‖ over the logits, in units of the backend's precision for the weights: how much the layers,
/// sharp attention in them, magnify rounding.
const LOGITS: f64 = 40.0;

fn tolerance(kernels: &dyn Kernels, dtype: Dtype) -> f64 {
    LOGITS * query_precision(kernels, dtype)
}

/// What a tiny model is like.
#[derive(Debug, Clone, Copy)]
struct Tiny {
    hidden: usize,
    inner: usize,
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    vocabulary: usize,
    codes: usize,
    /// Of the weights in the file.
    dtype: Dtype,
    tied: bool,
    biases: bool,
    /// In two files.
    sharded: bool,
    rope_factor: Option<f64>,
}

const LAYERS: usize = 2;
const THETA: f64 = 5000.0;
const EPSILON: f64 = 1e-5;
const RELATIVE_POSITION: usize = 77;

struct Tensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

type Named = BTreeMap<String, Tensor>;

fn tinies() -> impl Strategy<Value = Tiny> {
    let sizes = (17_usize..=70, 15_usize..=90, 1_usize..=3, prop_oneof![1_usize..=5, Just(16_usize)]);
    let heads = (select(vec![16_usize, 18, 20, 34]), 30_usize..=90, prop_oneof![Just(1_usize), 2_usize..=40]);
    let flags = (dtypes(), any::<[bool; 3]>(), prop_oneof![Just(None), (1.0..8.0).prop_map(Some)]);
    (sizes, heads, flags).prop_map(|(sizes, heads, (dtype, [tied, biases, sharded], rope_factor))| {
        let ((hidden, inner, kv_heads, group), (head_dim, vocabulary, codes)) = (sizes, heads);
        Tiny {
            hidden,
            inner,
            kv_heads,
            group,
            head_dim,
            vocabulary,
            codes,
            dtype,
            tied,
            biases,
            sharded,
            rope_factor,
        }
    })
}

impl Tiny {
    /// Weights as the file has them: rounded to its type.
    fn weights(&self, noise: &mut Noise) -> Named {
        let mut named = Named::new();
        let mut add = |name: String, shape: &[usize], offset: f32, magnitude: f32| {
            let values: Vec<f32> =
                noise.vector(shape.iter().product(), magnitude).into_iter().map(|x| x + offset).collect();
            named.insert(name, Tensor { shape: shape.to_vec(), values: rounded(self.dtype, &values) });
        };
        add("model.embed_tokens.weight".to_owned(), &[self.vocabulary, self.hidden], 0.0, 1.0);
        add("model.norm.weight".to_owned(), &[self.hidden], 1.0, 0.3);
        if !self.tied {
            add("lm_head.weight".to_owned(), &[self.vocabulary, self.hidden], 0.0, 0.3);
        }
        let (queries, keys) = (self.kv_heads * self.group * self.head_dim, self.kv_heads * self.head_dim);
        for layer in 0..LAYERS {
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                add(format!("model.layers.{layer}.{norm}.weight"), &[self.hidden], 1.0, 0.3);
            }
            for (name, rows, cols) in [
                ("self_attn.q_proj", queries, self.hidden),
                ("self_attn.k_proj", keys, self.hidden),
                ("self_attn.v_proj", keys, self.hidden),
                ("self_attn.o_proj", self.hidden, queries),
                ("mlp.gate_proj", self.inner, self.hidden),
                ("mlp.up_proj", self.inner, self.hidden),
                ("mlp.down_proj", self.hidden, self.inner),
            ] {
                let magnitude = 2.0 / (cols as f32).sqrt();
                add(format!("model.layers.{layer}.{name}.weight"), &[rows, cols], 0.0, magnitude);
                if self.biases {
                    add(format!("model.layers.{layer}.{name}.bias"), &[rows], 0.0, 0.5);
                }
            }
        }
        named
    }

    /// Centroids, a factor and its inverse for each kv head: a diagonal one, whose inverse is exact.
    fn codebooks(&self, noise: &mut Noise) -> Named {
        let (heads, codes, d) = (self.kv_heads, self.codes, self.head_dim);
        let mut named = Named::new();
        for layer in 0..LAYERS {
            let centroids = noise.vector(heads * codes * d, 2.0);
            let diagonal: Vec<f32> = (0..heads * d).map(|_| [0.5, 1.0, 2.0][noise.below(3)]).collect();
            let matrix = |of: &dyn Fn(f32) -> f32| -> Vec<f32> {
                let element = |i: usize| if i / d % d == i % d { of(diagonal[i / d]) } else { 0.0 };
                (0..heads * d * d).map(element).collect()
            };
            for (name, shape, values) in [
                ("codebook", vec![heads, codes, d], centroids),
                ("cholesky", vec![heads, d, d], matrix(&|x| x)),
                ("inv_cholesky", vec![heads, d, d], matrix(&|x| 1.0 / x)),
            ] {
                named.insert(format!("layers.{layer}.{name}"), Tensor { shape, values });
            }
        }
        named
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!({
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": self.kv_heads * self.group,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocabulary,
            "rms_norm_eps": EPSILON,
            "rope_theta": THETA,
            "rope_scaling": self.rope_factor.map(|factor| serde_json::json!({ "rope_type": "linear", "factor": factor })),
            "max_position_embeddings": 4096,
            "tie_word_embeddings": self.tied,
            "attention_bias": self.biases,
            "mlp_bias": self.biases,
        })
    }

    fn write(&self, weights: &Named, codebooks: &Named, folder: &Path) {
        fs::write(folder.join("config.json"), self.config().to_string()).unwrap();
        let relative = HashMap::from([("relative_position".to_owned(), RELATIVE_POSITION.to_string())]);
        write_tensors(codebooks.iter(), Dtype::F32, Some(relative), &folder.join("codebooks.safetensors"));
        if !self.sharded {
            return write_tensors(weights.iter(), self.dtype, None, &folder.join("model.safetensors"));
        }
        let shard = |i: usize| format!("model-{}-of-00002.safetensors", i % 2);
        for half in 0..2 {
            let part = weights.iter().enumerate().filter(|(i, _)| i % 2 == half).map(|(_, tensor)| tensor);
            write_tensors(part, self.dtype, None, &folder.join(shard(half)));
        }
        let map: HashMap<&String, String> =
            weights.keys().enumerate().map(|(i, name)| (name, shard(i))).collect();
        let index = serde_json::json!({ "metadata": {}, "weight_map": map });
        fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }

    fn reference(&self, weights: &Named, codebooks: &Named) -> Reference {
        let scaling = self.rope_factor.map_or(Scaling::None, |factor| Scaling::Linear { factor });
        let shape = Shape {
            layers: LAYERS,
            heads: self.kv_heads * self.group,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            rms_norm_eps: EPSILON,
            frequencies: rope_frequencies(THETA, self.head_dim, &scaling),
        };
        let values = weights.iter().map(|(name, tensor)| (name.clone(), to_f64(&tensor.values))).collect();
        let shapes = weights.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
        let book = |layer: usize, head: usize| {
            let part = |name: &str| {
                let tensor = &codebooks[&format!("layers.{layer}.{name}")];
                let len = tensor.shape[1] * tensor.shape[2];
                to_f64(&tensor.values[head * len..(head + 1) * len])
            };
            let parts = [part("codebook"), part("cholesky"), part("inv_cholesky")];
            ReferenceBook::from_cholesky_space(&parts[0], &parts[1], &parts[2], self.codes, self.head_dim)
        };
        let books =
            (0..LAYERS).map(|layer| (0..self.kv_heads).map(|head| book(layer, head)).collect()).collect();
        Reference::new(shape, values, &shapes, Some(books))
    }
}

fn write_tensors<'a>(
    tensors: impl Iterator<Item = (&'a String, &'a Tensor)>,
    dtype: Dtype,
    metadata: Option<HashMap<String, String>>,
    file: &Path,
) {
    let bytes = |values: &[f32]| -> Vec<u8> {
        match dtype {
            Dtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            Dtype::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        }
    };
    let dtype = match dtype {
        Dtype::F32 => safetensors::Dtype::F32,
        Dtype::F16 => safetensors::Dtype::F16,
        Dtype::Bf16 => safetensors::Dtype::BF16,
    };
    let parts: Vec<_> = tensors.map(|(name, tensor)| (name, &tensor.shape, bytes(&tensor.values))).collect();
    let views = parts
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.to_vec(), bytes).unwrap()));
    serialize_to_file(views, metadata, file).unwrap();
}

fn as_usize(ids: &[u32]) -> Vec<usize> {
    ids.iter().map(|&id| id as usize).collect()
}

fn assert_logits(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    let error = relative_error(&to_f64(got), want);
    assert!(error <= tolerance, "{what}: off by {error:.1e}, {tolerance:.1e} is allowed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases.div_ceil(4), ..config() })]

    #[test]
    fn prefill_and_steps_agree_with_the_reference(
        tiny in tinies(),
        (prompt, cut, steps) in (1_usize..=90, 0_usize..=90, 1_usize..=5),
        (retrieve, window, sinks) in (select(vec![0.0, 0.1, 0.3, 1.0]), 1_usize..=30, 0_usize..=5),
        (dense, estimate, seed) in (prop_oneof![3 => Just(false), 1 => Just(true)], estimates(), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let (weights, codebooks) = (tiny.weights(&mut noise), tiny.codebooks(&mut noise));
        let folder = tempfile::tempdir().unwrap();
        tiny.write(&weights, &codebooks, folder.path());
        let ids: Vec<u32> = (0..prompt + steps).map(|_| noise.below(tiny.vocabulary) as u32).collect();

        let mut reference = tiny.reference(&weights, &codebooks);
        let of_reference = match estimate {
            decode::Estimate::Off => Estimate::None,
            decode::Estimate::Fixed => Estimate::Fixed,
            decode::Estimate::Averaged => Estimate::Averaged,
        };
        let sparse = Sparse { retrieve, window, sinks, relative_position: RELATIVE_POSITION, estimate: of_reference };
        let mut want = vec![reference.forward(&as_usize(&ids[..prompt]), 0, None)];
        for at in prompt..ids.len() {
            want.push(reference.forward(&as_usize(&ids[at..at + 1]), at, (!dense).then_some(sparse)));
        }

        on_every_backend(|kernels| {
            let model = Model::open(folder.path(), kernels).unwrap();
            let books = Arc::new(Codebooks::open(&folder.path().join("codebooks.safetensors"), model.owner(), Dtype::F32).unwrap());
            let attention = if dense { Attention::Dense } else { Attention::A2ats(Sparsity { retrieve, window, sinks, estimate }) };
            let mut reader = Reader::new(&model, Some(&books), attention, Dtype::F32, ids.len()).unwrap();
            let (what, tolerance) = (kernels.name(), tolerance(kernels, tiny.dtype));
            let first = cut.min(prompt - 1);
            if first > 0 {
                reader.read(&ids[..first]).unwrap();
                reader.break_off(&ids[first..prompt]).unwrap();
                assert_eq!(reader.sequence().ids(), &ids[..first], "what was broken off left nothing");
            }
            let logits = reader.read(&ids[first..prompt]).unwrap();
            assert_logits(what, &logits, &want[0], tolerance);
            for (at, want) in (prompt..).zip(&want[1..]) {
                assert_logits(what, &reader.step(ids[at]).unwrap(), want, tolerance);
            }
            assert_eq!(reader.sequence().ids(), ids);
            for (layer, head) in (0..LAYERS).flat_map(|layer| (0..tiny.kv_heads).map(move |head| (layer, head))) {
                let codes: Vec<usize> = reader.sequence().codes(layer, head).iter().map(|&code| code.into()).collect();
                assert_eq!(codes, if dense { &[][..] } else { reference.codes(layer, head) }, "{what}");
            }
            if !dense {
                let lengths: Vec<f64> = (prompt + 1..=ids.len()).map(|tokens| tokens as f64).collect();
                let heads = (LAYERS * tiny.kv_heads) as f64;
                let picked = reference.union_fractions().iter().zip(&lengths).map(|(share, tokens)| share * tokens);
                assert_eq!(reader.sequence().read().picked as f64, (picked.sum::<f64>() * heads).round(), "{what}");
                assert_eq!(reader.sequence().read().tokens as f64, lengths.iter().sum::<f64>() * heads);
            }
        });
    }
}
