//! Codebook files, lawful and damaged: each is loaded and can be used, or is refused with a message, and nothing else.
#![no_main]
#![forbid(unsafe_code)]

use a2ats_kernel::{Codebook, Dtype, Kernels, available};
use a2ats_model::{
    Codebooks, Model,
    codebooks::{FORMAT, FORMAT_VERSION},
    families,
    files::safetensors::Tensors,
};
use a2ats_tests::{
    calls,
    inputs::{Noise, rounded},
};
use arbitrary::{Arbitrary, Result, Unstructured};
use half::{bf16, f16};
use libfuzzer_sys::fuzz_target;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};
use std::{io::Write, ops::ControlFlow, path::Path, sync::OnceLock};

const LAYERS: usize = 2;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;

/// Element types as a header names them, of which the last is not one.
const TYPES: [&str; 8] = ["F64", "F32", "F16", "BF16", "I8", "BOOL", "F4", "F31"];

/// A file to load.
#[derive(Debug)]
enum Case {
    Bytes(Vec<u8>),
    File(File),
}

/// A file that is lawful until the damages come.
#[derive(Debug)]
struct File {
    native: bool,
    /// Storage type in memory.
    dtype: Dtype,
    /// Storage type of the codewords in the native format.
    file_dtype: Dtype,
    /// Codewords of each layer.
    codes: [usize; LAYERS],
    seed: u64,
    damages: Vec<Damage>,
}

/// What happens to a lawful file. Tensors and metadata are named by a number, modulo how many there are.
#[derive(Debug, Arbitrary)]
enum Damage {
    /// Another shape, with as many bytes as it needs if asked for and within reason.
    Shape(u8, Vec<Size>, bool),
    /// One of [`TYPES`].
    Type(u8, u8),
    Offsets(u8, [Size; 2]),
    /// Takes the name of another tensor.
    Rename(u8, u8),
    Remove(u8),
    /// Another number, by its bits.
    Number(u8, u16, u32),
    Metadata(u8, Text),
    RemoveMetadata(u8),
    /// In the text of the header: where, how many bytes go, what comes.
    HeaderText(u16, u8, Vec<u8>),
    HeaderLength(Size),
    Cut(u16),
    Append(Vec<u8>),
}

/// Sizes that fit, and sizes whose products pass the end of the numbers.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Size {
    Small(u8),
    HeadDim,
    PowerOfTwo(u8),
    BelowPowerOfTwo(u8),
}

impl Size {
    fn number(self) -> u64 {
        match self {
            Self::Small(size) => size.into(),
            Self::HeadDim => HEAD_DIM as u64,
            Self::PowerOfTwo(exponent) => 1 << (exponent % 64),
            Self::BelowPowerOfTwo(exponent) => u64::MAX >> (exponent % 64),
        }
    }
}

#[derive(Debug, Arbitrary)]
enum Text {
    Size(Size),
    Float(f64),
    Free(String),
}

impl<'a> Arbitrary<'a> for Case {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        if u.int_in_range(0..=7)? == 7 {
            let rest = u.len();
            return Ok(Self::Bytes(u.bytes(rest)?.to_vec()));
        }
        let dtypes = [Dtype::F32, Dtype::F16, Dtype::Bf16];
        let native = u.arbitrary()?;
        let (dtype, file_dtype) = (*u.choose(&dtypes)?, *u.choose(&dtypes)?);
        let codes = [u.int_in_range(1..=3)?, u.int_in_range(1..=20)?];
        let seed = u.arbitrary()?;
        let mut damages = Vec::new();
        u.arbitrary_loop(Some(0), Some(4), |u| {
            damages.push(u.arbitrary()?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Self::File(File { native, dtype, file_dtype, codes, seed, damages }))
    }
}

/// A tensor as a header announces it, and the bytes that are there.
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    /// Where the header says that the bytes are, if not where they are.
    offsets: Option<[u64; 2]>,
    bytes: Vec<u8>,
}

impl Tensor {
    fn new(name: String, dtype: Dtype, shape: [usize; 3], numbers: &[f32]) -> Self {
        let bytes = match dtype {
            Dtype::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::F16 => numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            Dtype::Bf16 => numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        };
        let shape = shape.map(|size| size as u64).to_vec();
        Self { name, dtype: dtype.name().to_uppercase(), shape, offsets: None, bytes }
    }
}

/// A codebook file that can still be changed.
struct Parts {
    tensors: Vec<Tensor>,
    metadata: Map<String, Value>,
    /// Codewords in key space, `[layers][kv_heads][codewords, head_dim]`, that an undamaged file holds.
    codewords: Vec<Vec<Vec<f32>>>,
}

impl Parts {
    fn lawful(file: &File) -> Self {
        let mut parts = Self { tensors: Vec::new(), metadata: metadata(file), codewords: Vec::new() };
        for layer in 0..LAYERS {
            parts.add_layer(file, layer);
        }
        parts
    }

    fn add_layer(&mut self, file: &File, layer: usize) {
        let (mut noise, codes) = (Noise::new(file.seed.wrapping_add(layer as u64)), file.codes[layer]);
        let table = noise.vector(KV_HEADS * codes * HEAD_DIM, 1.0);
        let [factors, inverses] =
            [0, 1].map(|_| (0..KV_HEADS).flat_map(|_| noise.cholesky(HEAD_DIM)).collect::<Vec<_>>());
        let (table_shape, square) = ([KV_HEADS, codes, HEAD_DIM], [KV_HEADS, HEAD_DIM, HEAD_DIM]);
        let mut add = |part: &str, dtype, shape, numbers: &[f32]| {
            self.tensors.push(Tensor::new(format!("layers.{layer}.{part}"), dtype, shape, numbers));
        };
        add("cholesky", Dtype::F32, square, &factors);
        let heads = table.chunks_exact(codes * HEAD_DIM);
        self.codewords.push(if file.native {
            add("codewords", file.file_dtype, table_shape, &table);
            heads.map(|head| rounded(file.file_dtype, head)).collect()
        } else {
            add("codebook", Dtype::F32, table_shape, &table);
            add("inv_cholesky", Dtype::F32, square, &inverses);
            let heads = heads.zip(inverses.chunks_exact(HEAD_DIM * HEAD_DIM));
            heads.map(|(head, inverse)| product(head, inverse)).collect()
        });
    }

    fn damage(&mut self, damage: &Damage) {
        let count = self.tensors.len();
        let tensor = |which: u8| usize::from(which) % count;
        match damage {
            _ if count == 0 => {}
            Damage::Shape(which, shape, with_bytes) => {
                let tensor = &mut self.tensors[tensor(*which)];
                tensor.shape = shape.iter().take(5).map(|size| size.number()).collect();
                let elements =
                    tensor.shape.iter().try_fold(1_u64, |product, &size| product.checked_mul(size));
                if let (true, Some(elements @ 0..1000)) = (*with_bytes, elements) {
                    let len = elements as usize * if tensor.dtype == "F32" { 4 } else { 2 };
                    tensor.bytes = tensor.bytes.iter().cycle().take(len).copied().collect();
                }
            }
            Damage::Type(which, name) => {
                self.tensors[tensor(*which)].dtype = TYPES[usize::from(*name) % TYPES.len()].to_owned();
            }
            Damage::Offsets(which, offsets) => {
                self.tensors[tensor(*which)].offsets = Some(offsets.map(Size::number));
            }
            Damage::Rename(which, other) => {
                self.tensors[tensor(*which)].name = self.tensors[tensor(*other)].name.clone();
            }
            Damage::Remove(which) => drop(self.tensors.remove(tensor(*which))),
            Damage::Number(which, at, bits) => {
                let words = self.tensors[tensor(*which)].bytes.as_chunks_mut().0;
                if let Some(last) = words.len().checked_sub(1) {
                    words[usize::from(*at).min(last)] = bits.to_le_bytes();
                }
            }
            Damage::Metadata(which, text) => {
                let value = match text {
                    Text::Size(size) => size.number().to_string(),
                    Text::Float(x) => x.to_string(),
                    Text::Free(text) => text.clone(),
                };
                let which = usize::from(*which) % self.metadata.len().max(1);
                if let Some(old) = self.metadata.values_mut().nth(which) {
                    *old = value.into();
                }
            }
            Damage::RemoveMetadata(which) => {
                let which = usize::from(*which) % self.metadata.len().max(1);
                if let Some(key) = self.metadata.keys().nth(which).cloned() {
                    self.metadata.remove(&key);
                }
            }
            // Of the written file, below.
            Damage::HeaderText(..) | Damage::HeaderLength(_) | Damage::Cut(_) | Damage::Append(_) => {}
        }
    }

    /// The text of the header; a tensor of the same name as another takes its place, as in any JSON.
    fn header(&self) -> Vec<u8> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), self.metadata.clone().into());
        let mut at = 0;
        for tensor in &self.tensors {
            let end = at + tensor.bytes.len() as u64;
            let offsets = tensor.offsets.unwrap_or([at, end]);
            let info = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets });
            header.insert(tensor.name.clone(), info);
            at = end;
        }
        Value::from(header).to_string().into_bytes()
    }

    fn written(&self, damages: &[Damage]) -> Vec<u8> {
        let mut header = self.header();
        for damage in damages {
            if let Damage::HeaderText(at, gone, come) = damage {
                let at = usize::from(*at).min(header.len());
                let end = (at + usize::from(*gone)).min(header.len());
                header.splice(at..end, come.iter().copied());
            }
        }
        let mut length = header.len() as u64;
        let data = self.tensors.iter().flat_map(|tensor| &tensor.bytes);
        let mut rest: Vec<u8> = header.into_iter().chain(data.copied()).collect();
        for damage in damages {
            match damage {
                Damage::HeaderLength(size) => length = size.number(),
                Damage::Cut(len) => rest.truncate(usize::from(*len)),
                Damage::Append(more) => rest.extend(more),
                _ => {}
            }
        }
        length.to_le_bytes().into_iter().chain(rest).collect()
    }
}

fn metadata(file: &File) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("relative_position".to_owned(), "77".into());
    if file.native {
        let native = json!({
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "layers": LAYERS.to_string(),
            "kv_heads": KV_HEADS.to_string(),
            "head_dim": HEAD_DIM.to_string(),
            "rope_theta": "10000",
            "rope_scaling": "none",
            "model_identity": model().identity().as_str(),
            "calibration": "{}",
        });
        metadata.extend(native.as_object().cloned().unwrap_or_default());
    }
    metadata
}

/// Rows times a matrix, both of head_dim columns.
fn product(rows: &[f32], matrix: &[f32]) -> Vec<f32> {
    let row = |row: &[f32]| -> Vec<f32> {
        let column = |j| row.iter().zip(matrix[j..].iter().step_by(HEAD_DIM)).map(|(x, y)| x * y).sum();
        (0..HEAD_DIM).map(column).collect()
    };
    rows.chunks_exact(HEAD_DIM).flat_map(row).collect()
}

/// A model that has layers and heads for the codebooks, and otherwise as little as a model can have.
fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        // One thread, so that a case runs the same way each time and the fuzzer sees all of it.
        rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global().expect("no pool yet");
        let hidden = 2;
        let config = json!({
            "model_type": "llama", "hidden_size": hidden, "intermediate_size": 2, "num_hidden_layers": LAYERS,
            "num_attention_heads": 2 * KV_HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "vocab_size": 2,
            "rms_norm_eps": 1e-5, "rope_theta": 10000, "max_position_embeddings": 100, "tie_word_embeddings": true,
        });
        let label = Path::new("model");
        let config = families::from_json(config.to_string().as_bytes(), label).expect("a lawful configuration");
        let (queries, keys) = (2 * KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
        let of_layer: [(&str, &[usize]); 9] = [
            ("input_layernorm", &[hidden]),
            ("self_attn.q_proj", &[queries, hidden]),
            ("self_attn.k_proj", &[keys, hidden]),
            ("self_attn.v_proj", &[keys, hidden]),
            ("self_attn.o_proj", &[hidden, queries]),
            ("post_attention_layernorm", &[hidden]),
            ("mlp.gate_proj", &[2, hidden]),
            ("mlp.up_proj", &[2, hidden]),
            ("mlp.down_proj", &[hidden, 2]),
        ];
        let layers = (0..LAYERS).flat_map(|layer| of_layer.map(|(part, shape)| (format!("layers.{layer}.{part}"), shape)));
        let others: [(String, &[usize]); 2] =
            [("embed_tokens".to_owned(), &[2, hidden]), ("norm".to_owned(), &[hidden])];
        let zeros = vec![0_u8; 4 * queries * hidden];
        let views = layers.chain(others).map(|(name, shape)| {
            let bytes = &zeros[..4 * shape.iter().product::<usize>()];
            let view = TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes);
            (format!("model.{name}.weight"), view.expect("as many bytes as the shape needs"))
        });
        let bytes = safetensors::serialize(views, None).expect("lawful tensors");
        let tensors = Tensors::embedded(bytes.leak(), label).expect("a lawful file");
        Model::from_parts(config, tensors, available()[0]).expect("all tensors that the configuration asks for")
    })
}

/// Scores and codes with the codebook of one head; the scores, less that of the first codeword.
fn scores_of(book: &Codebook, queries: &[f32]) -> Vec<Vec<f32>> {
    let on_backend = |kernels: &'static dyn Kernels| {
        let key = &queries[..HEAD_DIM];
        let (scores, newest) = calls::scores(kernels, book, queries, key).expect("the shapes fit");
        let mut codes = [u16::MAX; 3];
        kernels.encode(book, &key.repeat(3), &mut codes).expect("the shapes fit");
        for code in codes.into_iter().chain(newest) {
            assert!(usize::from(code) < book.codes(), "{}: code {code} of {}", kernels.name(), book.codes());
        }
        let first = scores[0];
        scores.into_iter().map(|score| score - first).collect()
    };
    available().into_iter().map(on_backend).collect()
}

/// Uses all codebooks, and compares with the codewords that are known to be in the file.
fn use_codebooks(books: &Codebooks, codewords: Option<&[Vec<Vec<f32>>]>, seed: u64) {
    assert!(books.relative_position() < 1 << 32);
    let query = Noise::new(seed).vector(HEAD_DIM, 1.0);
    let rounding = match books.dtype() {
        Dtype::F32 => 2_f32.powi(-16),
        Dtype::F16 => 2_f32.powi(-11),
        Dtype::Bf16 => 2_f32.powi(-8),
    };
    for (layer, head) in (0..LAYERS).flat_map(|layer| (0..KV_HEADS).map(move |head| (layer, head))) {
        let book = books.of_head(layer, head);
        assert_eq!((book.codes(), book.head_dim()), (books.codes()[layer], HEAD_DIM));
        let on_backends = scores_of(book, &query);
        let Some(codewords) = codewords.map(|codewords| &codewords[layer][head]) else { continue };
        // Scores are relative to the codewords' mean, from which each differs by twice the largest number at most.
        let largest = codewords.iter().fold(0_f32, |largest, x| largest.max(x.abs()));
        let allowed = 4.0 * rounding * largest * query.iter().map(|x| x.abs()).sum::<f32>();
        let dot = |codeword: &[f32]| codeword.iter().zip(&query).map(|(x, y)| x * y).sum::<f32>();
        let want: Vec<f32> = codewords.chunks_exact(HEAD_DIM).map(dot).collect();
        for got in on_backends {
            assert_eq!(got.len(), want.len());
            for (got, score) in got.iter().zip(&want) {
                let want = score - want[0];
                assert!((got - want).abs() <= allowed, "layer {layer}, kv head {head}: {got}, want {want}");
            }
        }
    }
}

fuzz_target!(|case: Case| {
    let (bytes, dtype, codewords, seed) = match &case {
        Case::Bytes(bytes) => (bytes.clone(), Dtype::F16, None, 0),
        Case::File(file) => {
            let mut parts = Parts::lawful(file);
            file.damages.iter().for_each(|damage| parts.damage(damage));
            let bytes = parts.written(&file.damages);
            (bytes, file.dtype, file.damages.is_empty().then_some(parts.codewords), file.seed)
        }
    };
    // Written through the open file: truncating it first, as fs::write does, makes some file systems wait for the disk.
    let mut file = tempfile::NamedTempFile::new().expect("a folder for temporary files");
    file.write_all(&bytes).expect("room for a temporary file");
    match Codebooks::open(file.path(), model().owner(), dtype) {
        Ok(books) => use_codebooks(&books, codewords.as_deref(), seed),
        Err(error) => {
            let message = error.to_string();
            assert!(codewords.is_none(), "a lawful file is refused: {message}");
            assert!(!message.chars().any(char::is_control), "not fit for a terminal: {message:?}");
            assert!(message.starts_with(&*file.path().to_string_lossy()), "the file is not named: {message}");
        }
    }
});
