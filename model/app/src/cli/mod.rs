//! The command line: parse, call the library, print. Nothing is computed here.

mod answer;
mod calibrate;
mod chat;
mod codebooks;
mod device;
mod generate;
mod heat_map;
mod info;
mod interrupt;
mod load;
mod options;
mod output;
mod progress;
mod prompt;
mod prompts;
mod quality;

use a2ats_model::{Error, Result};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Long-context Llamas on a CPU: each token reads a few percent of the KV cache, chosen by query-aware codes.
///
/// Without --model every command uses a tiny embedded model that answers questions about a ledger of several thousand
/// tokens, so that `a2ats generate` alone shows the whole thing working. A2ATS_ISA=avx512bf16|avx512|avx2|neon|portable
/// forces an instruction set.
#[derive(Parser)]
#[command(name = "a2ats", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Generate(generate::Generate),
    Chat(chat::Chat),
    Info(info::Info),
    Calibrate(calibrate::Calibrate),
    #[command(subcommand)]
    Codebooks(codebooks::Codebooks),
}

/// Exit code of wrong arguments, as clap's own.
const USAGE: u8 = 2;

/// Exit code after Ctrl-C, as shells expect it.
const INTERRUPTED: u8 = 130;

/// Runs the command that the program's arguments name.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(unix)]
    a2ats_model::files::end_when_truncated("a2ats: ");
    let outcome = match cli.command {
        Command::Generate(command) => command.run(),
        Command::Chat(command) => command.run(),
        Command::Info(command) => command.run(),
        Command::Calibrate(command) => command.run(),
        Command::Codebooks(command) => command.run(),
    };
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::say_error(&error);
            match error {
                Error::Usage(_) => ExitCode::from(USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// How a command that did not fail ended.
enum Outcome {
    Done,
    Interrupted,
}

type CommandResult = Result<Outcome>;
