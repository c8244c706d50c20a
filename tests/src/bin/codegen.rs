//! Checks the assembly of the kernels: nothing left to be called in the inner loops, and no registers spilled there.

use a2ats_tests::codegen;
use clap::Parser;
use std::process::ExitCode;

/// Compile the kernels to assembly and check their inner loops; see the documentation of the module `codegen`.
#[derive(Parser)]
struct Arguments {
    /// Target triple to compile for, instead of this machine's.
    #[arg(long)]
    target: Option<String>,
    /// Print every inner loop with multiply-adds, numbers per iteration, and all warnings.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match codegen::check(arguments.target.as_deref()) {
        Ok(report) => {
            println!("{}", report.text(arguments.list));
            if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(problem) => {
            eprintln!("codegen: {problem}");
            ExitCode::FAILURE
        }
    }
}
