//! Errors of the driver.

use crate::error::Status;
use std::ffi::{CStr, c_char};

/// What a function of the driver returns.
pub(super) type Code = u32;

pub(super) const SUCCESS: Code = 0;
pub(super) const INVALID_VALUE: Code = 1;
pub(super) const OUT_OF_MEMORY: Code = 2;
pub(super) const NOT_INITIALIZED: Code = 3;
pub(super) const NO_DEVICE: Code = 100;
pub(super) const INVALID_DEVICE: Code = 101;
pub(super) const INVALID_CONTEXT: Code = 201;
pub(super) const INVALID_PTX: Code = 218;
pub(super) const INVALID_HANDLE: Code = 400;
pub(super) const NOT_FOUND: Code = 500;
pub(super) const ILLEGAL_ADDRESS: Code = 700;
pub(super) const MISALIGNED_ADDRESS: Code = 716;
pub(super) const LAUNCH_FAILED: Code = 719;

/// Descriptions.
const TEXTS: [(Code, &CStr); 13] = [
    (SUCCESS, c"no error"),
    (INVALID_VALUE, c"invalid argument"),
    (OUT_OF_MEMORY, c"out of memory"),
    (NOT_INITIALIZED, c"initialization error"),
    (NO_DEVICE, c"no CUDA-capable device is detected"),
    (INVALID_DEVICE, c"invalid device ordinal"),
    (INVALID_CONTEXT, c"invalid device context"),
    (INVALID_PTX, c"a PTX JIT compilation failed"),
    (INVALID_HANDLE, c"invalid resource handle"),
    (NOT_FOUND, c"named symbol not found"),
    (ILLEGAL_ADDRESS, c"an illegal memory access was encountered"),
    (MISALIGNED_ADDRESS, c"misaligned address"),
    (LAUNCH_FAILED, c"unspecified launch failure"),
];

/// The code of a kernel's end.
pub(super) fn of_status(status: Status) -> Code {
    match status {
        Status::IllegalAddress => ILLEGAL_ADDRESS,
        Status::Misaligned => MISALIGNED_ADDRESS,
        Status::LaunchFailed => LAUNCH_FAILED,
    }
}

/// The code of a result.
pub(super) fn code(result: Result<(), Code>) -> Code {
    result.err().unwrap_or(SUCCESS)
}

/// Writes a result, unless there is no place for it.
///
/// # Safety
///
/// The pointer is null, or that of a place for the result.
pub(super) unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Code> {
    if to.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the caller says that the pointer is valid.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes what came of a call, if it is something.
///
/// # Safety
///
/// As of [`put`].
pub(super) unsafe fn give<T>(to: *mut T, result: Result<T, Code>) -> Code {
    // SAFETY: the caller says that the pointer is valid.
    code(result.and_then(|value| unsafe { put(to, value) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(error: Code, text: *mut *const c_char) -> Code {
    let found = TEXTS.iter().find(|(code, _)| *code == error);
    // SAFETY: the caller gives a place for the result.
    let written = unsafe { put(text, found.map_or(std::ptr::null(), |(_, text)| text.as_ptr())) };
    code(written.and(found.map(|_| ()).ok_or(INVALID_VALUE)))
}
