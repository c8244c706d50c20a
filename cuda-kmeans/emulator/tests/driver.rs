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
    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> u32;
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: c_int) -> u32;
    fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) -> u32;
    fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> u32;
    fn cuCtxSetCurrent(context: Handle) -> u32;
    fn cuCtxGetCurrent(context: *mut Handle) -> u32;
    fn cuCtxSynchronize() -> u32;
    fn cuCtxGetApiVersion(context: Handle, version: *mut c_uint) -> u32;
    fn cuModuleLoadData(module: *mut Handle, image: *const c_void) -> u32;
    fn cuModuleUnload(module: Handle) -> u32;
    fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) -> u32;
    fn cuStreamCreate(stream: *mut Handle, flags: c_uint) -> u32;
    fn cuStreamSynchronize(stream: Handle) -> u32;
    fn cuStreamDestroy_v2(stream: Handle) -> u32;
    fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: c_uint) -> u32;
    fn cuEventCreate(event: *mut Handle, flags: c_uint) -> u32;
    fn cuEventRecord(event: Handle, stream: Handle) -> u32;
    fn cuEventQuery(event: Handle) -> u32;
    fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) -> u32;
    fn cuEventDestroy_v2(event: Handle) -> u32;
    fn cuMemAlloc_v2(address: *mut u64, size: usize) -> u32;
    fn cuMemFree_v2(address: u64) -> u32;
    fn cuMemAllocHost_v2(address: *mut *mut c_void, size: usize) -> u32;
    fn cuMemFreeHost(address: *mut c_void) -> u32;
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, size: usize) -> u32;
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, size: usize) -> u32;
    fn cuMemcpyDtoD_v2(to: u64, from: u64, size: usize) -> u32;
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, size: usize, stream: Handle) -> u32;
    fn cuMemsetD32_v2(to: u64, value: c_uint, count: usize) -> u32;
    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) -> u32;
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32;
    fn cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: Handle) -> u32;
    fn cuFuncSetAttribute(function: Handle, attribute: c_uint, value: c_int) -> u32;
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
    fn cuGetErrorName(error: u32, text: *mut *const c_char) -> u32;
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
const SET: &str = ".version 9.0
.target sm_80
.address_size 64
.visible .entry set(.param .u64 to, .param .u32 offset, .param .align 8 .b8 pair[16])
{
    .reg .b64 %rd<9>;
    .reg .b32 %r<9>;
    ld.param.u64 %rd1, [to];
    ld.param.s32 %rd2, [offset];
    ld.param.u32 %r1, [pair+12];
    add.s64 %rd3, %rd1, %rd2;
    st.global.u32 [%rd3], %r1;
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

/// Loads the kernel of a module.
fn load(text: &str, name: &CStr) -> (Handle, Handle) {
    let text = CString::new(text).unwrap();
    let (mut module, mut function) = (null_mut(), null_mut());
    assert_eq!(call!(cuModuleLoadData(&mut module, text.as_ptr().cast())), 0);
    assert_eq!(call!(cuModuleGetFunction(&mut function, module, name.as_ptr())), 0);
    (module, function)
}

/// Sets the word at an offset of an address to nine.
fn set(function: Handle, mut address: u64, mut offset: i32, stream: Handle) -> u32 {
    let mut pair = [1_u64, 9 << 32];
    let mut parameters: [*mut c_void; 3] =
        [(&raw mut address).cast(), (&raw mut offset).cast(), pair.as_mut_ptr().cast()];
    call!(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, parameters.as_mut_ptr(), null_mut()))
}

#[test]
fn devices() {
    initialize();
    let (mut version, mut count, mut device, mut memory) = (0, 0, 9, 0);
    assert_eq!(call!(cuDriverGetVersion(&mut version)), 0);
    assert!(version >= 11040);
    assert_eq!(call!(cuDeviceGetCount(&mut count)), 0);
    assert_eq!(count, 5);
    assert_eq!(call!(cuDeviceGet(&mut device, 4)), 0);
    assert_eq!(device, 4);
    assert_eq!(call!(cuDeviceGet(&mut device, 5)), 101);
    assert_eq!(call!(cuDeviceTotalMem_v2(&mut memory, 4)), 0);
    assert_eq!(memory, MEMORY);
    let attribute = |number| {
        let mut value = -1;
        assert_eq!(call!(cuDeviceGetAttribute(&mut value, number, 4)), 0);
        value
    };
    assert_eq!([75, 76, 16, 10, 1000].map(attribute), [8, 6, 4, 32, 0]);
    let mut name = [1; 6];
    assert_eq!(call!(cuDeviceGetName(name.as_mut_ptr(), 6, 4)), 0);
    assert_eq!(call!(CStr::from_ptr(name.as_ptr())), c"Emula");
}

#[test]
fn errors_have_names() {
    let mut text = null();
    assert_eq!(call!(cuGetErrorName(700, &mut text)), 0);
    assert_eq!(call!(CStr::from_ptr(text)), c"CUDA_ERROR_ILLEGAL_ADDRESS");
    assert_eq!(call!(cuGetErrorString(2, &mut text)), 0);
    assert_eq!(call!(CStr::from_ptr(text)), c"out of memory");
    assert_eq!(call!(cuGetErrorString(12345, &mut text)), 1);
    assert!(text.is_null());
}

#[test]
fn contexts_are_of_a_thread() {
    let context = enter(0);
    let (mut current, mut version) = (null_mut(), 0);
    assert_eq!(call!(cuCtxGetCurrent(&mut current)), 0);
    assert_eq!(current, context);
    assert_eq!(call!(cuCtxGetApiVersion(context, &mut version)), 0);
    assert_eq!(std::thread::spawn(|| call!(cuCtxSynchronize())).join().unwrap(), 201);
    assert_eq!(call!(cuCtxSynchronize()), 0);
    let again = enter(0);
    assert_eq!(again, context);
    assert_eq!(call!(cuDevicePrimaryCtxRelease_v2(0)), 0);
    assert_eq!(call!(cuCtxSynchronize()), 0);
    assert_eq!(call!(cuDevicePrimaryCtxRelease_v2(0)), 0);
    assert_eq!(call!(cuCtxSynchronize()), 201);
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
    assert_eq!((free, total), (0, MEMORY));
    assert_eq!(one % 256, 0);
    let from: Vec<u8> = (0..200).collect();
    let mut to = vec![0; 200];
    assert_eq!(call!(cuMemcpyHtoD_v2(one + 800, from.as_ptr().cast(), 200)), 0);
    assert_eq!(call!(cuMemcpyHtoD_v2(one + 801, from.as_ptr().cast(), 200)), 1);
    assert_eq!(call!(cuMemcpyDtoD_v2(other, one + 800, 200)), 0);
    assert_eq!(call!(cuMemsetD8_v2(other + 3, 77, 2)), 0);
    assert_eq!(call!(cuMemsetD32_v2(other + 8, 0x0102_0304, 1)), 0);
    assert_eq!(call!(cuMemsetD32_v2(other + 9, 1, 1)), 1);
    assert_eq!(call!(cuMemcpyDtoH_v2(to.as_mut_ptr().cast(), other, 200)), 0);
    assert_eq!(to[..13], [0, 1, 2, 77, 77, 5, 6, 7, 4, 3, 2, 1, 12]);
    assert_eq!(to[13..], from[13..]);
    assert_eq!(call!(cuMemFree_v2(one + 256)), 1);
    assert_eq!(call!(cuMemFree_v2(one)), 0);
    assert_eq!(call!(cuMemFree_v2(one)), 1);
    assert_eq!(call!(cuMemcpyDtoH_v2(to.as_mut_ptr().cast(), one, 1)), 1);
    let mut pinned = null_mut();
    assert_eq!(call!(cuMemAllocHost_v2(&mut pinned, 100)), 0);
    assert_eq!(call!(cuMemcpyDtoH_v2(pinned, other, 100)), 0);
    assert_eq!(call!(pinned.cast::<u8>().add(99).read()), 99);
    assert_eq!(call!(cuMemFreeHost(pinned)), 0);
    assert_eq!(call!(cuMemFreeHost(pinned)), 1);
}

#[test]
fn streams_and_events_end() {
    enter(2);
    let (mut stream, mut start, mut end, mut time) = (null_mut(), null_mut(), null_mut(), -1.0);
    assert_eq!(call!(cuStreamCreate(&mut stream, 1)), 0);
    assert_eq!(call!(cuEventCreate(&mut start, 0)), 0);
    assert_eq!(call!(cuEventCreate(&mut end, 0)), 0);
    assert_eq!(call!(cuEventRecord(start, stream)), 0);
    assert_eq!(call!(cuEventElapsedTime(&mut time, start, end)), 400);
    assert_eq!(call!(cuEventRecord(end, null_mut())), 0);
    assert_eq!(call!(cuEventElapsedTime(&mut time, start, end)), 0);
    assert!(time >= 0.0);
    assert_eq!(call!(cuStreamWaitEvent(stream, end, 0)), 0);
    assert_eq!(call!(cuEventDestroy_v2(end)), 0);
    assert_eq!(call!(cuEventQuery(end)), 400);
    assert_eq!(call!(cuStreamWaitEvent(stream, end, 0)), 400);
    assert_eq!(call!(cuStreamSynchronize(stream)), 0);
    assert_eq!(call!(cuStreamDestroy_v2(stream)), 0);
    assert_eq!(call!(cuStreamSynchronize(stream)), 400);
    assert_eq!(call!(cuEventRecord(start, stream)), 400);
    assert_eq!(call!(cuMemcpyHtoDAsync_v2(0, null(), 0, stream)), 400);
}

#[test]
fn kernels_run() {
    enter(3);
    let (module, function) = load(SET, c"set");
    let (mut address, mut words, mut again, mut value) = (0, [0_u32; 2], null_mut(), 0);
    assert_eq!(call!(cuModuleGetFunction(&mut again, module, c"set".as_ptr())), 0);
    assert_eq!(again, function);
    assert_eq!(call!(cuModuleGetFunction(&mut again, module, c"unset".as_ptr())), 500);
    assert_eq!(call!(cuMemAlloc_v2(&mut address, 8)), 0);
    assert_eq!(set(function, address, 4, null_mut()), 0);
    assert_eq!(call!(cuMemcpyDtoH_v2(words.as_mut_ptr().cast(), address, 8)), 0);
    assert_eq!(words, [0, 9]);
    assert_eq!(set(function, address + 8, -8, null_mut()), 0);
    assert_eq!(set(function, address, 4, module), 400);
    let shared =
        |bytes| call!(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, bytes, null_mut(), null_mut(), null_mut()));
    assert_eq!(shared(60_000), 1);
    assert_eq!(call!(cuFuncSetAttribute(function, 8, 60_000)), 0);
    assert_eq!(call!(cuFuncGetAttribute(&mut value, 8, function)), 0);
    assert_eq!(value, 60_000);
    assert_eq!(call!(cuFuncSetAttribute(function, 8, 200_000)), 1);
    assert_eq!(call!(cuModuleUnload(module)), 0);
    assert_eq!(call!(cuModuleUnload(module)), 400);
    assert_eq!(set(function, address, 4, null_mut()), 400);
    let bad = CString::new(SET.replace("add.s64", "frobnicate.s64")).unwrap();
    let mut refused = null_mut();
    assert_eq!(call!(cuModuleLoadData(&mut refused, bad.as_ptr().cast())), 218);
}

#[test]
fn errors_stay() {
    enter(4);
    let (_, function) = load(SET, c"set");
    let (mut address, mut other) = (0, 0);
    assert_eq!(call!(cuMemAlloc_v2(&mut address, 8)), 0);
    assert_eq!(set(function, address, 8, null_mut()), 700);
    assert_eq!(call!(cuCtxSynchronize()), 700);
    assert_eq!(call!(cuMemAlloc_v2(&mut other, 8)), 700);
    assert_eq!(set(function, address, 4, null_mut()), 700);
    assert_eq!(call!(cuDevicePrimaryCtxRelease_v2(4)), 0);
    enter(4);
    assert_eq!(call!(cuCtxSynchronize()), 0);
    let (_, function) = load(SET, c"set");
    assert_eq!(call!(cuMemAlloc_v2(&mut address, 8)), 0);
    assert_eq!(set(function, address, 2, null_mut()), 716);
}
