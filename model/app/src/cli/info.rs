//! `a2ats info`: what a model is, what it will be computed with, and what a context will cost.

use super::{
    CommandResult, Outcome,
    load::{Loaded, with_threads},
    options::ModelOptions,
    output::{human_bytes, print, print_json},
};
use a2ats_model::{
    Attention,
    engine::memory,
    sequence::{index_bytes, kv_bytes, longest_context, sum_bytes},
};
use clap::Args;
use serde::Serialize;
use std::fmt::Write;

/// Show a model, its codebooks, the backend, and the memory that a context takes.
#[derive(Args)]
pub(super) struct Info {
    /// Context length to reckon with; without it, the longest that the model allows.
    #[arg(long, short, value_name = "TOKENS")]
    context: Option<usize>,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    model: ModelOptions,
}

#[derive(Serialize)]
struct Facts {
    model: String,
    layers: usize,
    hidden_size: usize,
    query_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocabulary: usize,
    longest_context: usize,
    weight_bytes: usize,
    weight_dtype: String,
    identity: String,
    codebooks: Option<CodebookFacts>,
    attention: &'static str,
    /// Tokens from which on steps attend to the retrieved ones; null where they never or always do.
    sparse_from: Option<usize>,
    backend: &'static str,
    backends_available: Vec<&'static str>,
    kv_dtype: String,
    context: usize,
    /// Bytes of KV rows at that context, in memory; dense attention reads them for every token.
    kv_bytes: u128,
    /// Bytes of codes and posting lists at that context.
    index_bytes: u128,
    /// Bytes of sums of values at that context, where what is not attended is estimated.
    sum_bytes: u128,
    memory_available: Option<u64>,
}

#[derive(Serialize)]
struct CodebookFacts {
    file: String,
    codewords: Vec<usize>,
    relative_position: usize,
    dtype: String,
    /// Bytes in memory, read for every token.
    bytes: usize,
    calibration: Option<String>,
}

impl Info {
    pub(super) fn run(&self) -> CommandResult {
        let loaded = with_threads(self.model.threads, || Loaded::new(&self.model))??;
        let facts = self.facts(&loaded);
        if self.json {
            print_json(&facts)?
        } else {
            print(&describe(&facts))?
        }
        Ok(Outcome::Done)
    }

    fn facts(&self, loaded: &Loaded) -> Facts {
        let (model, config) = (&loaded.model, loaded.model.spec());
        let longest = longest_context(config);
        let context = self.context.unwrap_or(longest);
        Facts {
            model: loaded.name.clone(),
            layers: config.num_hidden_layers,
            hidden_size: config.hidden_size,
            query_heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            vocabulary: config.vocab_size,
            longest_context: longest,
            weight_bytes: model.tensors().bytes(),
            weight_dtype: model.tensors().dtype_name("model.embed_tokens.weight").unwrap_or_default(),
            identity: model.identity().as_str().to_owned(),
            codebooks: loaded.codebooks.as_ref().map(|books| CodebookFacts {
                file: books.label().display().to_string(),
                codewords: books.codes(),
                relative_position: books.relative_position(),
                dtype: books.dtype().to_string(),
                bytes: books.bytes(),
                calibration: books.metadata().get("calibration").cloned(),
            }),
            attention: loaded.attention.name(),
            sparse_from: match loaded.attention {
                Attention::Auto(_, from) => Some(from),
                Attention::Dense | Attention::A2ats(_) => None,
            },
            backend: model.kernels().name(),
            backends_available: a2ats_kernel::available().iter().map(|kernels| kernels.name()).collect(),
            kv_dtype: self.model.kv_dtype.to_string(),
            context,
            kv_bytes: kv_bytes(config, self.model.kv_dtype, context),
            index_bytes: loaded
                .codebooks
                .as_ref()
                .map_or(0, |books| index_bytes(config, books.most_codes(), context)),
            sum_bytes: loaded
                .codebooks
                .as_ref()
                .filter(|_| loaded.attention.has_estimate())
                .map_or(0, |books| sum_bytes(config, self.model.kv_dtype, books.most_codes(), context)),
            memory_available: memory::available(),
        }
    }
}

fn describe(facts: &Facts) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<12} {value}");
    };
    line("model", facts.model.clone());
    line(
        "shape",
        format!(
            "{} layers, hidden {}, {} query heads on {} kv heads of {}, vocabulary {}, contexts up to {}",
            facts.layers,
            facts.hidden_size,
            facts.query_heads,
            facts.kv_heads,
            facts.head_dim,
            facts.vocabulary,
            facts.longest_context
        ),
    );
    line(
        "weights",
        format!("{} of {}, used in place", human_bytes(facts.weight_bytes as f64), facts.weight_dtype),
    );
    line("identity", facts.identity.clone());
    match &facts.codebooks {
        None => line("codebooks", "none in use: dense attention".to_owned()),
        Some(books) => {
            let most = books.codewords.iter().max().copied().unwrap_or(0);
            line(
                "codebooks",
                format!(
                    "{}: {most} codewords per kv head in {}, {}; relative position {}",
                    books.file,
                    books.dtype,
                    human_bytes(books.bytes as f64),
                    books.relative_position
                ),
            );
        }
    }
    line(
        "attention",
        match facts.sparse_from {
            None => facts.attention.to_owned(),
            Some(usize::MAX) => "auto: dense, which is always the faster way here".to_owned(),
            Some(from) => format!("auto: dense below {from} tokens, a2ats from there on"),
        },
    );
    line("backend", format!("{} (this CPU has {})", facts.backend, facts.backends_available.join(", ")));
    line(
        "memory",
        format!(
            "a context of {} tokens takes {} of KV rows in {}, about {} of index and {} of sums of values; {} are free",
            facts.context,
            human_bytes(facts.kv_bytes as f64),
            facts.kv_dtype,
            human_bytes(facts.index_bytes as f64),
            human_bytes(facts.sum_bytes as f64),
            facts.memory_available.map_or("an unknown amount".to_owned(), |bytes| human_bytes(bytes as f64))
        ),
    );
    text
}
