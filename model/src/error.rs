//! One error type for everything that can go wrong between a command line and a token.

use std::path::{Path, PathBuf};

/// What went wrong. Each message names the file or the value at fault and what to do about it, in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file was read but cannot be used.
    #[error("{}: {problem}; {remedy}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, with the value at fault.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// An argument or option has a value that cannot be used.
    #[error("{0}")]
    Usage(String),
    /// A request that this machine's memory, or the model's context length, does not allow.
    #[error("{0}")]
    TooLarge(String),
    /// The computation itself went wrong: infinite or undefined numbers came out of the model.
    #[error("{0}")]
    Numerics(String),
    /// The kernels refused their arguments.
    #[error(transparent)]
    Kernel(#[from] a2ats_kernel::Error),
}

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A file that was read but cannot be used: what is wrong with it, and what to do.
    pub fn file(file: impl AsRef<Path>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::File { file: file.as_ref().to_owned(), problem: problem.into(), remedy: remedy.into() }
    }

    /// For `map_err`: attaches the file's name to an error of the operating system.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.as_ref().to_owned(), source }
    }
}
