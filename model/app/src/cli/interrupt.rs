//! Ctrl-C: the first one asks the work to stop and report, the second one ends the program.

use a2ats_model::{Error, Result};
use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Starts listening.
pub(super) fn listen() -> Result<()> {
    let note = || {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(super::INTERRUPTED.into());
        }
    };
    ctrlc::set_handler(note).map_err(|error| Error::io("Ctrl-C handler")(std::io::Error::other(error)))
}

/// Whether the work should stop.
pub(super) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// The same, as loops like it.
pub(super) fn flow() -> ControlFlow<()> {
    if requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Forgets a Ctrl-C that has been acted on.
pub(super) fn clear() {
    REQUESTED.store(false, Ordering::Relaxed);
}
