//! `a2ats codebooks`: what can be done with codebook files.

use super::{CommandResult, Outcome, output::say, quality::Show};
use a2ats_model::calibrate::merge::{merge, read_report};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Look at codebook files, and put shares of them together.
#[derive(Subcommand)]
pub(super) enum Codebooks {
    Inspect(Inspect),
    Merge(Merge),
}

/// Show how a codebook file was made, and how good it is.
#[derive(Args)]
pub(super) struct Inspect {
    /// A file that `a2ats calibrate` wrote.
    file: PathBuf,

    #[command(flatten)]
    show: Show,
}

/// Put together what `a2ats calibrate --layers A..B` made of one model's layers.
///
/// Example:
///   a2ats codebooks merge share-*.safetensors --out Llama-3.1-8B/codebooks.safetensors
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Merge {
    /// The shares, in any order.
    #[arg(required = true)]
    files: Vec<PathBuf>,

    /// The codebook file to write.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,

    #[command(flatten)]
    show: Show,
}

impl Codebooks {
    pub(super) fn run(&self) -> CommandResult {
        match self {
            Self::Inspect(Inspect { file, show }) => show.show(&read_report(file)?)?,
            Self::Merge(Merge { files, out, show }) => {
                let report = merge(files, out)?;
                show.show(&report)?;
                let layers = report.settings.layers;
                say(&format!("{}: codebooks of layers {}..{}", out.display(), layers.start, layers.end));
            }
        }
        Ok(Outcome::Done)
    }
}
