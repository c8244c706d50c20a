//! Everything that a command needs of a model, from a folder or from the program itself.

use super::options::ModelOptions;
use a2ats_kernel::Kernels;
use a2ats_model::{
    Attention, Codebooks, Error, Llama, Result, config::GenerationConfig, demo, template::ChatTemplate,
    tokenizer::Tokenizer,
};
use std::path::{Path, PathBuf};

/// Names that codebooks are looked for under, in a model folder.
const CODEBOOK_FILES: [&str; 2] = ["codebooks.safetensors", "codebooks_reference.safetensors"];

/// A model with what belongs to it.
pub(super) struct Loaded {
    pub(super) name: String,
    pub(super) model: Llama,
    pub(super) tokenizer: Tokenizer,
    pub(super) template: Option<ChatTemplate>,
    pub(super) end_of_sequence: Vec<u32>,
    pub(super) codebooks: Option<Codebooks>,
    pub(super) attention: Attention,
}

impl Loaded {
    /// Loads what the options name, with the backend that the environment or the CPU decides.
    pub(super) fn new(options: &ModelOptions) -> Result<Self> {
        // A wrong A2ATS_ISA is the caller's mistake, not the model's.
        let kernels = a2ats_kernel::select().map_err(|error| Error::Usage(format!("A2ATS_ISA: {error}")))?;
        match &options.model {
            Some(folder) => Self::from_folder(folder, options, kernels),
            None => Self::embedded(options, kernels),
        }
    }

    fn from_folder(folder: &Path, options: &ModelOptions, kernels: &'static dyn Kernels) -> Result<Self> {
        if !folder.is_dir() {
            let problem = if folder.exists() { "is not a folder" } else { "does not exist" };
            return Err(Error::file(folder, problem, "give a model folder as downloaded from Hugging Face"));
        }
        let model = Llama::open(folder, kernels)?;
        let file = codebook_file(folder, options)?;
        let open = |file: &PathBuf| Codebooks::open(file, &model, options.codeword_dtype);
        let codebooks = file.as_ref().map(open).transpose()?;
        Ok(Self {
            name: folder.display().to_string(),
            tokenizer: Tokenizer::from_file(&folder.join("tokenizer.json"))?,
            template: ChatTemplate::load(folder)?,
            end_of_sequence: GenerationConfig::load(folder, model.config())?.eos_token_ids,
            attention: options.attention(codebooks.is_some())?,
            codebooks,
            model,
        })
    }

    fn embedded(options: &ModelOptions, kernels: &'static dyn Kernels) -> Result<Self> {
        let model = demo::model(kernels)?;
        let codebooks = match &options.codebooks {
            _ if !options.wants_codebooks() => None,
            Some(file) => Some(Codebooks::open(file, &model, options.codeword_dtype)?),
            None => Some(demo::codebooks(&model, options.codeword_dtype)?),
        };
        Ok(Self {
            name: "embedded demo model".to_owned(),
            tokenizer: demo::tokenizer()?,
            template: demo::template()?,
            end_of_sequence: model.config().eos_token_ids.clone(),
            attention: options.attention(codebooks.is_some())?,
            codebooks,
            model,
        })
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

/// Runs `work` on as many threads as asked for.
pub(super) fn with_threads<T: Send>(threads: Option<usize>, work: impl FnOnce() -> T + Send) -> Result<T> {
    if threads == Some(0) {
        return Err(Error::Usage("--threads 0: give at least 1".to_owned()));
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .build()
        .map_err(|error| Error::Usage(format!("cannot start {} threads: {error}", threads.unwrap_or(0))))?;
    Ok(pool.install(work))
}
