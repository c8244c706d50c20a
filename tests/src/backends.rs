//! The backends that a test runs on: every one that this CPU has, and a word about the ones it has not.

use a2ats_kernel::{Kernels, available};

/// All backends of any architecture, best first.
pub const ALL: [&str; 6] = ["avx512bf16", "avx512", "avx2", "neonbf16", "neon", "portable"];

/// Runs `check` on every available backend and says, in the test's output, which ones it could not run on.
pub fn on_every_backend(check: impl FnMut(&'static dyn Kernels)) {
    on_backends(None, check);
}

/// The environment variable that says which backends the recorded runs are replayed on, separated by commas: under
/// emulation a replay takes minutes.
pub const REPLAY_ON: &str = "A2ATS_REPLAY_ON";

/// Runs `check` on every available backend, or on those of them that [`REPLAY_ON`] names.
pub fn on_backends_to_replay(check: impl FnMut(&'static dyn Kernels)) {
    on_backends(std::env::var(REPLAY_ON).ok(), check);
}

fn on_backends(only: Option<String>, mut check: impl FnMut(&'static dyn Kernels)) {
    let available = available();
    for name in ALL {
        match available.iter().find(|kernels| kernels.name() == name) {
            Some(_) if only.as_ref().is_some_and(|only| only.split(',').all(|other| other != name)) => {
                eprintln!("not run on {name}: {REPLAY_ON} leaves it out");
            }
            Some(kernels) => check(*kernels),
            None => eprintln!("not run on {name}: this CPU or architecture does not have it"),
        }
    }
}
