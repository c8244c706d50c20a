//! Events, which have happened once they are recorded.
#![allow(unsafe_code, reason = "functions of a C library")]

use super::{
    code::{Code, INVALID_HANDLE, INVALID_VALUE, code, put},
    state::{Event, Handle, handle, with_context},
    stream::is_stream,
};
use std::{ffi::c_uint, time::Instant};

/// The flag of events that have no time.
const UNTIMED: c_uint = 2;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut Handle, flags: c_uint) -> Code {
    let created = with_context(|context| {
        if flags > 7 {
            return Err(INVALID_VALUE);
        }
        let number = context.number();
        context.events.insert(number, Event { recorded: None, timed: flags & UNTIMED == 0 });
        Ok(handle(number))
    });
    // SAFETY: the caller gives a place for the result.
    code(created.and_then(|created| unsafe { put(event, created) }))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> Code {
    code(with_context(|context| {
        if !is_stream(context, stream) {
            return Err(INVALID_HANDLE);
        }
        context.events.get_mut(&event.addr()).ok_or(INVALID_HANDLE)?.recorded = Some(Instant::now());
        Ok(())
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: Handle) -> Code {
    code(with_context(|context| context.events.get(&event.addr()).map(|_| ()).ok_or(INVALID_HANDLE)))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: Handle) -> Code {
    cuEventSynchronize(event)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) -> Code {
    let elapsed = with_context(|context| {
        let time = |event: Handle| {
            let event = context.events.get(&event.addr()).filter(|event| event.timed);
            event.and_then(|event| event.recorded).ok_or(INVALID_HANDLE)
        };
        Ok(time(end)?.saturating_duration_since(time(start)?).as_secs_f32() * 1e3)
    });
    // SAFETY: the caller gives a place for the result.
    code(elapsed.and_then(|elapsed| unsafe { put(milliseconds, elapsed) }))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: Handle) -> Code {
    code(with_context(|context| context.events.remove(&event.addr()).map(|_| ()).ok_or(INVALID_HANDLE)))
}
