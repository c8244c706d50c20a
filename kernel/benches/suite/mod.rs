//! The benchmarks that every backend runs: one suite, a small program per instruction set, and `roofline` for all.
//!
//! | operation | what is timed | wall |
//! |---|---|---|
//! | `dense_decode` | one query group's attention over all rows, per kv head | memory |
//! | `selective` | the same over retrieved rows of stores laid out by code, 6% of the context | memory |
//! | `codeword_scores` | scores and the newest key's code, one pass over codebooks that no cache holds | memory |
//! | `retrieve` | the codes that each query head takes, and their union, as numbers of tokens by code | - |
//! | `codeword_scores_shared` | the same for 8 sequences that share each pass (with `codeword_scores`) | - |
//! | `sort` | laying 128K tokens out by code, and 8K more with those | - |
//! | `estimate` | the estimate of what is not attended, one pass over sums of values that no cache holds | memory |
//! | `decode_step_estimate` | a step at 128K tokens with that estimate, at 3% and 1% retrieved | - |
//! | `decode_step_averaged` | the same by averaged scores, at 3% | - |
//! | `decode_step_sorting` | the longest of 30 steps through 32 layers while logs are laid out by code, and without | - |
//! | `decode_step_dense`, `decode_step_a2ats` | a whole step of one layer, 1K to 1M tokens | - |
//! | `matvec`, `matmul` | products of bf16 weights | memory, arithmetic |
//! | `prefill_attention` | causal attention of a chunk of queries over a long past | arithmetic |

mod attention;
mod bench;
mod check;
mod codewords;
mod contexts;
mod estimate;
mod machine;
mod options;
mod peaks;
mod prefill;
mod products;
mod report;
mod results;
mod steps;
mod table;
mod timing;

use a2ats_kernel::available;
use bench::Bench;
use clap::Parser;
use options::Options;
use std::process::ExitCode;

/// Runs the suite on those of `backends` that this CPU has: what each benchmark program does.
pub fn run(backends: &[&str]) -> ExitCode {
    let options = Options::parse();
    let wanted = |name: &str| {
        backends.contains(&name) && (options.isa.is_empty() || options.isa.iter().any(|isa| isa == name))
    };
    let kernels: Vec<_> = available().into_iter().filter(|kernels| wanted(kernels.name())).collect();
    if kernels.is_empty() {
        eprintln!("this CPU, or this architecture, runs none of: {}", backends.join(", "));
        return ExitCode::FAILURE;
    }
    let mut bench = Bench::new(options, kernels);
    attention::dense_decode(&mut bench);
    attention::cached_decode(&mut bench);
    attention::selective(&mut bench);
    codewords::codeword_scores(&mut bench);
    codewords::retrieve(&mut bench);
    codewords::sort(&mut bench);
    estimate::estimate(&mut bench);
    products::matvec(&mut bench);
    products::matmul(&mut bench);
    prefill::prefill_attention(&mut bench);
    steps::decode_steps(&mut bench);
    bench.finish()
}
