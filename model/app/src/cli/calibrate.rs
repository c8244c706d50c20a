//! `a2ats calibrate`: the codebooks of a model.

use super::{
    CommandResult, Outcome,
    device::Device,
    interrupt,
    load::{Base, with_threads},
    options::Weights,
    output::{human_bytes, human_time, print, print_json, say},
    progress::Progress,
    quality::Show,
};
use a2ats_kernel::clustering::{self, Clusterer};
use a2ats_model::{
    Error, Model, Result,
    demo::ledgers::Ledgers,
    lab::calibrate::{self, Report, Settings, calibrate, estimate::estimate, text::Collector, work_folder},
};
use clap::Args;
use std::{
    ops::{ControlFlow, Range},
    path::PathBuf,
};

/// Make a model's codebooks: once per model, from some text.
///
/// Reads the text densely, records keys and queries, and clusters the keys of every
/// layer and kv head in the metric of the queries. A tenth of the tokens is kept apart
/// and tells how good the codebooks are. Ctrl-C loses no more than the document or the
/// head being worked on: the same command goes on from there. --dry-run says how long
/// it will take here.
///
/// The text should be of the kind that the model was trained on: some 64K tokens of
/// ordinary documents, like the paper's FineWeb-Edu. Random UUIDs are added, which make
/// codewords tell names apart.
///
/// Examples:
///   a2ats calibrate --model Llama-3.1-8B --text documents.jsonl --out books
///   a2ats calibrate --model Llama-3.1-8B --text *.txt --out share --layers 0..8
///   a2ats calibrate --out demo.safetensors --codewords 1024
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Calibrate {
    /// Model folder as downloaded from Hugging Face; without it, the embedded demo model.
    #[arg(long, short, value_name = "DIR")]
    model: Option<PathBuf>,

    /// Text: .jsonl files with a field "text" in each line, .parquet files with such a column (if built with that
    /// feature), any other files as plain text. The demo model needs none.
    #[arg(long, short, value_name = "FILE", num_args = 1..)]
    text: Vec<PathBuf>,

    /// The codebook file to write; named codebooks.safetensors in the model folder, it is found there.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,

    /// Codewords per kv head.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    codewords: usize,

    /// Tokens of text to read, in documents of 16384 at most.
    #[arg(long, value_name = "N", default_value_t = 65536)]
    tokens: usize,

    /// Tokens of random UUIDs to add.
    #[arg(long, value_name = "N", default_value_t = 16384)]
    random_tokens: usize,

    /// The fixed position that queries are rotated to.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    relative_position: usize,

    /// Most iterations of k-means.
    #[arg(long, value_name = "N", default_value_t = 300)]
    iterations: usize,

    /// Seed of the random numbers: the same seed, text and backend give the same bytes.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Layers to make codebooks for, the last one excluded; `a2ats codebooks merge` joins shares.
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    layers: Option<Range<usize>>,

    /// Say how long it will take and how much disk and memory it needs, and do nothing.
    #[arg(long)]
    dry_run: bool,

    /// What does the clustering; what a head was clustered on is not asked when a stopped run goes on.
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    device: Device,

    /// Threads to compute with; without it, one per core. The numbers do not depend on it.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    #[command(flatten)]
    show: Show,
}

fn parse_range(text: &str) -> Result<Range<usize>, String> {
    let ends = text.split_once("..").and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
    ends.ok_or_else(|| "give two numbers with .. between them, like 0..8".to_owned())
}

impl Calibrate {
    pub(super) fn run(&self) -> CommandResult {
        if self.model.is_some() && self.text.is_empty() {
            return Err(Error::Usage(
                "--text: give some text to calibrate with, .txt or .jsonl: 64K tokens of ordinary documents, like those of \
                 the dataset HuggingFaceFW/fineweb-edu that the paper takes"
                    .to_owned(),
            ));
        }
        interrupt::listen()?;
        let base = with_threads(self.threads, || Base::new(self.model.as_deref(), Weights::Map))??;
        let documents = self.documents(&base)?;
        let layers = self.layers.clone().unwrap_or(0..base.model.spec().num_hidden_layers);
        let settings = Settings {
            codewords: self.codewords,
            relative_position: self.relative_position,
            iterations: self.iterations,
            seed: self.seed,
            layers,
        };
        let tokens = documents.iter().map(Vec::len).sum();
        let clusterer = self.device.clusterer(&base.model, tokens, self.codewords)?;
        if self.dry_run {
            let estimate = || estimate(&base.model, &documents, &settings, &*clusterer);
            let estimate = with_threads(self.threads, estimate)??;
            if self.show.json {
                print_json(&estimate)?
            } else {
                print(&self.describe(&estimate))?
            }
            return Ok(Outcome::Done);
        }
        let calibrate = || self.calibrate(&base.model, &documents, &settings, &*clusterer);
        let report = with_threads(self.threads, calibrate)??;
        let Some(report) = report else {
            let folder = work_folder(&self.out);
            say(&format!(
                "stopped; what is done is in {}, the same command goes on from there",
                folder.display()
            ));
            return Ok(Outcome::Interrupted);
        };
        self.show.show(&report)?;
        say(&format!("{}: codebooks of {}", self.out.display(), base.name));
        Ok(Outcome::Done)
    }

    /// The text as token ids.
    fn documents(&self, base: &Base) -> Result<Vec<Vec<u32>>> {
        let mut collector = Collector::new(&base.model, &base.tokenizer, self.tokens);
        for file in &self.text {
            if !collector.is_full() {
                collector.add_file(file)?;
            }
        }
        if self.text.is_empty() {
            let mut ledgers = Ledgers::new(self.seed)?;
            while !collector.is_full() {
                collector.add(&ledgers.next_ledger())?;
            }
        }
        if !collector.is_full() {
            let (got, want) = (self.tokens - collector.left(), self.tokens);
            say(&format!(
                "the text has {got} tokens where --tokens asks for {want}; more would make better codebooks"
            ));
        }
        collector.add_uuids(self.random_tokens, self.seed)?;
        Ok(collector.finish())
    }

    fn calibrate(
        &self,
        model: &Model,
        documents: &[Vec<u32>],
        settings: &Settings,
        clusterer: &dyn Clusterer,
    ) -> Result<Option<Report>> {
        let mut reading = None;
        let mut clustering = None;
        let mut keep_on = |progress| -> ControlFlow<()> {
            match progress {
                calibrate::Progress::Reading { tokens, of } => {
                    let bar =
                        reading.get_or_insert_with(|| Progress::new(of, ("reading the text", "tokens")));
                    bar.show(tokens);
                }
                calibrate::Progress::Clustering { heads, of, step } => {
                    reading = None;
                    let bar = clustering.get_or_insert_with(|| Progress::new(of, ("clustering", "kv heads")));
                    bar.show(heads);
                    bar.say(describe(step));
                }
            }
            interrupt::flow()
        };
        calibrate(model, documents, settings, clusterer, &self.out, &mut keep_on)
    }

    fn describe(&self, estimate: &calibrate::estimate::Estimate) -> String {
        format!(
            "{} tokens to read: about {}, and more for the attention of long documents\n\
             clustering: about {}\n\
             disk: {} in {} until it is done, {} for the codebooks\n\
             memory: {} beside the model's weights\n",
            estimate.tokens,
            human_time(estimate.reading_seconds),
            human_time(estimate.clustering_seconds),
            human_bytes(estimate.disk_bytes as f64),
            work_folder(&self.out).display(),
            human_bytes(estimate.output_bytes as f64),
            human_bytes(estimate.memory_bytes as f64),
        )
    }
}

/// A step of k-means, for the end of a line.
fn describe(step: clustering::Progress) -> String {
    match step {
        clustering::Progress::Seeding { chosen, clusters } => {
            format!("; {chosen}/{clusters} first centroids")
        }
        clustering::Progress::Iteration { number, moved, .. } => {
            format!("; iteration {number}, {moved} centroids moved")
        }
    }
}
