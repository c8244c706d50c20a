//! Memory of the host that devices can access.

use super::{
    code::{Code, INVALID_VALUE, code, give},
    state::{Handle, with_context},
};
use std::ffi::c_void;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocHost_v2(address: *mut *mut c_void, size: usize) -> Code {
    let allocated = with_context(|context| {
        if size == 0 {
            return Err(INVALID_VALUE);
        }
        // Of the widest elements, so that anything may be in it.
        let mut pinned = vec![0_u128; size.div_ceil(16)];
        let pointer = pinned.as_mut_ptr();
        context.pinned.insert(pointer.addr(), pinned);
        Ok(pointer.cast())
    });
    // SAFETY: the caller gives a place for the result.
    unsafe { give(address, allocated) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: Handle) -> Code {
    code(with_context(|context| context.pinned.remove(&address.addr()).map(drop).ok_or(INVALID_VALUE)))
}
