//! A GPU: its context, its kernels, and the workspaces that clusterings take turns in.

use crate::{driver, error::DeviceError, kernels::Modules, workspace::Workspace};
use cust::{
    CudaFlags,
    context::{Context, CurrentContext},
    device::{Device, DeviceAttribute},
    error::CudaError,
    memory::mem_get_info,
};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The oldest generation with TF32 tensor cores.
const OLDEST: (i32, i32) = (8, 0);

/// A sixteenth of the free memory is left to others.
const LEFT_FREE: usize = 16;

pub(crate) struct Card {
    // In the order that they are given back in.
    pool: Mutex<Pool>,
    given_back: Condvar,
    pub(crate) modules: Modules,
    context: Context,
    pub(crate) name: String,
    pub(crate) multiprocessors: u32,
    /// Bytes that all clusterings together may take.
    pub(crate) memory: usize,
}

struct Pool {
    /// Bytes that are in no workspace.
    free: usize,
    /// Workspaces that nobody uses.
    idle: Vec<Workspace>,
}

impl Card {
    /// Opens GPU number `ordinal`; `most` bytes of its memory, or most of what is free.
    pub(crate) fn open(ordinal: u32, most: Option<usize>) -> Result<Self, DeviceError> {
        driver::load()?;
        let no_device = |error: CudaError| DeviceError::NoDevice { reason: error.to_string() };
        cust::init(CudaFlags::empty()).map_err(no_device)?;
        let devices = Device::num_devices().map_err(no_device)?;
        if devices == 0 {
            return Err(no_device(CudaError::NoDevice));
        }
        if ordinal >= devices {
            return Err(DeviceError::NoSuchDevice { ordinal, devices });
        }
        let failed = |error| DeviceError::driver("opening the card", error);
        let device = Device::get_device(ordinal).map_err(failed)?;
        let name = device.name().map_err(failed)?;
        let major = device.get_attribute(DeviceAttribute::ComputeCapabilityMajor).map_err(failed)?;
        let minor = device.get_attribute(DeviceAttribute::ComputeCapabilityMinor).map_err(failed)?;
        let multiprocessors =
            device.get_attribute(DeviceAttribute::MultiprocessorCount).map_err(failed)? as u32;
        if (major, minor) < OLDEST {
            return Err(DeviceError::TooOld { name, major, minor });
        }
        let context = Context::new(device).map_err(failed)?;
        let modules = Modules::load()?;
        let (free, _) = mem_get_info().map_err(failed)?;
        let memory = (free - free / LEFT_FREE).min(most.unwrap_or(usize::MAX));
        Ok(Self {
            pool: Mutex::new(Pool { free: memory, idle: Vec::new() }),
            given_back: Condvar::new(),
            modules,
            context,
            name,
            multiprocessors,
            memory,
        })
    }

    /// Makes the card the one that this thread's calls are for.
    pub(crate) fn make_current(&self) -> Result<(), DeviceError> {
        CurrentContext::set_current(&self.context)
            .map_err(|error| DeviceError::driver("choosing the card", error))
    }

    /// A workspace of at least `bytes`, when there is one.
    pub(crate) fn workspace(&self, bytes: usize) -> Result<Lease<'_>, DeviceError> {
        let mut pool = self.lock();
        loop {
            if let Some(at) = pool.idle.iter().position(|idle| idle.bytes() >= bytes) {
                return Ok(self.lease(pool.idle.swap_remove(at)));
            }
            if pool.free >= bytes {
                // Under the lock: others would only wait in the driver.
                let workspace = Workspace::new(bytes)?;
                pool.free -= bytes;
                return Ok(self.lease(workspace));
            }
            if let Some(too_small) = pool.idle.pop() {
                pool.free += too_small.bytes();
                continue;
            }
            pool = self.given_back.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lease(&self, workspace: Workspace) -> Lease<'_> {
        Lease { card: self, workspace: Some(workspace), is_good: false }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // For the thread that gives everything back. If that fails there is nothing left to be done.
        let _ = self.make_current();
    }
}

/// A workspace in use.
pub(crate) struct Lease<'c> {
    card: &'c Card,
    /// Until it is given back.
    workspace: Option<Workspace>,
    is_good: bool,
}

impl Lease<'_> {
    /// The workspace.
    pub(crate) fn workspace(&mut self) -> &mut Workspace {
        self.workspace.as_mut().expect("it is there until the lease ends")
    }

    /// Gives it back for others: nothing runs in it any more.
    pub(crate) fn give_back(mut self) {
        self.is_good = true;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(workspace) = self.workspace.take() else { return };
        let mut pool = self.card.lock();
        if self.is_good {
            pool.idle.push(workspace);
        } else {
            // After a failure its kernels may still run. Freeing it waits for them.
            pool.free += workspace.bytes();
            drop(workspace);
        }
        self.card.given_back.notify_all();
    }
}
