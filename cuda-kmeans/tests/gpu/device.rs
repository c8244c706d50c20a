//! The GPU that tests run on.

use a2ats_cuda_kmeans::{CudaClusterer, DeviceError, driver};
use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Whether it is a real one.
fn is_real() -> bool {
    std::env::var_os("A2ATS_TEST_GPU").is_some_and(|value| value == "1")
}

/// A number for the emulated GPU, or one for a real GPU, which is some thousand times as fast.
pub fn sized<T>(emulated: T, real: T) -> T {
    if is_real() { real } else { emulated }
}

/// The emulator, where cargo puts it: beside the tests.
fn emulator() -> PathBuf {
    let name = format!("{}emulated_cuda{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    std::env::current_exe().unwrap().with_file_name(name)
}

fn load() {
    if is_real() {
        driver::load().unwrap();
    } else {
        driver::load_from(&emulator()).unwrap();
    }
}

/// The GPU, with all its memory.
pub fn gpu() -> &'static CudaClusterer {
    static GPU: OnceLock<CudaClusterer> = OnceLock::new();
    GPU.get_or_init(|| {
        load();
        CudaClusterer::new(0).unwrap()
    })
}

/// The GPU as if it had so many bytes.
pub fn gpu_with(bytes: usize) -> CudaClusterer {
    load();
    CudaClusterer::with_memory(0, bytes).unwrap()
}

#[test]
fn what_is_no_driver_is_named() {
    // Loaded once, a driver stays: only where there is none yet can this go wrong.
    let error = std::thread::spawn(|| driver::load_from(Path::new("/nowhere/libcuda.so.1"))).join().unwrap();
    if let Err(error) = error {
        assert!(matches!(error, DeviceError::NoDriver { .. }));
        assert!(error.to_string().contains("/nowhere/libcuda.so.1"), "{error}");
    }
}

#[test]
fn a_number_beyond_the_last_is_refused() {
    load();
    let error = CudaClusterer::new(99).map(|_| ()).unwrap_err();
    assert!(matches!(error, DeviceError::NoSuchDevice { ordinal: 99, .. }), "{error}");
}
