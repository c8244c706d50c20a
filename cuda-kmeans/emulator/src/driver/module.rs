//! Modules and their functions.
#![allow(unsafe_code, reason = "functions of a C library")]

use super::{
    code::{Code, INVALID_HANDLE, INVALID_PTX, INVALID_VALUE, NOT_FOUND, code, put},
    general::USUAL_SHARED,
    state::{Function, Handle, handle, with_context},
};
use crate::device::{MOST_SHARED, MOST_THREADS};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// The attribute that says how much dynamic shared memory a function may have.
const DYNAMIC: c_uint = 8;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(module: *mut Handle, image: *const c_void) -> Code {
    if image.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller says that the image is a text that ends with a zero.
    let text = unsafe { CStr::from_ptr(image.cast()) };
    let loaded = with_context(|context| {
        let text = text.to_str().map_err(|_| INVALID_PTX)?;
        let module = context.device.load(text).map_err(|refusal| {
            eprintln!("emulated CUDA: {refusal}");
            INVALID_PTX
        })?;
        let number = context.number();
        context.modules.insert(number, module);
        Ok(handle(number))
    });
    // SAFETY: the caller gives a place for the result.
    code(loaded.and_then(|loaded| unsafe { put(module, loaded) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut Handle,
    image: *const c_void,
    _count: c_uint,
    _options: *mut c_uint,
    _values: *mut *mut c_void,
) -> Code {
    // SAFETY: the caller gives what the function without options needs.
    unsafe { cuModuleLoadData(module, image) }
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: Handle) -> Code {
    code(with_context(|context| {
        let unloaded = context.modules.remove(&module.addr()).ok_or(INVALID_HANDLE)?;
        context.device.unload(&unloaded);
        context.functions.retain(|_, function| function.module != module.addr());
        Ok(())
    }))
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
        let kernel = loaded.kernel(name).ok_or(NOT_FOUND)?.clone();
        let known = |(_, function): &(&usize, &Function)| {
            function.module == module.addr() && function.kernel.name() == name
        };
        if let Some((&number, _)) = context.functions.iter().find(known) {
            return Ok(handle(number));
        }
        let dynamic = USUAL_SHARED.saturating_sub(kernel.shared());
        let number = context.number();
        context.functions.insert(number, Function { kernel, module: module.addr(), dynamic });
        Ok(handle(number))
    });
    // SAFETY: the caller gives a place for the result.
    code(found.and_then(|found| unsafe { put(function, found) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: Handle) -> Code {
    let found = with_context(|context| {
        let function = context.functions.get(&function.addr()).ok_or(INVALID_HANDLE)?;
        Ok(match attribute {
            0 => function.kernel.most_threads().unwrap_or(u64::from(MOST_THREADS)) as c_int,
            1 => function.kernel.shared() as c_int,
            DYNAMIC => function.dynamic as c_int,
            _ => 0,
        })
    });
    // SAFETY: the caller gives a place for the result.
    code(found.and_then(|found| unsafe { put(value, found) }))
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: Handle, attribute: c_uint, value: c_int) -> Code {
    code(with_context(|context| {
        let function = context.functions.get_mut(&function.addr()).ok_or(INVALID_HANDLE)?;
        let value = usize::try_from(value).map_err(|_| INVALID_VALUE)?;
        if attribute == DYNAMIC {
            if value + function.kernel.shared() > MOST_SHARED {
                return Err(INVALID_VALUE);
            }
            function.dynamic = value;
        }
        Ok(())
    }))
}
