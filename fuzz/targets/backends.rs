//! The backends that targets run.

use a2ats_kernel::{Kernels, available};
use std::sync::OnceLock;

/// The backends of this CPU, named once in the output: what a run did not cover should be seen.
pub(crate) fn backends() -> &'static [&'static dyn Kernels] {
    static BACKENDS: OnceLock<Vec<&dyn Kernels>> = OnceLock::new();
    BACKENDS.get_or_init(|| {
        let backends = available();
        eprintln!("backends: {backends:?}");
        backends
    })
}
