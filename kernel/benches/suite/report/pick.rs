//! Which measurements are shown where, and in which order.

use super::targets;
use crate::suite::results::{Measurement, Run};

/// Backends from the widest instructions to none.
const BACKENDS: [&str; 6] = ["avx512bf16", "avx512", "avx2", "neonbf16", "neon", "portable"];

/// Operations that are drawn over the length of the context, not as bars.
pub const DENSE_STEP: &str = "decode_step_dense";
/// See [`DENSE_STEP`].
pub const A2ATS_STEP: &str = "decode_step_a2ats";

/// The first measurement of each operation, backend and number of threads: the shape that everything is compared at.
pub fn headlines(run: &Run) -> Vec<&Measurement> {
    let mut first: Vec<&Measurement> = Vec::new();
    for result in run.results.iter().filter(|result| !is_step(result)) {
        if !first.iter().any(|other| same_kind(result, other)) {
            first.push(result);
        }
    }
    first
}

/// What has a share of the roofline but is neither in [`headlines`] nor a step.
pub fn others(run: &Run) -> Vec<&Measurement> {
    let headlines = headlines(run);
    let is_headline = |result: &Measurement| headlines.iter().any(|first| std::ptr::eq(*first, result));
    let is_other =
        |result: &&Measurement| result.roofline_ratio.is_some() && !is_step(result) && !is_headline(result);
    run.results.iter().filter(is_other).collect()
}

/// The operations of some measurements: those with targets first, the others as they come.
pub fn operations<'a>(results: &[&'a Measurement]) -> Vec<&'a str> {
    let measured = distinct(results.iter().map(|result| result.operation.as_str()));
    let rank = |name: &str| targets::operations().position(|known| known == name).unwrap_or(usize::MAX);
    sorted_by(measured, rank)
}

/// The backends of some measurements in the order of [`BACKENDS`], unknown ones last.
pub fn backends<'a>(results: &[&'a Measurement]) -> Vec<&'a str> {
    sorted_by(distinct(results.iter().map(|result| result.backend.as_str())), backend_rank)
}

/// A backend's place in [`BACKENDS`], or behind it.
pub fn backend_rank(name: &str) -> usize {
    BACKENDS.iter().position(|known| *known == name).unwrap_or(BACKENDS.len())
}

/// The style of a backend.
pub fn backend_class(name: &str) -> &'static str {
    BACKENDS.get(backend_rank(name)).copied().unwrap_or("other")
}

/// Whether it is one of the two.
pub fn is_step(result: &Measurement) -> bool {
    [DENSE_STEP, A2ATS_STEP].contains(&result.operation.as_str())
}

fn same_kind(a: &Measurement, b: &Measurement) -> bool {
    a.operation == b.operation && a.backend == b.backend && a.threads == b.threads
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

fn sorted_by(mut names: Vec<&str>, rank: impl Fn(&str) -> usize) -> Vec<&str> {
    names.sort_by_key(|name| rank(name));
    names
}
