//! The command line that all benchmark programs share.

use clap::{Parser, builder::PossibleValuesParser};
use std::path::PathBuf;

/// What can be timed, by the names that results have.
const OPERATIONS: [&str; 15] = [
    "dense_decode",
    "cached_decode",
    "selective",
    "codeword_scores",
    "retrieve",
    "sort",
    "matvec",
    "matmul",
    "prefill_attention",
    "decode_step_dense",
    "decode_step_a2ats",
    "decode_step_estimate",
    "decode_step_averaged",
    "decode_step_sorting",
    "estimate",
];

/// Times the kernels beside the walls that this machine sets: how fast its memory is read, how fast it multiplies.
///
/// Every result is checked against the f64 reference before it is timed. Ratios are taken within one run and are what
/// to compare; times are not, on a machine that does anything else.
#[derive(Debug, Clone, Parser)]
#[command(name = "roofline")]
pub struct Options {
    /// Fewer samples and no context above 128K: ends within a minute.
    #[arg(long)]
    pub quick: bool,
    /// Operations to time, separated by commas; all of them without it.
    #[arg(long, value_delimiter = ',', value_name = "OPERATION", value_parser = PossibleValuesParser::new(OPERATIONS))]
    pub only: Vec<String>,
    /// Backends to time, separated by commas; all that this program was made for without it.
    #[arg(long, value_delimiter = ',', value_name = "ISA")]
    pub isa: Vec<String>,
    /// What "all threads" means; all that the machine has without it.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Writes the run to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the run to this file as a page with figures (HTML).
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Writes the figures alone to this file (SVG).
    #[arg(long, value_name = "FILE")]
    pub figure: Option<PathBuf>,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Whether an operation is to be timed.
    pub fn wants(&self, operation: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == operation)
    }
}
