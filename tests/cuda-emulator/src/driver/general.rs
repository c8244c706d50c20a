//! Initialization, and what devices are like.

use super::{
    code::{Code, INVALID_DEVICE, INVALID_VALUE, NO_DEVICE, code, give, put},
    settings::Settings,
    state::{initialize, with_driver},
};
use std::ffi::{c_char, c_int, c_uint};

/// The version of CUDA whose PTX is understood.
const VERSION: c_int = 13000;

/// What devices are called.
const NAME: &[u8] = b"Emulated CUDA device\0";

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
    unsafe { give(count, devices) }
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
        // Multiprocessors.
        16 => 4,
        75 => settings.capability.0,
        76 => settings.capability.1,
        _ => 0,
    }
}
