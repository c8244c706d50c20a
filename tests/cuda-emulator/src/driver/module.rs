//! Modules and their functions.

use super::{
    code::{Code, INVALID_HANDLE, INVALID_PTX, INVALID_VALUE, NOT_FOUND, code, give},
    state::{Handle, KERNELS, handle, with_context},
};
use crate::device::Module;
use std::ffi::{CStr, c_char, c_uint, c_void};

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut Handle,
    image: *const c_void,
    _count: c_uint,
    _options: *mut c_uint,
    _values: *mut *mut c_void,
) -> Code {
    if image.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller says that the image is a text that ends with a zero.
    let text = unsafe { CStr::from_ptr(image.cast()) };
    let loaded = with_context(|context| {
        let text = text.to_str().map_err(|_| INVALID_PTX)?;
        let module = Module::load(text).map_err(|refusal| {
            eprintln!("emulated CUDA: {refusal}");
            INVALID_PTX
        })?;
        let number = context.number();
        context.modules.insert(number, module);
        Ok(handle(number))
    });
    // SAFETY: the caller gives a place for the result.
    unsafe { give(module, loaded) }
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: Handle) -> Code {
    code(with_context(|context| context.modules.remove(&module.addr()).map(drop).ok_or(INVALID_HANDLE)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) -> Code {
    if name.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller says that the name is a text that ends with a zero.
    let name = unsafe { CStr::from_ptr(name) };
    let found = with_context(|context| {
        let loaded = context.modules.get(&module.addr()).ok_or(INVALID_HANDLE)?;
        let name = name.to_str().map_err(|_| NOT_FOUND)?;
        let number = loaded.kernels.iter().position(|kernel| kernel.name() == name);
        let number = number.filter(|&number| number + 1 < KERNELS).ok_or(NOT_FOUND)?;
        Ok(handle(module.addr() + number + 1))
    });
    // SAFETY: the caller gives a place for the result.
    unsafe { give(function, found) }
}
