//! Memory as threads see it.

use super::{
    copies::Pending,
    memory::{Memory, number_at, set_number_at},
    order::Order,
    shared::{Kind, Shared},
};
use crate::{
    error::Wrong,
    program::{LOCAL_WINDOW, Layout, PARAMETER_WINDOW, SHARED_WINDOW, START, Space},
};

/// All that a block's threads can access.
pub(super) struct Spaces<'a> {
    pub(super) global: &'a mut Memory,
    pub(super) shared: Shared,
    pub(super) order: Order,
    pub(super) parameters: &'a [u8],
    /// Memory of each thread's own, one after the other.
    pub(super) local: Vec<u8>,
    /// Where a thread's own variables are.
    pub(super) locals: &'a Layout,
}

impl Spaces<'_> {
    /// The space of a generic address, and the address in it.
    fn resolve(space: Space, address: u64) -> (Space, u64) {
        match space {
            Space::Generic => match address {
                SHARED_WINDOW..LOCAL_WINDOW => (Space::Shared, address - SHARED_WINDOW),
                LOCAL_WINDOW..PARAMETER_WINDOW => (Space::Local, address - LOCAL_WINDOW),
                _ if (PARAMETER_WINDOW..2 * PARAMETER_WINDOW).contains(&address) => {
                    (Space::Parameter, address - PARAMETER_WINDOW)
                }
                _ => (Space::Global, address),
            },
            _ => (space, address),
        }
    }

    /// Reads 1 to 16 bytes.
    pub(super) fn load(
        &mut self,
        thread: u16,
        space: Space,
        address: u64,
        size: usize,
    ) -> Result<u128, Box<Wrong>> {
        let (space, address) = Self::resolve(space, address);
        match space {
            Space::Shared => {
                let at = self.shared.touch(Kind::Read, thread, address & 0xFFFF_FFFF, size, &self.order)?;
                Ok(self.shared.get(at, size))
            }
            Space::Local => Ok(number_at(&self.local, self.local_place(thread, address, size)?, size)),
            Space::Parameter => Ok(number_at(self.parameters, self.parameter_place(address, size)?, size)),
            Space::Global | Space::Constant | Space::Generic => self.global.load(address, size),
        }
    }

    /// Writes 1 to 16 bytes.
    pub(super) fn store(
        &mut self,
        thread: u16,
        space: Space,
        address: u64,
        size: usize,
        value: u128,
    ) -> Result<(), Box<Wrong>> {
        let (space, address) = Self::resolve(space, address);
        match space {
            Space::Shared => {
                let at = self.shared.touch(Kind::Write, thread, address & 0xFFFF_FFFF, size, &self.order)?;
                self.shared.set(at, size, value);
            }
            Space::Local => {
                let at = self.local_place(thread, address, size)?;
                set_number_at(&mut self.local, at, size, value);
            }
            Space::Parameter => {
                return Err(Wrong::illegal(format!("parameter address {address:#x} is written")));
            }
            Space::Global | Space::Constant | Space::Generic => self.global.store(address, size, value)?,
        }
        Ok(())
    }

    /// Replaces a value in one step. Gives what was there.
    pub(super) fn exchange(
        &mut self,
        thread: u16,
        space: Space,
        address: u64,
        size: usize,
        new: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Box<Wrong>> {
        let (space, address) = Self::resolve(space, address);
        if space == Space::Shared {
            let at = self.shared.touch(Kind::Atomic, thread, address & 0xFFFF_FFFF, size, &self.order)?;
            let old = self.shared.get(at, size) as u64;
            self.shared.set(at, size, u128::from(new(old)));
            return Ok(old);
        }
        let old = self.load(thread, space, address, size)? as u64;
        self.store(thread, space, address, size, u128::from(new(old)))?;
        Ok(old)
    }

    /// Starts a copy from global to shared memory: both are checked now, as the copy may happen at any time until it is awaited.
    pub(super) fn start_copy(
        &mut self,
        thread: u16,
        to: u64,
        from: u64,
        size: usize,
        read: usize,
    ) -> Result<Pending, Box<Wrong>> {
        if read > size {
            return Err(Wrong::failed(format!("cp.async of {size} bytes reads {read} bytes")));
        }
        if !from.is_multiple_of(size as u64) {
            return Err(Wrong::misaligned(from, size));
        }
        let mut value = 0;
        if read == size {
            value = self.global.load(from, size)?;
        } else {
            for at in 0..read {
                value |= self.global.load(from + at as u64, 1)? << (8 * at);
            }
        }
        let start = self.shared.touch(Kind::Write, thread, to & 0xFFFF_FFFF, size, &self.order)?;
        self.shared.set_copied(start, size, Some(thread));
        Ok(Pending { address: to & 0xFFFF_FFFF, size, value })
    }

    /// Finishes copies.
    pub(super) fn finish_copies(&mut self, thread: u16, copies: &[Pending]) -> Result<(), Box<Wrong>> {
        for copy in copies {
            self.shared.set_copied(copy.address as usize, copy.size, None);
            let at = self.shared.touch(Kind::Write, thread, copy.address, copy.size, &self.order)?;
            self.shared.set(at, copy.size, copy.value);
        }
        Ok(())
    }

    /// Where a thread's own address is.
    fn local_place(&self, thread: u16, address: u64, size: usize) -> Result<usize, Box<Wrong>> {
        let at = place(address, size)?;
        let belongs =
            |&(_, start, length): &(String, usize, usize)| start <= at && at + size <= start + length;
        if !self.locals.variables.iter().any(belongs) {
            return Err(Wrong::illegal(format!(
                "local address {address:#x} ({size} bytes) is in no variable"
            )));
        }
        Ok(usize::from(thread) * self.locals.room() + at - START)
    }

    /// Where a parameter's address is.
    fn parameter_place(&self, address: u64, size: usize) -> Result<usize, Box<Wrong>> {
        match place(address, size)?.checked_sub(START) {
            Some(at) if at + size <= self.parameters.len() => Ok(at),
            _ => Err(Wrong::illegal(format!(
                "parameter address {address:#x} ({size} bytes) is beyond the last"
            ))),
        }
    }
}

/// An address as a number that has room for more.
fn place(address: u64, size: usize) -> Result<usize, Box<Wrong>> {
    if !address.is_multiple_of(size as u64) {
        return Err(Wrong::misaligned(address, size));
    }
    Ok(usize::try_from(address).unwrap_or(usize::MAX).min(usize::MAX / 2))
}
