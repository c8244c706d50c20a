//! Contexts. A device has one.

use super::{
    code::{Code, INVALID_CONTEXT, code, give},
    state::{Handle, handle, set_current, with_driver},
};
use std::ffi::c_int;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) -> Code {
    let retained = with_driver(|driver| {
        let ordinal = driver.ordinal(device)?;
        Ok(handle(driver.retain(ordinal)))
    });
    // SAFETY: the caller gives a place for the result.
    unsafe { give(context, retained) }
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> Code {
    code(with_driver(|driver| {
        let ordinal = driver.ordinal(device)?;
        driver.release(ordinal)
    }))
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
