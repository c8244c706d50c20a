//! What the environment says about the devices.

use std::{env, str::FromStr};

/// Devices, all alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) devices: usize,
    /// Bytes of memory of each.
    pub(super) memory: usize,
    pub(super) capability: (i32, i32),
    /// The order in which threads run.
    pub(super) seed: u64,
    /// Whether launches say what they did.
    pub(super) profile: bool,
}

impl Settings {
    /// Reads the environment.
    pub(super) fn read() -> Self {
        let capability = env::var("A2ATS_EMULATED_CAPABILITY").ok();
        let capability = capability.as_deref().and_then(|text| text.split_once('.'));
        let numbers = capability.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        Self {
            devices: variable("A2ATS_EMULATED_DEVICES", 1),
            memory: variable("A2ATS_EMULATED_MEMORY", 4 << 30),
            capability: numbers.unwrap_or((8, 0)),
            seed: variable("A2ATS_EMULATED_SEED", 0),
            profile: variable("A2ATS_EMULATED_PROFILE", 0) != 0,
        }
    }
}

/// A number, or what it is by default.
fn variable<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
