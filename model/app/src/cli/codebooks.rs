//! `a2ats codebooks`: what can be done with codebook files.

use super::{CommandResult, Outcome, load::Base, options::Weights, output::say, quality::Show};
use a2ats_model::{
    codebooks::import::{Source, import},
    lab::calibrate::merge::{merge, read_report},
};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Look at codebook files, put shares of them together, bring in those of the published code.
#[derive(Subcommand)]
pub(super) enum Codebooks {
    Inspect(Inspect),
    Merge(Merge),
    Import(Import),
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

/// Bring codebooks of the published code into this program's format.
///
/// PyTorch files are read as data; nothing in them is executed.
///
/// Examples:
///   a2ats codebooks import llama-codebooks.pt llama-cholesky_factors.pt --model DIR --out books
///   a2ats codebooks import codebooks_reference.safetensors --model DIR --out books
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Import {
    /// One .safetensors file in the reference form, or the pair …-codebooks.pt and …-cholesky_factors.pt.
    #[arg(required = true)]
    files: Vec<PathBuf>,

    /// The folder of the model that they were made for.
    #[arg(long, short, value_name = "DIR")]
    model: PathBuf,

    /// The position that queries were rotated to.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    relative_position: usize,

    /// The codebook file to write.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
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
            Self::Import(Import { files, model, relative_position, out }) => {
                let source = Source::from_names(files)?;
                let base = Base::new(Some(model), Weights::Map)?;
                import(base.model.owner(), &source, *relative_position, out)?;
                say(&format!("{}: codebooks of {}", out.display(), base.name));
            }
        }
        Ok(Outcome::Done)
    }
}
