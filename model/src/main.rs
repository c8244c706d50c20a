//! The `a2ats` command.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
