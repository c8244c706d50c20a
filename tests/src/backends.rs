//! The backends that a test runs on: every one that this CPU has, and a word about the ones it has not.

use a2ats_kernel::{Kernels, available};

/// All backends of any architecture, best first.
pub const ALL: [&str; 5] = ["avx512bf16", "avx512", "avx2", "neon", "portable"];

/// Runs `check` on every available backend and says, in the test's output, which ones it could not run on.
pub fn on_every_backend(mut check: impl FnMut(&'static dyn Kernels)) {
    let available = available();
    for name in ALL {
        match available.iter().find(|kernels| kernels.name() == name) {
            Some(kernels) => check(*kernels),
            None => eprintln!("not run on {name}: this CPU or architecture does not have it"),
        }
    }
}
