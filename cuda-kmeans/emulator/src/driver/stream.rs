//! Streams, on which all is done at once.
#![allow(unsafe_code, reason = "functions of a C library")]

use super::{
    code::{Code, INVALID_HANDLE, INVALID_VALUE, code, put},
    state::{Context, Handle, handle, with_context},
};
use std::ffi::{c_int, c_uint};

/// Whether a stream is there: the default ones always are.
pub(super) fn is_stream(context: &Context, stream: Handle) -> bool {
    stream.addr() <= 2 || context.streams.contains_key(&stream.addr())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut Handle, flags: c_uint) -> Code {
    // SAFETY: the caller gives a place for the result.
    unsafe { cuStreamCreateWithPriority(stream, flags, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreateWithPriority(
    stream: *mut Handle,
    flags: c_uint,
    _priority: c_int,
) -> Code {
    let created = with_context(|context| {
        if flags > 1 {
            return Err(INVALID_VALUE);
        }
        let number = context.number();
        context.streams.insert(number, ());
        Ok(handle(number))
    });
    // SAFETY: the caller gives a place for the result.
    code(created.and_then(|created| unsafe { put(stream, created) }))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: Handle) -> Code {
    code(with_context(|context| if is_stream(context, stream) { Ok(()) } else { Err(INVALID_HANDLE) }))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: Handle) -> Code {
    code(with_context(|context| context.streams.remove(&stream.addr()).ok_or(INVALID_HANDLE)))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: c_uint) -> Code {
    code(with_context(|context| {
        match is_stream(context, stream) && context.events.contains_key(&event.addr()) {
            true => Ok(()),
            false => Err(INVALID_HANDLE),
        }
    }))
}
