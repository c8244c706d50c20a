//! The functions of the driver, as programs call them.
#![allow(unsafe_code, reason = "functions of a C library")]

use emulated_cuda as _;
use std::{
    env,
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ptr::{null, null_mut},
    sync::Once,
};

type Handle = *mut c_void;

unsafe extern "C" {
    fn cuInit(flags: c_uint) -> u32;
    fn cuDriverGetVersion(version: *mut c_int) -> u32;
    fn cuDeviceGetCount(count: *mut c_int) -> u32;
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> u32;
    fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) -> u32;
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: c_int) -> u32;
    fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) -> u32;
    fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> u32;
    fn cuCtxSetCurrent(context: Handle) -> u32;
    fn cuModuleLoadDataEx(
        module: *mut Handle,
        image: *const c_void,
        count: c_uint,
        options: *mut c_uint,
        values: *mut *mut c_void,
    ) -> u32;
    fn cuModuleUnload(module: Handle) -> u32;
    fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) -> u32;
    fn cuStreamCreateWithPriority(stream: *mut Handle, flags: c_uint, priority: c_int) -> u32;
    fn cuStreamSynchronize(stream: Handle) -> u32;
    fn cuStreamDestroy_v2(stream: Handle) -> u32;
    fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: c_uint) -> u32;
    fn cuEventCreate(event: *mut Handle, flags: c_uint) -> u32;
    fn cuEventRecord(event: Handle, stream: Handle) -> u32;
    fn cuEventSynchronize(event: Handle) -> u32;
    fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) -> u32;
    fn cuEventDestroy_v2(event: Handle) -> u32;
    fn cuMemAlloc_v2(address: *mut u64, size: usize) -> u32;
    fn cuMemFree_v2(address: u64) -> u32;
    fn cuMemAllocHost_v2(address: *mut *mut c_void, size: usize) -> u32;
    fn cuMemFreeHost(address: *mut c_void) -> u32;
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, size: usize, stream: Handle) -> u32;
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, size: usize, stream: Handle) -> u32;
    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) -> u32;
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32;
    fn cuLaunchKernel(
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
    ) -> u32;
    fn cuGetErrorString(error: u32, text: *mut *const c_char) -> u32;
}

/// Calls a function of the driver. Arguments are values, and pointers to variables that outlive the call.
macro_rules! call {
    ($($call:tt)*) => {
        // SAFETY: pointers are those of variables of the right type, or null where the driver checks for that.
        unsafe { $($call)* }
    };
}

const MEMORY: usize = 1 << 20;

/// A module whose kernel sets one word at an offset.
const SET: &str = ".version 7.0
.target sm_80
.address_size 64
.visible .entry set(.param .u64 to, .param .u32 offset, .param .u64 value)
{
    .reg .b64 %rd<9>;
    .reg .b32 %r<9>;
    ld.param.u64 %rd1, [to];
    ld.param.u32 %r1, [offset];
    cvt.u64.u32 %rd2, %r1;
    ld.param.u64 %rd4, [value];
    cvt.u32.u64 %r2, %rd4;
    add.s64 %rd3, %rd1, %rd2;
    st.global.u32 [%rd3], %r2;
    ret;
}
";

/// Initializes the driver with four devices: each test has its own.
fn initialize() {
    static INITIALIZED: Once = Once::new();
    INITIALIZED.call_once(|| {
        let set = |name: &str, value: &str| {
            // SAFETY: no other thread reads the environment before this is over.
            unsafe { env::set_var(name, value) };
        };
        let mut count = 0;
        assert_eq!(call!(cuDeviceGetCount(&mut count)), 3);
        set("A2ATS_EMULATED_DEVICES", "0");
        assert_eq!(call!(cuInit(0)), 100);
        set("A2ATS_EMULATED_DEVICES", "5");
        set("A2ATS_EMULATED_MEMORY", &MEMORY.to_string());
        set("A2ATS_EMULATED_CAPABILITY", "8.6");
        assert_eq!(call!(cuInit(1)), 1);
        assert_eq!(call!(cuInit(0)), 0);
    });
}

/// Makes the primary context of a device current.
fn enter(device: c_int) -> Handle {
    initialize();
    let mut context = null_mut();
    assert_eq!(call!(cuDevicePrimaryCtxRetain(&mut context, device)), 0);
    assert_eq!(call!(cuCtxSetCurrent(context)), 0);
    context
}

/// What comes of loading a module.
fn load(text: &str) -> Result<Handle, u32> {
    let (text, mut module) = (CString::new(text).unwrap(), null_mut());
    match call!(cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 0, null_mut(), null_mut())) {
        0 => Ok(module),
        code => Err(code),
    }
}

/// The kernel of a module.
fn function(module: Handle) -> Handle {
    let mut function = null_mut();
    assert_eq!(call!(cuModuleGetFunction(&mut function, module, c"set".as_ptr())), 0);
    function
}

/// Sets the word at an offset of an address to nine.
fn set(function: Handle, mut address: u64, mut offset: i32, shared: c_uint, stream: Handle) -> u32 {
    let mut value = 9_u64;
    let mut parameters: [*mut c_void; 3] =
        [(&raw mut address).cast(), (&raw mut offset).cast(), (&raw mut value).cast()];
    call!(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, shared, stream, parameters.as_mut_ptr(), null_mut()))
}

/// Copies to the host.
fn read(to: &mut [u8], from: u64) -> u32 {
    call!(cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, to.len(), null_mut()))
}

#[test]
fn devices() {
    initialize();
    let (mut version, mut count, mut device) = (0, 0, 9);
    assert_eq!(call!(cuDriverGetVersion(&mut version)), 0);
    assert!(version >= 11040);
    assert_eq!(call!(cuDeviceGetCount(&mut count)), 0);
    assert_eq!(count, 5);
    assert_eq!(call!(cuDeviceGet(&mut device, 4)), 0);
    assert_eq!(device, 4);
    assert_eq!(call!(cuDeviceGet(&mut device, 5)), 101);
    let attribute = |number| {
        let mut value = -1;
        assert_eq!(call!(cuDeviceGetAttribute(&mut value, number, 4)), 0);
        value
    };
    assert_eq!([75, 76, 16, 1000].map(attribute), [8, 6, 4, 0]);
    let mut name = [1; 6];
    assert_eq!(call!(cuDeviceGetName(name.as_mut_ptr(), 6, 4)), 0);
    assert_eq!(call!(CStr::from_ptr(name.as_ptr())), c"Emula");
    let mut text = null();
    assert_eq!(call!(cuGetErrorString(2, &mut text)), 0);
    assert_eq!(call!(CStr::from_ptr(text)), c"out of memory");
    assert_eq!(call!(cuGetErrorString(12345, &mut text)), 1);
    assert!(text.is_null());
}

#[test]
fn contexts_are_of_a_thread() {
    let context = enter(0);
    let synchronize = || call!(cuStreamSynchronize(null_mut()));
    assert_eq!(std::thread::spawn(synchronize).join().unwrap(), 201);
    assert_eq!(synchronize(), 0);
    assert_eq!(enter(0), context);
    assert_eq!(call!(cuDevicePrimaryCtxRelease_v2(0)), 0);
    assert_eq!(synchronize(), 0);
    assert_eq!(call!(cuDevicePrimaryCtxRelease_v2(0)), 0);
    assert_eq!(synchronize(), 201);
    assert_eq!(call!(cuCtxSetCurrent(context)), 201);
    assert_eq!(call!(cuDevicePrimaryCtxRelease_v2(0)), 201);
    assert_ne!(enter(0), context);
}

#[test]
fn memory_is_counted_and_copied() {
    enter(1);
    let (mut free, mut total, mut one, mut other) = (0, 0, 0, 0);
    assert_eq!(call!(cuMemAlloc_v2(&mut one, 1000)), 0);
    assert_eq!(call!(cuMemAlloc_v2(&mut other, MEMORY)), 2);
    assert_eq!(call!(cuMemAlloc_v2(&mut other, 0)), 1);
    assert_eq!(call!(cuMemAlloc_v2(&mut other, MEMORY - 1024)), 0);
    assert_eq!(call!(cuMemGetInfo_v2(&mut free, &mut total)), 0);
    assert_eq!((free, total, one % 256), (0, MEMORY, 0));
    let (from, mut to): (Vec<u8>, _) = ((0..200).collect(), vec![0; 200]);
    assert_eq!(call!(cuMemcpyHtoDAsync_v2(one + 800, from.as_ptr().cast(), 200, null_mut())), 0);
    assert_eq!(call!(cuMemcpyHtoDAsync_v2(one + 801, from.as_ptr().cast(), 200, null_mut())), 1);
    assert_eq!(call!(cuMemsetD8Async(one + 803, 77, 2, null_mut())), 0);
    assert_eq!(read(&mut to, one + 800), 0);
    assert_eq!(to[..6], [0, 1, 2, 77, 77, 5]);
    assert_eq!(to[6..], from[6..]);
    assert_eq!(call!(cuMemFree_v2(one + 256)), 1);
    assert_eq!(call!(cuMemFree_v2(one)), 0);
    assert_eq!(call!(cuMemFree_v2(one)), 1);
    assert_eq!(read(&mut to, one), 1);
    let mut pinned = null_mut();
    assert_eq!(call!(cuMemAllocHost_v2(&mut pinned, 100)), 0);
    assert_eq!(call!(cuMemcpyDtoHAsync_v2(pinned, other, 100, null_mut())), 0);
    assert_eq!(call!(cuMemFreeHost(pinned)), 0);
    assert_eq!(call!(cuMemFreeHost(pinned)), 1);
}

#[test]
fn streams_and_events_end() {
    enter(2);
    let (mut stream, mut start, mut end, mut time) = (null_mut(), null_mut(), null_mut(), -1.0);
    assert_eq!(call!(cuStreamCreateWithPriority(&mut stream, 1, 0)), 0);
    assert_eq!(call!(cuEventCreate(&mut start, 0)), 0);
    assert_eq!(call!(cuEventCreate(&mut end, 0)), 0);
    assert_eq!(call!(cuEventRecord(start, stream)), 0);
    assert_eq!(call!(cuEventElapsedTime(&mut time, start, end)), 400);
    assert_eq!(call!(cuEventRecord(end, null_mut())), 0);
    assert_eq!(call!(cuEventElapsedTime(&mut time, start, end)), 0);
    assert!(time >= 0.0);
    assert_eq!(call!(cuStreamWaitEvent(stream, end, 0)), 0);
    assert_eq!(call!(cuEventSynchronize(end)), 0);
    assert_eq!(call!(cuEventDestroy_v2(end)), 0);
    assert_eq!(call!(cuEventSynchronize(end)), 400);
    assert_eq!(call!(cuStreamWaitEvent(stream, end, 0)), 400);
    assert_eq!(call!(cuStreamDestroy_v2(stream)), 0);
    assert_eq!(call!(cuStreamSynchronize(stream)), 400);
    assert_eq!(call!(cuEventRecord(start, stream)), 400);
    assert_eq!(call!(cuMemcpyHtoDAsync_v2(0, null(), 0, stream)), 400);
}

#[test]
fn kernels_run() {
    enter(3);
    let module = load(SET).unwrap();
    let (kernel, mut address, mut bytes, mut other) = (function(module), 0, [0; 8], null_mut());
    assert_eq!(call!(cuModuleGetFunction(&mut other, module, c"unset".as_ptr())), 500);
    assert_eq!(call!(cuMemAlloc_v2(&mut address, 8)), 0);
    assert_eq!(set(kernel, address, 4, 0, null_mut()), 0);
    assert_eq!(read(&mut bytes, address), 0);
    assert_eq!(bytes, [0, 0, 0, 0, 9, 0, 0, 0]);
    assert_eq!(set(kernel, address, 4, 0, module), 400);
    assert_eq!(set(kernel, address, 4, 16, null_mut()), 1);
    assert_eq!(call!(cuModuleUnload(module)), 0);
    assert_eq!(call!(cuModuleUnload(module)), 400);
    assert_eq!(set(kernel, address, 4, 0, null_mut()), 400);
    assert_eq!(load(&SET.replace("add.s64", "frobnicate.s64")), Err(218));
}

#[test]
fn errors_stay() {
    enter(4);
    let (kernel, mut address, mut other) = (function(load(SET).unwrap()), 0, 0);
    assert_eq!(call!(cuMemAlloc_v2(&mut address, 8)), 0);
    assert_eq!(set(kernel, address, 8, 0, null_mut()), 700);
    assert_eq!(call!(cuStreamSynchronize(null_mut())), 700);
    assert_eq!(call!(cuMemAlloc_v2(&mut other, 8)), 700);
    assert_eq!(set(kernel, address, 4, 0, null_mut()), 700);
    assert_eq!(call!(cuDevicePrimaryCtxRelease_v2(4)), 0);
    enter(4);
    let kernel = function(load(SET).unwrap());
    assert_eq!(call!(cuMemAlloc_v2(&mut address, 8)), 0);
    assert_eq!(set(kernel, address, 2, 0, null_mut()), 716);
}
