//! Initialization, and what devices are like.
#![allow(unsafe_code, reason = "functions of a C library")]

use super::{
    code::{Code, INVALID_DEVICE, INVALID_VALUE, NO_DEVICE, code, put},
    settings::Settings,
    state::{initialize, with_driver},
};
use crate::device::{MOST_SHARED, MOST_THREADS};
use std::ffi::{c_char, c_int, c_uint};

/// The version of CUDA whose PTX is understood.
const VERSION: c_int = 13000;

/// What devices are called.
const NAME: &[u8] = b"Emulated CUDA device\0";

/// Bytes of shared memory that a block may have without asking for more.
pub(super) const USUAL_SHARED: usize = 48 << 10;

#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: c_uint) -> Code {
    let settings = Settings::read();
    if flags != 0 {
        return INVALID_VALUE;
    }
    if settings.devices == 0 {
        return NO_DEVICE;
    }
    initialize(settings);
    code(Ok(()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Code {
    // SAFETY: the caller gives a place for the result.
    code(unsafe { put(version, VERSION) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> Code {
    let devices = with_driver(|driver| Ok(driver.primary.len() as c_int));
    // SAFETY: the caller gives a place for the result.
    code(devices.and_then(|devices| unsafe { put(count, devices) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> Code {
    let found = with_driver(|driver| driver.ordinal(ordinal));
    // SAFETY: the caller gives a place for the result.
    code(found.and_then(|_| unsafe { put(device, ordinal) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) -> Code {
    let found = with_driver(|driver| driver.ordinal(device));
    let room = usize::try_from(length).unwrap_or(0);
    code(match found {
        Err(error) => Err(error),
        Ok(_) if name.is_null() || room == 0 => Err(INVALID_VALUE),
        Ok(_) => {
            let copied = room.min(NAME.len());
            // SAFETY: the caller says that there is room for so many bytes, of which no more are written.
            unsafe {
                std::ptr::copy_nonoverlapping(NAME.as_ptr().cast(), name, copied);
                name.add(copied - 1).write(0);
            }
            Ok(())
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> Code {
    let memory = with_driver(|driver| driver.ordinal(device).map(|_| driver.settings.memory));
    // SAFETY: the caller gives a place for the result.
    code(memory.and_then(|memory| unsafe { put(bytes, memory) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: c_int) -> Code {
    let settings = with_driver(|driver| {
        driver.ordinal(device).map_err(|_| INVALID_DEVICE)?;
        Ok(driver.settings)
    });
    // SAFETY: the caller gives a place for the result.
    code(settings.and_then(|settings| unsafe { put(value, attribute_of(attribute, settings)) }))
}

/// Attributes by the numbers that `cuda.h` gives them.
fn attribute_of(attribute: c_uint, settings: Settings) -> c_int {
    match attribute {
        1..=3 => MOST_THREADS as c_int,
        4 => 64,
        5 => c_int::MAX,
        6 | 7 => 65535,
        8 => USUAL_SHARED as c_int,
        // Lanes of a warp.
        10 => 32,
        // Multiprocessors.
        16 => 4,
        75 => settings.capability.0,
        76 => settings.capability.1,
        // Shared memory of a block that asks for more.
        97 => MOST_SHARED as c_int,
        _ => 0,
    }
}
