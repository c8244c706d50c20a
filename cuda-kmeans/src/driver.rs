//! The driver's functions, found when the program runs.
//!
//! `cust` declares them and expects the linker to find `libcuda`; a program linked like that does not start where there is no driver.
//! Here each is defined, and goes on to the one of the library of that name that [`load`] has opened.

#![allow(unsafe_code, reason = "these are calls into a C library")]

use crate::error::DeviceError;
use cust::sys;
use libloading::Library;
use std::{
    ffi::{c_char, c_int, c_uchar, c_uint, c_void},
    path::Path,
    sync::OnceLock,
};

/// The name that NVIDIA's drivers install it under.
const LIBRARY: &str = "libcuda.so.1";

/// CUDA_ERROR_NOT_INITIALIZED
const NOT_LOADED: c_uint = 3;

/// CUDA_ERROR_UNKNOWN
const UNKNOWN: c_uint = 999;

static DRIVER: OnceLock<Functions> = OnceLock::new();

/// Opens the system's driver library, if none is open yet.
///
/// # Errors
/// [`DeviceError::NoDriver`] if there is none, or a function is missing.
pub fn load() -> Result<(), DeviceError> {
    load_from(Path::new(LIBRARY))
}

/// Opens another library, if none is open yet: one that emulates a GPU, say.
///
/// # Errors
/// [`DeviceError::NoDriver`] if it cannot be opened, or a function is missing.
pub fn load_from(library: &Path) -> Result<(), DeviceError> {
    keep_defined();
    if DRIVER.get().is_some() {
        return Ok(());
    }
    // SAFETY: NVIDIA's library, or what the caller took for one, is made to be loaded.
    let functions = unsafe {
        Library::new(library).and_then(|library| Functions::find(&library).map(|found| (library, found)))
    };
    let (library, functions) = functions.map_err(|error| DeviceError::NoDriver { reason: whole(&error) })?;
    // It stays for good: it has threads of its own.
    std::mem::forget(library);
    // Another thread may have been first, which is as good.
    let _ = DRIVER.set(functions);
    Ok(())
}

/// The version of CUDA that the open driver is of, as 12.4 for one.
///
/// # Errors
/// If there is no driver, or it does not say.
pub fn version() -> Result<String, DeviceError> {
    load()?;
    let version =
        cust::CudaApiVersion::get().map_err(|error| DeviceError::driver("asking for the version", error))?;
    Ok(format!("{}.{}", version.major(), version.minor()))
}

/// An error with what it comes from, which is where the library's name is.
fn whole(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", whole(source)))
}

/// `cust` takes results for a Rust enumeration, so that a code which came with a later driver must not reach it.
fn known(code: c_uint) -> c_uint {
    match code {
        0..=8 | 34 | 100..=102 | 200..=202 | 205..=224 | 300..=304 | 400 | 401 | 500 | 600 => code,
        700..=705 | 708..=720 | 800..=809 | 900..=911 => code,
        _ => UNKNOWN,
    }
}

macro_rules! forward {
    ($(fn $name:ident($($argument:ident: $type:ty),*);)*) => {
        #[expect(non_snake_case, reason = "the names of the library's functions")]
        struct Functions {
            $($name: unsafe extern "C" fn($($type),*) -> c_uint,)*
        }

        impl Functions {
            /// # Safety
            /// The library's functions of these names must have these types.
            unsafe fn find(library: &Library) -> Result<Self, libloading::Error> {
                // SAFETY: by what is asked of the caller.
                Ok(unsafe { Self { $($name: *library.get(stringify!($name))?,)* } })
            }
        }

        $(
            /// # Safety
            /// As the driver's function of this name.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $type),*) -> c_uint {
                // SAFETY: by what is asked of the caller, whose arguments go on as they are.
                DRIVER.get().map_or(NOT_LOADED, |driver| known(unsafe { (driver.$name)($($argument),*) }))
            }
        )*

        /// Names the functions above, so that they are linked into the program.
        fn keep_defined() {
            std::hint::black_box([$($name as *const ()),*]);
        }
    };
}

forward! {
    fn cuInit(flags: c_uint);
    fn cuDriverGetVersion(version: *mut c_int);
    fn cuDeviceGetCount(count: *mut c_int);
    fn cuDeviceGet(device: *mut sys::CUdevice, ordinal: c_int);
    fn cuDeviceGetName(name: *mut c_char, len: c_int, device: sys::CUdevice);
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: sys::CUdevice_attribute, device: sys::CUdevice);
    fn cuDevicePrimaryCtxRetain(context: *mut sys::CUcontext, device: sys::CUdevice);
    fn cuDevicePrimaryCtxRelease_v2(device: sys::CUdevice);
    fn cuCtxSetCurrent(context: sys::CUcontext);
    fn cuModuleLoadDataEx(module: *mut sys::CUmodule, image: *const c_void, options: c_uint, names: *mut sys::CUjit_option, values: *mut *mut c_void);
    fn cuModuleUnload(module: sys::CUmodule);
    fn cuModuleGetFunction(function: *mut sys::CUfunction, module: sys::CUmodule, name: *const c_char);
    fn cuStreamCreateWithPriority(stream: *mut sys::CUstream, flags: c_uint, priority: c_int);
    fn cuStreamSynchronize(stream: sys::CUstream);
    fn cuStreamDestroy_v2(stream: sys::CUstream);
    fn cuStreamWaitEvent(stream: sys::CUstream, event: sys::CUevent, flags: c_uint);
    fn cuEventCreate(event: *mut sys::CUevent, flags: c_uint);
    fn cuEventRecord(event: sys::CUevent, stream: sys::CUstream);
    fn cuEventSynchronize(event: sys::CUevent);
    fn cuEventElapsedTime(milliseconds: *mut f32, start: sys::CUevent, end: sys::CUevent);
    fn cuEventDestroy_v2(event: sys::CUevent);
    fn cuMemAlloc_v2(pointer: *mut sys::CUdeviceptr, bytes: usize);
    fn cuMemFree_v2(pointer: sys::CUdeviceptr);
    fn cuMemAllocHost_v2(pointer: *mut *mut c_void, bytes: usize);
    fn cuMemFreeHost(pointer: *mut c_void);
    fn cuMemcpyHtoDAsync_v2(to: sys::CUdeviceptr, from: *const c_void, bytes: usize, stream: sys::CUstream);
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: sys::CUdeviceptr, bytes: usize, stream: sys::CUstream);
    fn cuMemsetD8Async(to: sys::CUdeviceptr, value: c_uchar, bytes: usize, stream: sys::CUstream);
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    fn cuLaunchKernel(
        function: sys::CUfunction,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared_bytes: c_uint, stream: sys::CUstream,
        arguments: *mut *mut c_void, extra: *mut *mut c_void
    );
    fn cuGetErrorString(error: sys::CUresult, text: *mut *const c_char);
}
