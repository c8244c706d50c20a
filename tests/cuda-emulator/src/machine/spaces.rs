//! Memory as threads see it.

use super::{
    copies::Pending,
    memory::Memory,
    order::Order,
    shared::{Kind, Shared},
};
use crate::{error::Wrong, program::Space};

/// All that a block's threads can access.
pub(super) struct Spaces<'a> {
    pub(super) global: &'a mut Memory,
    pub(super) shared: Shared,
    pub(super) order: Order,
}

impl Spaces<'_> {
    /// Reads up to 16 bytes.
    pub(super) fn load(
        &mut self,
        thread: u16,
        space: Space,
        address: u64,
        size: usize,
    ) -> Result<u128, Box<Wrong>> {
        match space {
            Space::Global => self.global.load(address, size),
            Space::Shared => {
                let at = self.shared.touch(Kind::Read, thread, address, size, &self.order)?;
                Ok(self.shared.get(at, size))
            }
        }
    }

    /// Writes up to 16 bytes.
    pub(super) fn store(
        &mut self,
        thread: u16,
        space: Space,
        address: u64,
        size: usize,
        value: u128,
    ) -> Result<(), Box<Wrong>> {
        match space {
            Space::Global => self.global.store(address, size, value),
            Space::Shared => {
                let at = self.shared.touch(Kind::Write, thread, address, size, &self.order)?;
                self.shared.set(at, size, value);
                Ok(())
            }
        }
    }

    /// Starts a copy from global to shared memory: both are checked now, as it may happen at any time until it is awaited.
    pub(super) fn start_copy(
        &mut self,
        thread: u16,
        to: u64,
        from: u64,
        read: usize,
    ) -> Result<Pending, Box<Wrong>> {
        if read > 16 {
            return Err(Wrong::failed(format!("cp.async of 16 bytes reads {read} bytes")));
        }
        if !from.is_multiple_of(16) {
            return Err(Wrong::misaligned(from, 16));
        }
        let mut value = 0;
        if read == 16 {
            value = self.global.load(from, 16)?;
        } else {
            for at in 0..read {
                value |= self.global.load(from + at as u64, 1)? << (8 * at);
            }
        }
        let start = self.shared.touch(Kind::Write, thread, to, 16, &self.order)?;
        self.shared.set_copied(start, 16, Some(thread));
        Ok(Pending { address: to, value })
    }

    /// Finishes copies.
    pub(super) fn finish_copies(&mut self, thread: u16, copies: &[Pending]) -> Result<(), Box<Wrong>> {
        for copy in copies {
            self.shared.set_copied(copy.address as usize, 16, None);
            self.store(thread, Space::Shared, copy.address, 16, copy.value)?;
        }
        Ok(())
    }
}
