//! Everything that a command needs of a model, from a folder or from the program itself.

use super::{
    options::{ModelOptions, Weights},
    progress::Progress,
};
use a2ats_kernel::Kernels;
use a2ats_model::{
    Attention, Codebooks, Error, Model, Result, demo,
    engine::{self, Engine},
    families::{self, GenerationConfig},
    files::{Loading, safetensors::Tensors},
    text::{template::ChatTemplate, tokenizer::Tokenizer},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Names that codebooks are looked for under, in a model folder.
const CODEBOOK_FILES: [&str; 2] = ["codebooks.safetensors", "codebooks_reference.safetensors"];

/// A model and its tokenizer.
pub(super) struct Base {
    pub(super) name: String,
    pub(super) model: Model,
    pub(super) tokenizer: Tokenizer,
}

impl Base {
    /// Loads a folder, or what the program itself holds, with the backend that the environment or the CPU decides.
    pub(super) fn new(folder: Option<&Path>, weights: Weights) -> Result<Self> {
        // A wrong A2ATS_ISA is the caller's mistake, not the model's.
        let kernels = a2ats_kernel::select().map_err(|error| Error::Usage(format!("A2ATS_ISA: {error}")))?;
        let Some(folder) = folder else {
            let name = "embedded demo model".to_owned();
            return Ok(Self { name, model: demo::model(kernels)?, tokenizer: demo::tokenizer()? });
        };
        if !folder.is_dir() {
            let problem = if folder.exists() { "is not a folder" } else { "does not exist" };
            return Err(Error::file(folder, problem, "give a model folder as downloaded from Hugging Face"));
        }
        Ok(Self {
            name: folder.display().to_string(),
            model: open_model(folder, weights, kernels)?,
            tokenizer: Tokenizer::from_file(&folder.join("tokenizer.json"))?,
        })
    }
}

/// Opens a model, with a bar if copying it takes long.
fn open_model(folder: &Path, weights: Weights, kernels: &'static dyn Kernels) -> Result<Model> {
    let spec = families::load(folder)?;
    let mut bar = None;
    let mut progress = |done: u64, of: u64| {
        let mib = |bytes: u64| (bytes >> 20) as usize;
        // A bar for each file.
        bar.get_or_insert_with(|| Progress::new(mib(of), ("copying weights", "MiB"))).show(mib(done));
        if done == of {
            bar = None;
        }
    };
    let tensors = match weights {
        Weights::Map => Tensors::open_model(folder, Loading::Map)?,
        Weights::Copy => Tensors::open_model(folder, Loading::Copy(&mut progress))?,
    };
    Model::from_parts(spec, tensors, kernels)
}

/// A model with what belongs to it.
pub(super) struct Loaded {
    pub(super) name: String,
    pub(super) model: Model,
    pub(super) tokenizer: Tokenizer,
    pub(super) template: Option<ChatTemplate>,
    pub(super) end_of_sequence: Vec<u32>,
    pub(super) codebooks: Option<Arc<Codebooks>>,
    pub(super) attention: Attention,
}

impl Loaded {
    /// Loads what the options name.
    pub(super) fn new(options: &ModelOptions) -> Result<Self> {
        let folder = options.model.as_deref();
        let Base { name, model, tokenizer } = Base::new(folder, options.weights)?;
        let codebooks = match folder {
            Some(folder) => {
                let file = codebook_file(folder, options)?;
                file.map(|file| Codebooks::open(&file, model.owner(), options.codeword_dtype)).transpose()?
            }
            None => embedded_codebooks(&model, options)?,
        };
        Ok(Self {
            name,
            tokenizer,
            template: folder.map_or_else(demo::template, ChatTemplate::load)?,
            end_of_sequence: match folder {
                Some(folder) => GenerationConfig::load(folder, model.spec())?.eos_token_ids,
                None => model.spec().eos_token_ids.clone(),
            },
            attention: options.attention(codebooks.is_some(), |sparsity| match &codebooks {
                Some(books) => model.crossover(books, sparsity, options.kv_dtype),
                None => Ok(usize::MAX),
            })?,
            codebooks: codebooks.map(Arc::new),
            model,
        })
    }

    /// The model at work, on so many sequences at a time at most.
    pub(super) fn engine(&self, options: &ModelOptions, batch: usize) -> Result<Engine<'_>> {
        let options = engine::Options {
            codebooks: self.codebooks.clone(),
            attention: self.attention,
            kv_dtype: options.kv_dtype,
            end_of_sequence: self.end_of_sequence.clone(),
            batch,
        };
        Engine::new(&self.model, &self.tokenizer, options)
    }
}

/// The demo model's codebooks, or others for it, if some are wanted.
fn embedded_codebooks(model: &Model, options: &ModelOptions) -> Result<Option<Codebooks>> {
    match &options.codebooks {
        _ if !options.wants_codebooks() => Ok(None),
        Some(file) => Codebooks::open(file, model.owner(), options.codeword_dtype).map(Some),
        None => demo::codebooks(model, options.codeword_dtype).map(Some),
    }
}

/// The codebook file to use, if one is wanted and there is one.
fn codebook_file(folder: &Path, options: &ModelOptions) -> Result<Option<PathBuf>> {
    if !options.wants_codebooks() {
        return Ok(None);
    }
    if let Some(file) = &options.codebooks {
        return Ok(Some(file.clone()));
    }
    let found = CODEBOOK_FILES.iter().map(|name| folder.join(name)).find(|file| file.exists());
    if found.is_none() && options.needs_codebooks() {
        return Err(Error::Usage(format!(
            "--attention a2ats: {} has no {}; give --codebooks FILE, or --attention dense",
            folder.display(),
            CODEBOOK_FILES[0]
        )));
    }
    Ok(found)
}

/// Threads that may be asked for, however few CPUs there are: tests and comparisons want more than there are.
const FEW_THREADS: usize = 64;

/// Runs `work` on as many threads as asked for.
pub(super) fn with_threads<T: Send>(threads: Option<usize>, work: impl FnOnce() -> T + Send) -> Result<T> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let most = FEW_THREADS.max(4 * cpus);
    if let Some(threads) = threads.filter(|threads| !(1..=most).contains(threads)) {
        return Err(Error::Usage(format!(
            "--threads {threads}: give 1 to {most}; this program may use {cpus} CPUs, and more threads than those make nothing faster"
        )));
    }
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build().map_err(|error| {
            Error::Usage(format!("cannot start {} threads: {error}", threads.unwrap_or(cpus)))
        })?;
    Ok(pool.install(work))
}
