//! The kernels, as the driver has them.

use crate::error::DeviceError;
use cust::{function::Function, module::Module};

/// Kernels of one file are one module.
pub(crate) struct Modules {
    assign: Module,
    nearest: Module,
    seeding: Module,
    sort: Module,
    update: Module,
}

impl Modules {
    /// Has the driver compile them for the current context's card.
    pub(crate) fn load() -> Result<Self, DeviceError> {
        let load = |ptx| {
            Module::from_ptx(ptx, &[])
                .map_err(|error| DeviceError::driver("compiling the kernels for this card", error))
        };
        Ok(Self {
            assign: load(include_str!("../ptx/assign.ptx"))?,
            nearest: load(include_str!("../ptx/nearest.ptx"))?,
            seeding: load(include_str!("../ptx/seeding.ptx"))?,
            sort: load(include_str!("../ptx/sort.ptx"))?,
            update: load(include_str!("../ptx/update.ptx"))?,
        })
    }
}

macro_rules! kernels {
    ($($module:ident: $($name:ident),*;)*) => {
        /// The kernels of all modules; their sources say what they do.
        pub(crate) struct Kernels<'m> {
            $($(pub(crate) $name: Function<'m>,)*)*
        }

        impl<'m> Kernels<'m> {
            pub(crate) fn new(modules: &'m Modules) -> Result<Self, DeviceError> {
                let failed = |error| DeviceError::driver("looking for a kernel", error);
                Ok(Self { $($($name: modules.$module.get_function(stringify!($name)).map_err(failed)?,)*)* })
            }
        }
    };
}

kernels! {
    assign: decide, take;
    nearest: nearest;
    seeding: sum_odds, finish_pass, draw, gather, compare, keep, append;
    sort: count_digits, offsets_of_counts, scatter, find_starts;
    update: add_members, move_centroids, list_moved;
}
