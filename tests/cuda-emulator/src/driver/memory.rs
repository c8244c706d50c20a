//! Memory of the device.

use super::{
    code::{Code, INVALID_HANDLE, INVALID_VALUE, OUT_OF_MEMORY, code, give, put},
    state::{Context, Handle, with_context},
    stream::is_stream,
};
use std::ffi::{c_uchar, c_void};

/// Does something on a stream.
fn on_stream(stream: Handle, act: impl FnOnce(&mut Context) -> Result<(), Code>) -> Code {
    code(with_context(|context| if is_stream(context, stream) { act(context) } else { Err(INVALID_HANDLE) }))
}

/// What comes of whether the memory was there.
fn known(done: bool) -> Result<(), Code> {
    if done { Ok(()) } else { Err(INVALID_VALUE) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, size: usize) -> Code {
    let allocated = with_context(|context| match size {
        0 => Err(INVALID_VALUE),
        _ => context.device.memory.allocate(size).ok_or(OUT_OF_MEMORY),
    });
    // SAFETY: the caller gives a place for the result.
    unsafe { give(address, allocated) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> Code {
    code(with_context(|context| known(address == 0 || context.device.memory.free(address))))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Code {
    let room = with_context(|context| Ok(context.device.memory.room()));
    // SAFETY: the caller gives places for the results.
    code(room.and_then(|room| unsafe { put(free, room.0).and(put(total, room.1)) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, size: usize, stream: Handle) -> Code {
    on_stream(stream, |context| {
        if size == 0 {
            return Ok(());
        }
        if from.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller says that so many bytes are there.
        let bytes = unsafe { std::slice::from_raw_parts(from.cast(), size) };
        known(context.device.memory.write(to, bytes))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, size: usize, stream: Handle) -> Code {
    on_stream(stream, |context| {
        if size == 0 {
            return Ok(());
        }
        if to.is_null() {
            return Err(INVALID_VALUE);
        }
        let mut bytes = vec![0; size];
        known(context.device.memory.read(from, &mut bytes))?;
        // SAFETY: the caller says that there is room for so many bytes; the copy is nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast(), size) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: u64, value: c_uchar, count: usize, stream: Handle) -> Code {
    on_stream(stream, |context| known(count == 0 || context.device.memory.fill(to, value, count)))
}
