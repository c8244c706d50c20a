//! What a clustering needs of the card: memory, streams, and pinned memory to copy through. Allocating any of it makes the whole card wait,
//! so that it is kept for the next clustering.

#![allow(unsafe_code, reason = "copies run while the program goes on")]

use crate::{error::DeviceError, layout::Region};
use bytemuck::Pod;
use cust::{
    event::{Event, EventFlags},
    memory::{AsyncCopyDestination, DeviceBuffer, DeviceCopy, DevicePointer, DeviceSlice, LockedBuffer},
    stream::{Stream, StreamFlags, StreamWaitEventFlags},
};

/// Words of each piece of pinned memory, if rows are not longer.
const STAGING: usize = 1 << 21;

pub(crate) struct Workspace {
    memory: DeviceBuffer<u8>,
    /// Where kernels run, and small copies.
    pub(crate) stream: Stream,
    /// Where points come in.
    pub(crate) copies: Stream,
    /// One is filled while the other is copied.
    staging: [LockedBuffer<u32>; 2],
    /// When each was copied.
    copied: [Option<Event>; 2],
    /// Which one is next.
    next: usize,
}

impl Workspace {
    pub(crate) fn new(bytes: usize) -> Result<Self, DeviceError> {
        let failed = |what| move |error| DeviceError::driver(what, error);
        let pinned = |_| LockedBuffer::new(&0, STAGING).map_err(failed("reserving pinned memory"));
        let stream = || Stream::new(StreamFlags::DEFAULT, None).map_err(failed("making a stream"));
        Ok(Self {
            // SAFETY: nothing is read from it that was not written before.
            memory: unsafe { DeviceBuffer::uninitialized(bytes) }
                .map_err(failed("reserving memory of the card"))?,
            stream: stream()?,
            copies: stream()?,
            staging: [pinned(0)?, pinned(1)?],
            copied: [None, None],
            next: 0,
        })
    }

    /// How much memory of the card this is.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// Where an array begins.
    pub(crate) fn at<T: DeviceCopy>(&self, region: Region<T>) -> DevicePointer<T> {
        DevicePointer::from_raw(self.memory.as_device_ptr().as_raw() + region.offset as u64)
    }

    /// A part of an array.
    fn slice<T: DeviceCopy>(&self, region: Region<T>, first: usize, len: usize) -> DeviceSlice<T> {
        debug_assert!(first + len <= region.len, "{first} + {len} of {}", region.len);
        // SAFETY: it lies within the memory, by the layout that this workspace was made for.
        unsafe { DeviceSlice::from_raw_parts_mut(self.at(region).wrapping_add(first), len) }
    }

    /// Sets all bytes of an array, when the stream gets there.
    pub(crate) fn fill<T: DeviceCopy + Pod>(&self, region: Region<T>, byte: u8) -> Result<(), DeviceError> {
        // SAFETY: the array is of numbers, and what uses it is on the same stream.
        unsafe { self.slice(region, 0, region.len).set_8_async(byte, &self.stream) }
            .map_err(|error| DeviceError::driver("filling memory", error))
    }

    /// Copies from an array, and waits for it.
    pub(crate) fn download<T: DeviceCopy + Pod>(&mut self, region: Region<T>) -> Result<Vec<T>, DeviceError> {
        let failed = |error| DeviceError::driver("copying from the card", error);
        let words = Region::<u32>::same_bytes(region);
        self.free_staging(0)?;
        let mut all = vec![T::zeroed(); region.len];
        let mut first = 0;
        for part in bytemuck::cast_slice_mut::<T, u32>(&mut all).chunks_mut(STAGING) {
            let from = self.slice(words, first, part.len());
            let pinned = &mut self.staging[0].as_mut_slice()[..part.len()];
            // SAFETY: the stream is waited for before the pinned memory is used.
            unsafe { from.async_copy_to(pinned, &self.stream) }.map_err(failed)?;
            self.stream.synchronize().map_err(failed)?;
            part.copy_from_slice(&self.staging[0].as_slice()[..part.len()]);
            first += part.len();
        }
        Ok(all)
    }

    /// Copies to an array, and waits for it.
    pub(crate) fn upload<T: DeviceCopy + Pod>(
        &mut self,
        region: Region<T>,
        all: &[T],
    ) -> Result<(), DeviceError> {
        let failed = |error| DeviceError::driver("copying to the card", error);
        let words = Region::<u32>::same_bytes(region);
        self.free_staging(0)?;
        let mut first = 0;
        for part in bytemuck::cast_slice::<T, u32>(all).chunks(STAGING) {
            let mut to = self.slice(words, first, part.len());
            let pinned = &mut self.staging[0].as_mut_slice()[..part.len()];
            pinned.copy_from_slice(part);
            // SAFETY: the stream is waited for before the pinned memory changes.
            unsafe { to.async_copy_from(&*pinned, &self.stream) }.map_err(failed)?;
            self.stream.synchronize().map_err(failed)?;
            first += part.len();
        }
        Ok(())
    }

    /// Waits until a piece of pinned memory was copied from.
    fn free_staging(&mut self, turn: usize) -> Result<(), DeviceError> {
        let wait = |copied: Event| copied.synchronize();
        self.copied[turn]
            .take()
            .map_or(Ok(()), wait)
            .map_err(|error| DeviceError::driver("waiting for a copy", error))
    }

    /// Copies rows of `stride` numbers to `region` from row `first` on, while the program goes on. `fill` writes a row, counted from 0, over
    /// whatever was there.
    pub(crate) fn stream_rows(
        &mut self,
        region: Region<f32>,
        first: usize,
        rows: usize,
        stride: usize,
        fill: impl Fn(usize, &mut [f32]),
    ) -> Result<(), DeviceError> {
        let failed = |error| DeviceError::driver("copying points to the card", error);
        let words = Region::<u32>::same_bytes(region);
        if self.staging[0].len() < stride {
            let longer = |_| LockedBuffer::new(&0, stride).map_err(failed);
            self.staging = [longer(0)?, longer(1)?];
        }
        let at_a_time = self.staging[0].len() / stride;
        for from in (0..rows).step_by(at_a_time) {
            let some = at_a_time.min(rows - from);
            let turn = self.next;
            self.next = 1 - turn;
            self.free_staging(turn)?;
            let pinned = &mut self.staging[turn].as_mut_slice()[..some * stride];
            for (row, to) in bytemuck::cast_slice_mut(pinned).chunks_exact_mut(stride).enumerate() {
                fill(from + row, to);
            }
            let pinned = &self.staging[turn].as_slice()[..some * stride];
            let mut to = self.slice(words, (first + from) * stride, some * stride);
            // SAFETY: the event below is waited for before the pinned memory changes.
            unsafe { to.async_copy_from(pinned, &self.copies) }.map_err(failed)?;
            self.copied[turn] = Some(record(&self.copies)?);
        }
        Ok(())
    }
}

/// An event for where a stream is now.
pub(crate) fn record(stream: &Stream) -> Result<Event, DeviceError> {
    let failed = |error| DeviceError::driver("recording an event", error);
    let event = Event::new(EventFlags::DISABLE_TIMING).map_err(failed)?;
    event.record(stream).map_err(failed)?;
    Ok(event)
}

/// Lets what comes next on a stream wait for an event.
pub(crate) fn wait(stream: &Stream, event: Event) -> Result<(), DeviceError> {
    stream
        .wait_event(event, StreamWaitEventFlags::DEFAULT)
        .map_err(|error| DeviceError::driver("waiting for an event", error))
}
