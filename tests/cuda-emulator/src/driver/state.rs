//! Devices, contexts, and what belongs to these.

use super::{
    code::{Code, INVALID_CONTEXT, INVALID_DEVICE, NOT_INITIALIZED},
    settings::Settings,
};
use crate::device::{Device, Module};
use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    ffi::c_void,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// What the caller knows a thing by. Numbers are never used again.
pub(super) type Handle = *mut c_void;

/// More than the kernels of a module. The handle of a kernel is that of its module and its own number, from one.
pub(super) const KERNELS: usize = 1 << 12;

/// All that there is, once initialized.
static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

thread_local! {
    /// The context of the calling thread; zero is none.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// All devices.
pub(super) struct Driver {
    pub(super) settings: Settings,
    /// The primary context of each device.
    pub(super) primary: Vec<Option<usize>>,
    contexts: HashMap<usize, Context>,
    latest: usize,
}

/// A context.
pub(super) struct Context {
    pub(super) device: Device,
    pub(super) profile: bool,
    /// How often it was retained.
    pub(super) uses: usize,
    /// The error that all calls end with.
    pub(super) broken: Option<Code>,
    pub(super) modules: HashMap<usize, Module>,
    pub(super) streams: HashSet<usize>,
    /// When each was recorded.
    pub(super) events: HashMap<usize, Option<Instant>>,
    pub(super) pinned: HashMap<usize, Vec<u128>>,
    latest: usize,
}

/// Initializes the driver, unless it is.
pub(super) fn initialize(settings: Settings) {
    let mut driver = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    driver.get_or_insert_with(|| Driver {
        settings,
        primary: vec![None; settings.devices],
        contexts: HashMap::new(),
        latest: 0,
    });
}

/// Does something with the driver.
pub(super) fn with_driver<T>(act: impl FnOnce(&mut Driver) -> Result<T, Code>) -> Result<T, Code> {
    let mut driver = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    act(driver.as_mut().ok_or(NOT_INITIALIZED)?)
}

/// Does something with the context of the calling thread, if nothing has gone wrong in it.
pub(super) fn with_context<T>(act: impl FnOnce(&mut Context) -> Result<T, Code>) -> Result<T, Code> {
    with_driver(|driver| {
        let context = driver.contexts.get_mut(&CURRENT.get()).ok_or(INVALID_CONTEXT)?;
        match context.broken {
            Some(code) => Err(code),
            None => act(context),
        }
    })
}

impl Driver {
    /// The number of a device.
    pub(super) fn ordinal(&self, device: i32) -> Result<usize, Code> {
        let ordinal = usize::try_from(device).map_err(|_| INVALID_DEVICE)?;
        if ordinal < self.primary.len() { Ok(ordinal) } else { Err(INVALID_DEVICE) }
    }

    /// Retains the primary context of a device.
    pub(super) fn retain(&mut self, ordinal: usize) -> usize {
        let handle = self.primary[ordinal].unwrap_or_else(|| {
            self.latest += 1 << 32;
            let mut context = Context::new(self.settings);
            context.latest = self.latest;
            self.contexts.insert(self.latest, context);
            self.latest
        });
        self.primary[ordinal] = Some(handle);
        if let Some(context) = self.contexts.get_mut(&handle) {
            context.uses += 1;
        }
        handle
    }

    /// Gives the primary context of a device back; whoever is last destroys it.
    pub(super) fn release(&mut self, ordinal: usize) -> Result<(), Code> {
        let handle = self.primary[ordinal].ok_or(INVALID_CONTEXT)?;
        let context = self.contexts.get_mut(&handle).ok_or(INVALID_CONTEXT)?;
        context.uses -= 1;
        if context.uses == 0 {
            self.contexts.remove(&handle);
            self.primary[ordinal] = None;
        }
        Ok(())
    }

    /// Whether a context is there.
    pub(super) fn has_context(&self, handle: usize) -> bool {
        self.contexts.contains_key(&handle)
    }
}

/// Sets the context of the calling thread.
pub(super) fn set_current(handle: usize) {
    CURRENT.set(handle);
}

impl Context {
    fn new(settings: Settings) -> Self {
        Self {
            device: Device::new(settings.memory, settings.seed),
            profile: settings.profile,
            uses: 0,
            broken: None,
            modules: HashMap::new(),
            streams: HashSet::new(),
            events: HashMap::new(),
            pinned: HashMap::new(),
            latest: 0,
        }
    }

    /// A number for something new. The low bits are zero.
    pub(super) fn number(&mut self) -> usize {
        self.latest += KERNELS;
        self.latest
    }
}

/// The handle of a number.
pub(super) fn handle(number: usize) -> Handle {
    std::ptr::without_provenance_mut(number)
}
