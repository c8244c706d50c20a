//! All kv heads, as many at a time as the clusterer wants.

use super::{HeadReport, Progress, head::Head, recorder::lock};
use crate::error::{Error, Result};
use a2ats_kernel::clustering::{self, Clusterer};
use std::{ops::ControlFlow, sync::Mutex};

/// What the threads share.
struct Shared<'a> {
    /// The first head that nobody has begun.
    next: usize,
    done: usize,
    reports: Vec<Option<HeadReport>>,
    /// No head is begun any more, and those that are break off.
    stopped: bool,
    error: Option<Error>,
    keep_on: &'a mut (dyn FnMut(Progress) -> ControlFlow<()> + Send),
}

/// Finishes all heads, in their order. Nothing if `keep_on` breaks off.
pub(super) fn finish(
    heads: &[Head<'_>],
    clusterer: &dyn Clusterer,
    keep_on: &mut (dyn FnMut(Progress) -> ControlFlow<()> + Send),
) -> Result<Option<Vec<HeadReport>>> {
    let reports = vec![None; heads.len()];
    let shared = Mutex::new(Shared { next: 0, done: 0, reports, stopped: false, error: None, keep_on });
    let workers = clusterer.at_a_time().min(rayon::current_num_threads()).min(heads.len());
    rayon::in_place_scope(|scope| {
        for _ in 1..workers {
            scope.spawn(|_| finish_some(heads, clusterer, &shared));
        }
        finish_some(heads, clusterer, &shared);
    });
    let shared = shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    match shared.error {
        Some(error) => Err(error),
        None => Ok(shared.reports.into_iter().collect()),
    }
}

/// Takes the next head until there is none.
fn finish_some(heads: &[Head<'_>], clusterer: &dyn Clusterer, shared: &Mutex<Shared<'_>>) {
    let next = || {
        let mut shared = lock(shared);
        let number = shared.next;
        shared.next += 1;
        (!shared.stopped && number < heads.len()).then_some(number)
    };
    while let Some(number) = next() {
        let mut step = |step| tell(&mut lock(shared), heads.len(), step);
        let finished = heads[number].finish(clusterer, &mut step);
        let mut shared = lock(shared);
        match finished {
            Ok(Some(report)) => {
                shared.reports[number] = Some(report);
                shared.done += 1;
            }
            Ok(None) => shared.stopped = true,
            Err(error) => {
                shared.stopped = true;
                shared.error.get_or_insert(error);
            }
        }
    }
}

/// Tells about a step, unless there is no going on.
fn tell(shared: &mut Shared<'_>, of: usize, step: clustering::Progress) -> ControlFlow<()> {
    if !shared.stopped {
        shared.stopped = (shared.keep_on)(Progress::Clustering { heads: shared.done, of, step }).is_break();
    }
    if shared.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
