//! Launches.
#![allow(unsafe_code, reason = "functions of a C library")]

use super::{
    code::{Code, INVALID_HANDLE, INVALID_VALUE, code, of_status},
    state::{Handle, with_context},
    stream::is_stream,
};
use crate::device::{Kernel, LaunchError, Shape};
use std::ffi::{c_uint, c_void};

#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "the driver's function has so many")]
unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: Handle,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Code {
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    let shape = Shape { grid, block, dynamic: shared as usize };
    code(with_context(|context| {
        let known = context.functions.get(&function.addr()).filter(|_| is_stream(context, stream));
        let function = known.ok_or(INVALID_HANDLE)?;
        if !extra.is_null() || shape.dynamic > function.dynamic {
            return Err(INVALID_VALUE);
        }
        let kernel = function.kernel.clone();
        // SAFETY: the caller gives a pointer to each of the kernel's parameters.
        let bytes = unsafe { parameter_bytes(&kernel, parameters) }?;
        match context.device.launch(&kernel, shape, &bytes) {
            Ok(done) if context.profile => {
                let (name, time) = (kernel.name(), done.time.as_secs_f64() * 1e3);
                let (instructions, conflicts) = (done.instructions, done.conflicts);
                eprintln!(
                    "emulated CUDA: kernel `{name}`, grid {grid:?}, block {block:?}: {instructions} instructions, {time:.1} ms, \
                     {conflicts} bank conflicts of ldmatrix"
                );
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => {
                eprintln!("emulated CUDA: {error}");
                Err(match error {
                    LaunchError::Shape(_) => INVALID_VALUE,
                    LaunchError::Fault(fault) => *context.broken.insert(of_status(fault.status)),
                })
            }
        }
    }))
}

/// The values of parameters, each at its place.
///
/// # Safety
///
/// Unless it is null, `parameters` has a pointer for each parameter, and each that is not null points to as many bytes as the
/// parameter has.
unsafe fn parameter_bytes(kernel: &Kernel, parameters: *mut *mut c_void) -> Result<Vec<u8>, Code> {
    let mut bytes = vec![0; kernel.parameter_bytes()];
    if parameters.is_null() && !bytes.is_empty() {
        return Err(INVALID_VALUE);
    }
    for (number, parameter) in kernel.parameters().iter().enumerate() {
        // SAFETY: there are so many pointers.
        let from = unsafe { parameters.add(number).read() };
        if from.is_null() {
            return Err(INVALID_VALUE);
        }
        let to = &mut bytes[parameter.offset..][..parameter.size];
        // SAFETY: the parameter has so many bytes, which are not those of the new vector.
        unsafe { std::ptr::copy_nonoverlapping(from.cast(), to.as_mut_ptr(), to.len()) };
    }
    Ok(bytes)
}
