//! Replays a golden folder on every available backend and prints how far each is from what was recorded.

use a2ats_kernel::{Dtype, available, decode::Estimate};
use a2ats_tests::{
    golden::Golden,
    replay::{Outcome, Storage, replay},
};
use clap::Parser;
use std::{path::PathBuf, process::ExitCode};

/// Replay a recorded run of the published code on every backend of this CPU and compare every figure.
#[derive(Parser)]
struct Arguments {
    /// Folder in the golden format: a Hugging Face model with codebooks_reference.safetensors, reference.json and
    /// expected.safetensors.
    folder: PathBuf,
    /// Print an array of objects, one per backend.
    #[arg(long)]
    json: bool,
    /// Storage type of the KV rows: f32, f16 or bf16.
    #[arg(long, default_value = "f32")]
    kv_dtype: Dtype,
    /// Storage type of the codewords: f32, f16 or bf16.
    #[arg(long, default_value = "f32")]
    codeword_dtype: Dtype,
    /// Estimate what is not attended, and compare with expected_tail.safetensors.
    #[arg(long)]
    estimate: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match outcomes(&arguments).and_then(|outcomes| print(&outcomes, arguments.json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("replay: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn outcomes(arguments: &Arguments) -> Result<Vec<Outcome>, String> {
    let golden = Golden::load(&arguments.folder)?;
    let storage = Storage { kv: arguments.kv_dtype, codewords: arguments.codeword_dtype };
    let estimate = if arguments.estimate { Estimate::Fixed } else { Estimate::Off };
    available()
        .into_iter()
        .map(|kernels| replay(&golden, kernels, storage, estimate).map_err(|error| error.to_string()))
        .collect()
}

fn print(outcomes: &[Outcome], json: bool) -> Result<(), String> {
    if json {
        println!("{}", serde_json::to_string_pretty(outcomes).map_err(|error| error.to_string())?);
        return Ok(());
    }
    println!(
        "{:<11} {:<6} {:<9} {:>11} {:>11} {:>10} {:>8} {:>9} {:>9} {:>9}",
        "backend",
        "kv",
        "codewords",
        "logit error",
        "dense error",
        "from dense",
        "argmax",
        "codes",
        "union",
        "expected"
    );
    for outcome in outcomes {
        println!(
            "{:<11} {:<6} {:<9} {:>11.2e} {:>11} {:>10.4} {:>8.4} {:>9.6} {:>9.6} {:>9.6}",
            outcome.backend,
            outcome.kv_dtype,
            outcome.codeword_dtype,
            outcome.relative_logit_error,
            outcome.dense_relative_logit_error.map_or_else(String::new, |error| format!("{error:.2e}")),
            outcome.relative_distance_from_dense,
            outcome.argmax_agreement,
            outcome.code_agreement,
            outcome.union_fraction,
            outcome.expected_union_fraction
        );
    }
    Ok(())
}
