//! `a2ats generate`: one prompt, one answer.

use super::{
    CommandResult, Outcome,
    answer::answer,
    interrupt,
    load::{Loaded, with_threads},
    options::{ModelOptions, SamplingArguments},
    output::{human_bytes, print, print_json, say},
    prompt,
    prompts::Job,
};
use a2ats_model::{
    Result,
    engine::{End, Stop},
};
use clap::Args;
use serde::Serialize;
use std::{path::PathBuf, time::Duration};

/// Continue a prompt, or answer it.
///
/// Reads the prompt densely, then makes tokens one by one, each attending to the sinks,
/// the window and what retrieval finds. Text goes to standard output as it comes, a short
/// report to standard error.
///
/// Examples:
///   a2ats generate
///   a2ats generate --attention dense
///   a2ats generate --model Llama-3.1-8B-Instruct --chat "What is a sink token?"
///   a2ats generate --model Llama-3.1-8B-Instruct --chat --prompt-file book.txt --json
///   a2ats generate --model Llama-3.1-8B-Instruct --prompts in.jsonl --out out.jsonl --batch 16
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Generate {
    /// The prompt; without it and --prompt-file, standard input, or the demo model's built-in document.
    prompt: Option<String>,

    /// Read the prompt from a file; - is standard input.
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,

    /// Answer all prompts of a JSON-lines file: {"id", "prompt" or "messages"} in each line, and max_new_tokens,
    /// temperature, top_p, top_k, min_p, repetition_penalty, seed or stop where they differ from the command line's.
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with_all = ["prompt", "prompt_file", "chat"])]
    prompts: Option<PathBuf>,

    /// The file that answers to --prompts are added to, a line for each, in their order; ids that it has already are skipped, so that
    /// a run that was stopped goes on.
    #[arg(long, value_name = "FILE", requires = "prompts")]
    out: Option<PathBuf>,

    /// Most prompts of --prompts to answer at a time: they share each pass over the weights, and the answers do not depend on it.
    #[arg(long, value_name = "N", default_value_t = 8, requires = "prompts")]
    batch: usize,

    /// Put the prompt into the model's chat template, as the user's turn.
    #[arg(long)]
    chat: bool,

    /// The system's turn before it.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,

    /// Print one JSON object, when all is done, instead of text and report.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    model: ModelOptions,

    #[command(flatten)]
    sampling: SamplingArguments,
}

/// What `--json` prints. Shares and speeds are null where there was no step to measure.
#[derive(Serialize)]
struct Report {
    text: String,
    stop: Stop,
    prompt_tokens: usize,
    generated_tokens: usize,
    prefill_tokens_per_second: Option<f64>,
    decode_tokens_per_second: Option<f64>,
    /// Attended tokens over all tokens, mean of decode steps, layers and kv heads.
    attended_share: Option<f64>,
    /// Bytes of KV rows, codewords and sums of values read over the bytes of KV rows that dense attention reads.
    kv_bytes_read_share: Option<f64>,
    kv_bytes_read: u64,
    kv_bytes_dense: u64,
    /// Bytes of sums of values, read to estimate what is not attended.
    estimate_bytes_read: u64,
    attention: &'static str,
    backend: &'static str,
    kv_dtype: String,
    threads: usize,
    model: String,
}

impl Generate {
    pub(super) fn run(&self) -> CommandResult {
        self.sampling.options().validate()?;
        interrupt::listen()?;
        if let (Some(prompts), Some(out)) = (&self.prompts, &self.out) {
            let (model, sampling) = (&self.model, &self.sampling);
            let job = Job { prompts, out, batch: self.batch, json: self.json, model, sampling };
            return with_threads(self.model.threads, || job.run(&Loaded::new(&self.model)?))?;
        }
        let report = with_threads(self.model.threads, || {
            let loaded = Loaded::new(&self.model)?;
            let embedded = self.model.model.is_none();
            let text = prompt::text(self.prompt.as_deref(), self.prompt_file.as_deref(), embedded)?;
            let ids = prompt::tokens(&loaded, &text, self.system.as_deref(), self.chat)?;
            self.answer(&loaded, ids)
        })??;
        let interrupted = report.stop == Stop::Interrupted;
        if self.json {
            print_json(&report)?;
        } else {
            print("\n")?;
            say_report(&report);
        }
        Ok(if interrupted { Outcome::Interrupted } else { Outcome::Done })
    }

    fn answer(&self, loaded: &Loaded, ids: Vec<u32>) -> Result<Report> {
        let mut engine = loaded.engine(&self.model, 1)?;
        let mut text = String::new();
        let end = answer(&mut engine, self.sampling.request(ids), &mut |piece| {
            text.push_str(piece);
            if self.json { Ok(()) } else { print(piece) }
        })?;
        Ok(self.report(loaded, text, &end))
    }

    fn report(&self, loaded: &Loaded, text: String, end: &End) -> Report {
        Report {
            text,
            stop: end.stop,
            prompt_tokens: end.prompt_tokens,
            generated_tokens: end.generated_tokens,
            prefill_tokens_per_second: per_second(end.prompt_tokens, end.prefill),
            decode_tokens_per_second: per_second(end.decode_steps, end.decode),
            attended_share: end.read.attended_share(),
            kv_bytes_read_share: end.read.bytes_share(),
            kv_bytes_read: end.read.bytes(),
            kv_bytes_dense: end.read.dense_bytes,
            estimate_bytes_read: end.read.estimate_bytes,
            attention: loaded.attention.name(),
            backend: loaded.model.kernels().name(),
            kv_dtype: self.model.kv_dtype.to_string(),
            threads: rayon::current_num_threads(),
            model: loaded.name.clone(),
        }
    }
}

/// A speed, where there was something to measure.
pub(super) fn per_second(count: usize, time: Duration) -> Option<f64> {
    (count > 0).then(|| count as f64 / time.as_secs_f64())
}

fn say_report(report: &Report) {
    let speed = |speed: Option<f64>| speed.map_or("no".to_owned(), |speed| format!("{speed:.1}"));
    say(&format!(
        "prompt {} tokens, {} tokens/s; generated {} tokens, {} tokens/s; {} attention, {}, {} threads",
        report.prompt_tokens,
        speed(report.prefill_tokens_per_second),
        report.generated_tokens,
        speed(report.decode_tokens_per_second),
        report.attention,
        report.backend,
        report.threads
    ));
    if let (Some(attended), Some(bytes)) = (report.attended_share, report.kv_bytes_read_share) {
        let rest = if report.estimate_bytes_read > 0 { " and estimated the rest" } else { "" };
        say(&format!(
            "attended {:.1}% of the context{rest}; read {} of KV rows, codewords and sums, {:.1}% of what dense attention reads",
            100.0 * attended,
            human_bytes(report.kv_bytes_read as f64),
            100.0 * bytes
        ));
    }
    match report.stop {
        Stop::Interrupted => say("interrupted"),
        Stop::ContextFull => say("stopped: the context is as long as the model allows"),
        Stop::EndOfSequence | Stop::StopString | Stop::Length => {}
    }
}
