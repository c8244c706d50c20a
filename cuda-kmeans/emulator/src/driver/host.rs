//! Memory of the host that devices can access.
#![allow(unsafe_code, reason = "functions of a C library")]

use super::{
    code::{Code, INVALID_VALUE, OUT_OF_MEMORY, code, put},
    state::{Handle, with_context},
};
use std::{
    alloc::{Layout, alloc, dealloc},
    ffi::{c_uint, c_void},
};

/// A page.
const ALIGN: usize = 4096;

/// Memory of the host.
pub(super) struct Pinned {
    address: *mut u8,
    layout: Layout,
}

// SAFETY: nobody else has the address as such, and it is only given to the allocator.
unsafe impl Send for Pinned {}

impl Pinned {
    fn new(size: usize) -> Result<Self, Code> {
        if size == 0 {
            return Err(INVALID_VALUE);
        }
        let layout = Layout::from_size_align(size, ALIGN).map_err(|_| OUT_OF_MEMORY)?;
        // SAFETY: the size is not zero.
        let address = unsafe { alloc(layout) };
        if address.is_null() { Err(OUT_OF_MEMORY) } else { Ok(Self { address, layout }) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: it came from the allocator with this layout, and is given back once.
        unsafe { dealloc(self.address, self.layout) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocHost_v2(address: *mut *mut c_void, size: usize) -> Code {
    let pinned = with_context(|context| {
        let pinned = Pinned::new(size)?;
        let address = pinned.address;
        context.pinned.insert(address.addr(), pinned);
        Ok(address.expose_provenance())
    });
    let pointer = pinned.map(std::ptr::with_exposed_provenance_mut::<c_void>);
    // SAFETY: the caller gives a place for the result.
    code(pointer.and_then(|pointer| unsafe { put(address, pointer) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(address: *mut *mut c_void, size: usize, _flags: c_uint) -> Code {
    // SAFETY: the caller gives a place for the result.
    unsafe { cuMemAllocHost_v2(address, size) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: Handle) -> Code {
    code(with_context(|context| context.pinned.remove(&address.addr()).map(drop).ok_or(INVALID_VALUE)))
}
