//! What the check has to say.

use super::{
    backends::Backend,
    listing::{Function, Instruction},
    loops::Loop,
    names,
};
use std::fmt;

/// Most lines of assembly that a finding shows.
const LINES: usize = 6;

/// Something that is wrong, or worth a look.
#[derive(Debug)]
pub(super) struct Finding {
    /// Worth a look, but no reason to refuse the code.
    pub(super) warning: bool,
    /// Backend, function and loop, as far as it is about one.
    place: String,
    what: String,
    /// The lines of the assembly that show it.
    lines: Vec<(usize, String)>,
}

impl Finding {
    /// A failure of something as a whole.
    pub(super) fn of(place: &str, what: impl Into<String>) -> Self {
        Self { warning: false, place: place.to_owned(), what: what.into(), lines: Vec::new() }
    }

    /// A warning about several functions of a backend.
    pub(super) fn of_functions(backend: &Backend, what: &str, functions: &[&Function]) -> Self {
        let line = |function: &Function| function.instructions().next().map_or(0, |first| first.line);
        let lines = functions.iter().map(|function| (line(function), names::short(&function.name))).collect();
        Self { warning: true, place: backend.name.clone(), what: what.to_owned(), lines }
    }

    /// A failure in a function, with lines and what is to be said about each.
    pub(super) fn in_function(
        backend: &Backend,
        name: &str,
        what: impl Into<String>,
        lines: Vec<(usize, String)>,
    ) -> Self {
        let place = format!("{}: {}", backend.name, names::short(name));
        Self { warning: false, place, what: what.into(), lines }
    }

    /// A failure in a loop.
    pub(super) fn in_loop(backend: &Backend, at: &Loop<'_>, what: &str, lines: &[&Instruction]) -> Self {
        let what = format!("loop {} of {} instructions: {what}", at.header, at.instructions.len());
        Self::in_function(backend, &at.function.name, what, text_of(lines))
    }

    /// The same as a warning, if there is a reason for leniency.
    pub(super) fn lenient(self, warning: bool) -> Self {
        Self { warning, ..self }
    }
}

/// Lines as they are in the file.
pub(super) fn text_of(lines: &[&Instruction]) -> Vec<(usize, String)> {
    lines.iter().map(|line| (line.line, line.text.clone())).collect()
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.warning { "warning" } else { "failure" };
        write!(out, "{kind}: {}: {}", self.place, self.what)?;
        for (line, text) in self.lines.iter().take(LINES) {
            write!(out, "\n    line {line}: {text}")?;
        }
        match self.lines.len().checked_sub(LINES) {
            Some(more @ 1..) => write!(out, "\n    and {more} more"),
            _ => Ok(()),
        }
    }
}
