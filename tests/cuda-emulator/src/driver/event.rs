//! Events, which have happened once they are recorded.

use super::{
    code::{Code, INVALID_HANDLE, INVALID_VALUE, code, give},
    state::{Handle, handle, with_context},
    stream::is_stream,
};
use std::{ffi::c_uint, time::Instant};

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut Handle, flags: c_uint) -> Code {
    let created = with_context(|context| {
        if flags > 7 {
            return Err(INVALID_VALUE);
        }
        let number = context.number();
        context.events.insert(number, None);
        Ok(handle(number))
    });
    // SAFETY: the caller gives a place for the result.
    unsafe { give(event, created) }
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> Code {
    code(with_context(|context| {
        if !is_stream(context, stream) {
            return Err(INVALID_HANDLE);
        }
        *context.events.get_mut(&event.addr()).ok_or(INVALID_HANDLE)? = Some(Instant::now());
        Ok(())
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: Handle) -> Code {
    code(with_context(|context| context.events.get(&event.addr()).map(|_| ()).ok_or(INVALID_HANDLE)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) -> Code {
    let elapsed = with_context(|context| {
        let time = |event: Handle| context.events.get(&event.addr()).copied().flatten().ok_or(INVALID_HANDLE);
        Ok(time(end)?.saturating_duration_since(time(start)?).as_secs_f32() * 1e3)
    });
    // SAFETY: the caller gives a place for the result.
    unsafe { give(milliseconds, elapsed) }
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: Handle) -> Code {
    code(with_context(|context| context.events.remove(&event.addr()).map(|_| ()).ok_or(INVALID_HANDLE)))
}
