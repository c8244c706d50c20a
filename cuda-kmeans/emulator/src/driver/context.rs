//! Contexts. A device has one.
#![allow(unsafe_code, reason = "functions of a C library")]

use super::{
    code::{Code, INVALID_CONTEXT, code, put},
    state::{Handle, current, handle, set_current, with_context, with_driver},
};
use std::ffi::{c_int, c_uint};

/// The version of contexts that the driver speaks.
const API_VERSION: c_uint = 3020;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) -> Code {
    let retained = with_driver(|driver| {
        let ordinal = driver.ordinal(device)?;
        Ok(handle(driver.retain(ordinal)))
    });
    // SAFETY: the caller gives a place for the result.
    code(retained.and_then(|retained| unsafe { put(context, retained) }))
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> Code {
    code(with_driver(|driver| {
        let ordinal = driver.ordinal(device)?;
        driver.release(ordinal)
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, _flags: c_uint) -> Code {
    code(with_driver(|driver| driver.ordinal(device).map(|_| ())))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: Handle) -> Code {
    code(with_driver(|driver| {
        if !context.is_null() && !driver.has_context(context.addr()) {
            return Err(INVALID_CONTEXT);
        }
        set_current(context.addr());
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetCurrent(context: *mut Handle) -> Code {
    let found = with_driver(|_| Ok(handle(current())));
    // SAFETY: the caller gives a place for the result.
    code(found.and_then(|found| unsafe { put(context, found) }))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> Code {
    code(with_context(|_| Ok(())))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetApiVersion(context: Handle, version: *mut c_uint) -> Code {
    let known = with_driver(|driver| {
        let number = if context.is_null() { current() } else { context.addr() };
        if driver.has_context(number) { Ok(()) } else { Err(INVALID_CONTEXT) }
    });
    // SAFETY: the caller gives a place for the result.
    code(known.and_then(|()| unsafe { put(version, API_VERSION) }))
}
