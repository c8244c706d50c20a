//! Launches.

use super::{
    code::{Code, INVALID_HANDLE, INVALID_VALUE, code, of_status},
    state::{Handle, KERNELS, with_context},
    stream::is_stream,
};
use crate::{
    device::{Kernel, LaunchError, Shape},
    program::Place,
};
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
    let shape = Shape { grid, block };
    code(with_context(|context| {
        let number = (function.addr() % KERNELS).wrapping_sub(1);
        let module = context.modules.get(&(function.addr() - function.addr() % KERNELS));
        let known =
            module.and_then(|module| module.kernels.get(number)).filter(|_| is_stream(context, stream));
        let kernel = known.ok_or(INVALID_HANDLE)?.clone();
        if !extra.is_null() || shared > 0 {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller gives a pointer to each of the kernel's parameters.
        let values = unsafe { parameter_values(&kernel, parameters) }?;
        match context.device.launch(&kernel, shape, &values) {
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

/// The values of parameters.
///
/// # Safety
///
/// Unless it is null, `parameters` has a pointer for each parameter, and each that is not null points to as many bytes as the
/// parameter has.
unsafe fn parameter_values(kernel: &Kernel, parameters: *mut *mut c_void) -> Result<Vec<u64>, Code> {
    if parameters.is_null() && !kernel.parameters().is_empty() {
        return Err(INVALID_VALUE);
    }
    let value = |(number, parameter): (usize, &Place)| {
        // SAFETY: there are so many pointers.
        let from = unsafe { parameters.add(number).read() }.cast::<u8>();
        if from.is_null() {
            return Err(INVALID_VALUE);
        }
        let mut bytes = [0; 8];
        let size = bytes.len().min(parameter.size);
        // SAFETY: the parameter has so many bytes, which are not those of the array.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), size) };
        Ok(u64::from_le_bytes(bytes))
    };
    kernel.parameters().iter().enumerate().map(value).collect()
}
