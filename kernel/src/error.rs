//! The one error type of the kernels: a request whose shapes or values do not fit together.

/// Why a kernel refused its arguments. Nothing was computed and no state changed, unless a function says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice has another length than the shapes it was given with require.
    #[error("{what} has {got} elements where its shape needs {need}")]
    Length {
        /// Which argument.
        what: &'static str,
        /// Its length in elements.
        got: usize,
        /// The length that the other arguments imply.
        need: usize,
    },
    /// A size is outside what the kernels are written for.
    #[error("{what} is {got}; supported: {supported}")]
    Unsupported {
        /// Which size.
        what: &'static str,
        /// Its value.
        got: String,
        /// The values that work.
        supported: &'static str,
    },
    /// A token position lies outside the rows of the cache, or out of order.
    #[error("position {position} is not valid here: {need}")]
    Position {
        /// The position.
        position: usize,
        /// What a valid position is.
        need: String,
    },
    /// `A2ATS_ISA`, or the caller, named a backend that this program does not have or this CPU cannot run.
    #[error("backend '{name}' {why}; available here: {available}")]
    Backend {
        /// The name asked for.
        name: String,
        /// Whether it is unknown or only unavailable.
        why: &'static str,
        /// The names that would work, best first.
        available: String,
    },
    /// The operating system did not give the memory.
    #[error("cannot reserve {bytes} bytes of memory: {reason}")]
    Memory {
        /// How much was asked for.
        bytes: usize,
        /// What the operating system said.
        reason: String,
    },
    /// A device other than the CPU failed, or has too little memory.
    #[error("{device}: {reason}")]
    Device {
        /// Its name.
        device: String,
        /// What it, or its driver, said, and what helps.
        reason: String,
    },
}

/// The result of every kernel.
pub type Result<T> = std::result::Result<T, Error>;

/// Checks the length of a slice against what its shape needs.
pub(crate) fn expect_len(what: &'static str, got: usize, need: usize) -> Result<()> {
    if got == need { Ok(()) } else { Err(Error::Length { what, got, need }) }
}
