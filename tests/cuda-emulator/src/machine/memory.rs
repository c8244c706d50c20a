//! Global memory: allocations that are far from each other.

use crate::error::Wrong;

/// Bits of an address within an allocation's part of the address space: more than any allocation is large.
const PART: u32 = 36;

/// Where an allocation starts in its part: far from both ends, at an address that is a multiple of 256 and of no more.
const START: u64 = (1 << (PART - 1)) + 256;

/// Memory of a device.
#[derive(Debug)]
pub struct Memory {
    /// By number; `None` once freed, so that addresses are never used again.
    allocations: Vec<Option<Allocation>>,
    capacity: usize,
    used: usize,
}

#[derive(Debug)]
struct Allocation {
    bytes: Vec<u8>,
    /// A bit for each byte that has been written.
    written: Vec<u64>,
}

impl Memory {
    /// Memory of so many bytes.
    pub fn new(capacity: usize) -> Self {
        Self { allocations: Vec::new(), capacity, used: 0 }
    }

    /// Bytes that are free, and all bytes.
    pub fn room(&self) -> (usize, usize) {
        (self.capacity - self.used, self.capacity)
    }

    /// The address of new memory, unless there is none.
    pub fn allocate(&mut self, size: usize) -> Option<u64> {
        let taken = size.checked_next_multiple_of(256)?;
        if taken > self.capacity - self.used || size as u64 >= START / 2 {
            return None;
        }
        self.used += taken;
        let (bytes, written) = (vec![0; size], vec![0; size.div_ceil(64)]);
        self.allocations.push(Some(Allocation { bytes, written }));
        Some(address_of(self.allocations.len() - 1))
    }

    /// Frees memory; false if the address is not the start of any.
    pub fn free(&mut self, address: u64) -> bool {
        let number = (address >> PART).wrapping_sub(1) as usize;
        let known = address & ((1 << PART) - 1) == START;
        let freed = self.allocations.get_mut(number).filter(|_| known).and_then(Option::take);
        let Some(allocation) = freed else { return false };
        self.used -= allocation.bytes.len().next_multiple_of(256);
        true
    }

    /// The allocation and the offset of an address.
    fn locate(&self, address: u64, size: usize) -> Result<(usize, usize), Box<Wrong>> {
        let number = (address >> PART).wrapping_sub(1) as usize;
        if let Some(Some(allocation)) = self.allocations.get(number) {
            let offset = (address & ((1 << PART) - 1)).wrapping_sub(START);
            if offset <= (allocation.bytes.len() as u64).wrapping_sub(size as u64)
                && size <= allocation.bytes.len()
            {
                return Ok((number, offset as usize));
            }
        }
        Err(self.beyond(address, size))
    }

    /// Says where an address is that is in no allocation.
    #[cold]
    fn beyond(&self, address: u64, size: usize) -> Box<Wrong> {
        let number = (address >> PART).wrapping_sub(1) as usize;
        let place = match self.allocations.get(number) {
            Some(Some(allocation)) => {
                let (start, length) = (address_of(number), allocation.bytes.len() as u64);
                let end = start + length;
                let distance = match address {
                    _ if address < start => format!("{} bytes before the start", start - address),
                    _ if address < end => format!("{} bytes before the end", end - address),
                    _ => format!("{} bytes past the end", address - end),
                };
                format!("{distance} of the {length} bytes at {start:#x}")
            }
            Some(None) => "in memory that has been freed".to_owned(),
            None => "in no memory".to_owned(),
        };
        Wrong::illegal(format!("global address {address:#x} ({size} bytes) is {place}"))
    }

    /// Reads 1 to 16 bytes, as a number.
    pub(super) fn load(&self, address: u64, size: usize) -> Result<u128, Box<Wrong>> {
        if !address.is_multiple_of(size as u64) {
            return Err(Wrong::misaligned(address, size));
        }
        let (number, offset) = self.locate(address, size)?;
        let Some(allocation) = &self.allocations[number] else { return Err(self.beyond(address, size)) };
        let ones = (1 << size) - 1;
        if allocation.written[offset / 64] >> (offset % 64) & ones != ones {
            return Err(Wrong::failed(format!(
                "{size} bytes at global address {address:#x} were never written"
            )));
        }
        Ok(number_at(&allocation.bytes, offset, size))
    }

    /// Writes 1 to 16 bytes.
    pub(super) fn store(&mut self, address: u64, size: usize, value: u128) -> Result<(), Box<Wrong>> {
        if !address.is_multiple_of(size as u64) {
            return Err(Wrong::misaligned(address, size));
        }
        let (number, offset) = self.locate(address, size)?;
        let Some(allocation) = &mut self.allocations[number] else { return Err(self.beyond(address, size)) };
        allocation.written[offset / 64] |= ((1 << size) - 1) << (offset % 64);
        set_number_at(&mut allocation.bytes, offset, size, value);
        Ok(())
    }

    /// Copies from the host; false if the memory is not there.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let Some((allocation, offset)) = self.part(address, bytes.len()) else { return false };
        allocation.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        allocation.mark(offset, bytes.len());
        true
    }

    /// Copies to the host; false if the memory is not there.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let Ok((number, offset)) = self.locate(address, bytes.len()) else { return false };
        let Some(allocation) = &self.allocations[number] else { return false };
        bytes.copy_from_slice(&allocation.bytes[offset..offset + bytes.len()]);
        true
    }

    /// Repeats a byte; false if the memory is not there.
    pub fn fill(&mut self, address: u64, value: u8, count: usize) -> bool {
        let Some((allocation, offset)) = self.part(address, count) else { return false };
        allocation.bytes[offset..offset + count].fill(value);
        allocation.mark(offset, count);
        true
    }

    /// An allocation, and an offset in it where so many bytes follow.
    fn part(&mut self, address: u64, size: usize) -> Option<(&mut Allocation, usize)> {
        let (number, offset) = self.locate(address, size).ok()?;
        Some((self.allocations[number].as_mut()?, offset))
    }
}

impl Allocation {
    /// Marks bytes as written.
    fn mark(&mut self, start: usize, length: usize) {
        let end = start + length;
        let mut at = start;
        while at < end {
            let stop = end.min((at / 64 + 1) * 64);
            self.written[at / 64] |= (!0 >> (64 - (stop - at))) << (at % 64);
            at = stop;
        }
    }
}

/// The first address of an allocation.
fn address_of(number: usize) -> u64 {
    ((number as u64 + 1) << PART) + START
}

/// The number that bytes are.
pub(super) fn number_at(bytes: &[u8], at: usize, size: usize) -> u128 {
    let mut number = [0; 16];
    match size {
        4 => number[..4].copy_from_slice(&bytes[at..at + 4]),
        8 => number[..8].copy_from_slice(&bytes[at..at + 8]),
        16 => number.copy_from_slice(&bytes[at..at + 16]),
        _ => number[..size].copy_from_slice(&bytes[at..at + size]),
    }
    u128::from_le_bytes(number)
}

/// Sets the bytes of a number.
pub(super) fn set_number_at(bytes: &mut [u8], at: usize, size: usize, value: u128) {
    let number = value.to_le_bytes();
    match size {
        4 => bytes[at..at + 4].copy_from_slice(&number[..4]),
        8 => bytes[at..at + 8].copy_from_slice(&number[..8]),
        16 => bytes[at..at + 16].copy_from_slice(&number),
        _ => bytes[at..at + size].copy_from_slice(&number[..size]),
    }
}
