//! The outcome, to print.

use super::{
    backends::{self, Backend},
    coverage,
    finding::Finding,
    listing::Function,
    loops::{self, Loop},
    names, rules,
    syntax::Syntax,
};
use std::{fmt::Write, path::Path};

/// Most failures that are shown without a list: one mistake in a generic kernel is in all that is made of it.
const FAILURES: usize = 20;

/// What was found in one assembly file.
#[derive(Debug)]
pub struct Report {
    file: String,
    findings: Vec<Finding>,
    /// One line per backend.
    summary: String,
    /// One line per inner loop with multiply-adds.
    table: String,
}

impl Report {
    pub(super) fn new(file: &Path, syntax: Syntax, functions: Vec<Function>) -> Self {
        let (backends, wrong) = backends::find(&functions, syntax);
        let mut report = Self {
            file: file.display().to_string(),
            findings: wrong.into_iter().map(|wrong| Finding::of("backends", wrong)).collect(),
            summary: String::new(),
            table: heading(),
        };
        for backend in &backends {
            report.findings.extend(coverage::findings(backend, &functions));
            report.findings.extend(rules::findings(backend, &functions));
            report.list(backend, &functions);
        }
        report.findings.sort_by_key(|finding| finding.warning);
        report
    }

    /// Whether the code is to be refused.
    pub fn failed(&self) -> bool {
        self.findings.iter().any(|finding| !finding.warning)
    }

    /// What was looked at and what is wrong with it; with `list`, all inner loops and warnings as well.
    pub fn text(&self, list: bool) -> String {
        let mut out = if list { format!("{}\n", self.table) } else { String::new() };
        let warnings = self.findings.iter().filter(|finding| finding.warning).count();
        let failures = self.findings.len() - warnings;
        let shown = if list { self.findings.len() } else { failures.min(FAILURES) };
        for finding in &self.findings[..shown] {
            let _ = writeln!(out, "{finding}");
        }
        let _ = write!(out, "{}{failures} failures, {warnings} warnings", self.summary);
        if shown < self.findings.len() {
            out += " (--list shows all)";
        }
        let _ = write!(out, " in {}", self.file);
        out
    }

    fn list(&mut self, backend: &Backend, functions: &[Function]) {
        let owned: Vec<&Function> = functions.iter().filter(|function| backend.owns(function)).collect();
        let loops: Vec<Loop<'_>> =
            owned.iter().flat_map(|function| loops::multiply_add_loops(function)).collect();
        let _ = writeln!(
            self.summary,
            "{}: {} functions, {} inner loops with {} multiply-adds in {} instructions",
            backend.name,
            owned.len(),
            loops.len(),
            loops.iter().map(Loop::multiply_adds).sum::<usize>(),
            loops.iter().map(|one| one.instructions.len()).sum::<usize>(),
        );
        for one in &loops {
            self.table += &row(&backend.name, one);
        }
    }
}

fn heading() -> String {
    format!(
        "{:<10} {:<12} {:>12} {:>13} {:>5} {:>6} {:>6} {:>13}  {}\n",
        "backend",
        "loop",
        "instructions",
        "multiply-adds",
        "loads",
        "stores",
        "spills",
        "other spills",
        "function"
    )
}

/// Numbers are per iteration of the loop as compiled, which may be several of the loop as written.
fn row(backend: &str, one: &Loop<'_>) -> String {
    format!(
        "{:<10} {:<12} {:>12} {:>13} {:>5} {:>6} {:>6} {:>13}  {}\n",
        backend,
        one.header,
        one.instructions.len(),
        one.multiply_adds(),
        one.loads(),
        one.stores(),
        one.select(|line| line.spill && line.effects.vector).len(),
        one.select(|line| line.spill && !line.effects.vector).len(),
        names::short(&one.function.name)
    )
}
