//! Streams, on which all is done at once.

use super::{
    code::{Code, INVALID_HANDLE, INVALID_VALUE, code, give},
    state::{Context, Handle, handle, with_context},
};
use std::ffi::{c_int, c_uint};

/// Whether a stream is there: the default one always is.
pub(super) fn is_stream(context: &Context, stream: Handle) -> bool {
    stream.is_null() || context.streams.contains(&stream.addr())
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
        context.streams.insert(number);
        Ok(handle(number))
    });
    // SAFETY: the caller gives a place for the result.
    unsafe { give(stream, created) }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: Handle) -> Code {
    code(with_context(|context| if is_stream(context, stream) { Ok(()) } else { Err(INVALID_HANDLE) }))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: Handle) -> Code {
    code(with_context(|context| match context.streams.remove(&stream.addr()) {
        true => Ok(()),
        false => Err(INVALID_HANDLE),
    }))
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
