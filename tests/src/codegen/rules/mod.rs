//! The rules that a backend's functions have to follow.

mod inlining;
mod inner_loops;

use super::{backends::Backend, finding::Finding, listing::Function, loops};

/// Everything that is to be said about a backend's functions.
pub(super) fn findings(backend: &Backend, functions: &[Function]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = inlining::callbacks(backend, functions).into_iter().collect();
    for function in functions.iter().filter(|function| backend.owns(function)) {
        findings.extend(inlining::findings(backend, function));
        for found in loops::multiply_add_loops(function) {
            findings.extend(inner_loops::findings(backend, &found));
        }
    }
    findings
}
