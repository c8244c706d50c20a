//! Measures how far sparse attention is from dense attention by what it reads, with and without the estimate of the rest, on the
//! demo model: what docs/estimate.svg and docs/estimate.md show.

use a2ats_kernel::{Dtype, clustering::CpuClusterer, decode::Estimate, select};
use a2ats_model::{
    Codebooks, Error, Model, Result,
    demo::{self, ledgers::Ledgers},
    lab::calibrate::{self, calibrate, text::Collector},
    text::tokenizer::Tokenizer,
};
use a2ats_tests::attention_error::{Figure, Projections, Way, draw, measure, write_table};
use clap::Parser;
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Measure how far sparse attention is from dense attention, by what it reads, with and without an estimate of the rest.
///
/// Makes codebooks of each size from the demo model's own ledgers (some minutes), decodes the ends of other ledgers, and writes
/// a table (estimate.md) and a picture (estimate.svg).
#[derive(Parser)]
struct Arguments {
    /// Folder to write to.
    #[arg(default_value = "docs")]
    out: PathBuf,
    /// Codewords per kv head.
    #[arg(long, value_delimiter = ',', default_values_t = [256, 1024, 4096])]
    codewords: Vec<usize>,
    /// Tokens of the contexts.
    #[arg(long, value_delimiter = ',', default_values_t = [2048, 4096, 8192, 16384])]
    contexts: Vec<usize>,
    /// Shares of the context that each query head retrieves.
    #[arg(long, value_delimiter = ',', default_values_t = [0.001, 0.003, 0.01, 0.03, 0.1])]
    shares: Vec<f64>,
}

/// The seed of the ledgers that are measured on; codebooks are made from others.
const SEED: u64 = 20_000;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("attention_error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (model, tokenizer) = (demo::model(select()?)?, demo::tokenizer()?);
    let work = tempfile::tempdir()?;
    let mut books = Vec::new();
    for &codewords in &arguments.codewords {
        eprintln!("making {codewords} codewords per kv head");
        books.push(make_books(&model, &tokenizer, codewords, work.path())?);
    }
    let mut figures: Vec<Figure> = Vec::new();
    for &tokens in &arguments.contexts {
        eprintln!("measuring {tokens} tokens");
        let projections = Projections::new(&model, &context(&tokenizer, tokens)?)?;
        for (books, &codewords) in books.iter().zip(&arguments.codewords) {
            for &retrieve in &arguments.shares {
                for estimate in [Estimate::Off, Estimate::Fixed, Estimate::Averaged] {
                    figures.extend(measure(
                        &model,
                        books,
                        &projections,
                        Way { codewords, retrieve, estimate },
                    )?);
                }
            }
        }
    }
    std::fs::write(arguments.out.join("estimate.md"), page(&figures))?;
    draw(&figures, &arguments.out.join("estimate.svg"))
}

/// Codebooks from the first ledgers of another seed.
fn make_books(model: &Model, tokenizer: &Tokenizer, codewords: usize, work: &Path) -> Result<Codebooks> {
    let mut collector = Collector::new(model, tokenizer, 65536);
    let mut ledgers = Ledgers::new(0)?;
    while !collector.is_full() {
        collector.add(&ledgers.next_ledger())?;
    }
    collector.add_uuids(16384, 0)?;
    let layers = 0..model.spec().num_hidden_layers;
    let settings =
        calibrate::Settings { codewords, relative_position: 2048, iterations: 300, seed: 0, layers };
    let out = work.join(format!("{codewords}.safetensors"));
    let clusterer = CpuClusterer { kernels: model.kernels() };
    calibrate(model, &collector.finish(), &settings, &clusterer, &out, &mut |_| ControlFlow::Continue(()))?;
    Codebooks::open(&out, model.owner(), Dtype::F16)
}

/// The last tokens of as many ledgers as it takes: questions and answers at the end.
fn context(tokenizer: &Tokenizer, tokens: usize) -> Result<Vec<u32>> {
    let mut ledgers = Ledgers::new(SEED)?;
    let mut ids = Vec::new();
    while ids.len() < tokens {
        ids.extend(
            tokenizer
                .encode(&ledgers.next_ledger(), false)
                .map_err(|error| Error::Usage(error.to_string()))?,
        );
    }
    Ok(ids.split_off(ids.len() - tokens))
}

fn page(figures: &[Figure]) -> String {
    format!(
        "<!-- Written by `cargo run --release -p a2ats-tests --bin attention_error`. -->\n\n\
         # Error of the attention output by what is read\n\n\
         ‖sparse − dense‖ / ‖dense‖ over the attention outputs of a layer of the demo model, for the last 32 tokens of \
         ledgers, all layers with the inputs that dense attention gives them; bytes are those of rows in bf16, codewords in \
         f16 and quantized sums of values, of a layer and step. “Estimate” is that of the rest, “averaged” the \
         one by scores averaged over all distances, which reads as much.\n\n\
         ![Error over bytes](estimate.svg)\n{}",
        write_table(figures)
    )
}
