//! What can be wrong with PTX, and with what it does.

use std::fmt;

/// PTX that this does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Line of the PTX, from one.
    pub line: u32,
    /// What the line says.
    pub text: String,
    /// Why it is refused.
    pub why: String,
}

impl Refusal {
    /// A refusal of a line whose text is not known yet.
    pub(crate) fn new(line: u32, why: impl Into<String>) -> Self {
        Self { line, text: String::new(), why: why.into() }
    }

    /// The same with the text of its line.
    pub(crate) fn of(mut self, source: &str) -> Self {
        self.text = line_of(source, self.line).to_owned();
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {} `{}`: {}", self.line, self.text, self.why)
    }
}

impl std::error::Error for Refusal {}

/// The text of a line.
pub(crate) fn line_of(source: &str, line: u32) -> &str {
    source.lines().nth((line as usize).saturating_sub(1)).unwrap_or("").trim()
}

/// Errors of CUDA that a kernel ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// An address that is not the kernel's.
    IllegalAddress,
    /// An address that is not a multiple of the size of what is accessed.
    Misaligned,
    /// All else.
    LaunchFailed,
}

/// What was wrong at an instruction.
#[derive(Debug, Clone)]
pub(crate) struct Wrong {
    pub(crate) status: Status,
    pub(crate) what: String,
}

impl Wrong {
    /// A launch failure. Boxed, as it is rare and results should be small.
    pub(crate) fn failed(what: impl Into<String>) -> Box<Self> {
        Box::new(Self { status: Status::LaunchFailed, what: what.into() })
    }

    /// An illegal address.
    pub(crate) fn illegal(what: impl Into<String>) -> Box<Self> {
        Box::new(Self { status: Status::IllegalAddress, what: what.into() })
    }

    /// A misaligned address.
    pub(crate) fn misaligned(address: u64, size: usize) -> Box<Self> {
        let what = format!("address {address:#x} is not aligned to the {size} bytes that are accessed");
        Box::new(Self { status: Status::Misaligned, what })
    }
}

/// Why a kernel was stopped.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The error of CUDA.
    pub status: Status,
    /// The kernel.
    pub kernel: String,
    /// The block.
    pub block: [u32; 3],
    /// The thread in its block.
    pub thread: [u32; 3],
    /// Line of the PTX, from one.
    pub line: u32,
    /// What the line says.
    pub text: String,
    /// What was wrong.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, block, thread, line, text, what, .. } = self;
        write!(f, "kernel `{kernel}`, block {block:?}, thread {thread:?}, PTX line {line} `{text}`: {what}")
    }
}

impl std::error::Error for Fault {}
