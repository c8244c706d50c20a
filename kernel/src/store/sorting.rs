//! Laying out by code: a base is made of the tokens of a log that have left the window, and of bases before them.
//!
//! ```text
//! count the rows of each code                  (offsets)
//! for each code:
//!     for each old base, then the log: copy the code's rows, which are in order of position
//!     add up the values of what was copied
//! ```
//!
//! Old bases lie by code already, so they are read from beginning to end, as the new one is written. It goes on in pieces of as many
//! rows as a caller likes: until the last one the store is as it was.

use super::{
    base::{Base, BaseMemory, Parts},
    layout::Layout,
    log::{Entry, Log, bytes_of, try_reserve},
    sums::{self, Sum},
};
use crate::{
    dispatch::Kernels,
    dtype::Elements,
    error::Result,
    memory::{Pages, Reservation},
    rows::Rows,
};
use std::sync::Arc;

/// A store's own base: rows, then the numbers of the sums, in one piece of memory.
#[derive(Debug)]
struct Owned {
    layout: Layout,
    memory: Reservation,
    row_bytes: usize,
    scales: Vec<f32>,
    offsets: Vec<u32>,
    positions: Vec<u32>,
}

impl BaseMemory for Owned {
    fn parts(&self) -> Parts<'_> {
        let (rows, numbers) = self.memory.bytes().split_at(self.row_bytes);
        Parts {
            rows: Elements::of_bytes(self.layout.dtype, rows),
            offsets: &self.offsets,
            positions: &self.positions,
            sums: sums::see(&self.layout, numbers, &self.scales),
        }
    }
}

/// A base that is being made.
#[derive(Debug)]
pub(super) struct Sorting {
    made: Owned,
    slots: usize,
    /// The first of the bases that go into it; all after it do.
    first_base: usize,
    /// The position of the first token.
    first: usize,
    /// What of the log does: the entries there were in the beginning.
    pub(super) entries: Vec<Entry>,
    sum: Sum,
    done: Done,
    /// The log that will be left.
    pub(super) log: Log,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    code: usize,
    /// Of the code's sources: bases in order, then the log.
    source: usize,
    /// Rows of the source.
    of_source: usize,
    /// All rows.
    rows: usize,
    /// Slots of sums.
    slots: usize,
    entries: usize,
}

impl Sorting {
    /// Takes the room for it.
    pub(super) fn new(
        layout: Layout,
        bases: &[Base],
        (first_base, first): (usize, usize),
        entries: &[Entry],
        log: Log,
    ) -> Result<Self> {
        let mut counts = vec![0; layout.codes];
        for base in &bases[first_base..] {
            base.add_counts(&mut counts);
        }
        for entry in entries {
            counts[usize::from(entry.code)] += 1;
        }
        let slots = counts.iter().filter(|&&count| count > 0).count();
        let rows: usize = counts.iter().map(|&count| count as usize).sum();
        let mut offsets = vec![0];
        offsets.extend(counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }));
        let row_bytes = rows * layout.row_bytes();
        let numbers = slots * (layout.sum_bytes() - layout.scale_bytes());
        let memory = Reservation::new(row_bytes + numbers, Pages::Huge)?;
        let mut positions = Vec::new();
        try_reserve(&mut positions, rows)?;
        let mut taken = Vec::new();
        try_reserve(&mut taken, entries.len())?;
        taken.extend_from_slice(entries);
        let scales = vec![0.0; if layout.scale_bytes() > 0 { slots } else { 0 }];
        let made = Owned { layout, memory, row_bytes, scales, offsets, positions };
        let sum = Sum::new(layout);
        Ok(Self { made, slots, first_base, first, entries: taken, sum, done: Done::default(), log })
    }

    /// Copies up to so many rows; tells whether that was all.
    pub(super) fn go_on(
        &mut self,
        kernels: &dyn Kernels,
        bases: &[Base],
        log: &Log,
        rows: usize,
    ) -> Result<bool> {
        let layout = self.made.layout;
        let end = self.done.rows.saturating_add(rows).min(self.made.offsets[layout.codes] as usize);
        while self.done.code < layout.codes {
            let of_code =
                self.made.offsets[self.done.code] as usize..self.made.offsets[self.done.code + 1] as usize;
            let start = self.done.rows;
            while self.done.rows < of_code.end.min(end) {
                let most = of_code.end.min(end) - self.done.rows;
                self.copy(&bases[self.first_base..], log, most);
            }
            let (made, _) = self.made.memory.bytes().split_at(self.made.row_bytes);
            let made = Rows::new(Elements::of_bytes(layout.dtype, made), layout.head_dim)?;
            self.sum.add(kernels, made, start..self.done.rows)?;
            if self.done.rows < of_code.end {
                return Ok(false);
            }
            if !of_code.is_empty() {
                let (_, numbers) = self.made.memory.bytes_mut().split_at_mut(self.made.row_bytes);
                self.sum.put(self.done.slots, self.slots, numbers, &mut self.made.scales);
                self.done.slots += 1;
            }
            (self.done.code, self.done.source) = (self.done.code + 1, 0);
        }
        Ok(true)
    }

    /// Copies up to `most` rows of the current code from its next source.
    fn copy(&mut self, bases: &[Base], log: &Log, most: usize) {
        let layout = self.made.layout;
        let bytes = layout.row_bytes();
        let Some(base) = bases.get(self.done.source) else {
            for entry in &self.entries[self.done.entries..self.done.entries + most] {
                let row = entry.row as usize;
                let from = bytes_of(log.rows(&layout).elements());
                let to = self.done.rows * bytes;
                self.made.memory.bytes_mut()[to..to + bytes]
                    .copy_from_slice(&from[row * bytes..(row + 1) * bytes]);
                self.made.positions.push(log.position_of(&layout, row) as u32);
                self.done.rows += 1;
            }
            self.done.entries += most;
            return;
        };
        let rows = base.of_code(self.done.code);
        let start = rows.start + self.done.of_source;
        let count = most.min(rows.end - start);
        let from = bytes_of(base.rows().elements());
        let to = self.done.rows * bytes;
        self.made.memory.bytes_mut()[to..to + count * bytes]
            .copy_from_slice(&from[start * bytes..(start + count) * bytes]);
        self.made.positions.extend_from_slice(base.positions_of(start..start + count));
        self.done.rows += count;
        self.done.of_source += count;
        if start + count == rows.end {
            (self.done.source, self.done.of_source) = (self.done.source + 1, 0);
        }
    }

    /// Bytes of memory in use.
    pub(super) fn bytes(&self) -> usize {
        let layout = &self.made.layout;
        self.done.rows * (layout.row_bytes() + size_of::<u32>())
            + self.done.slots * layout.sum_bytes()
            + self.made.offsets.len() * size_of::<u32>()
            + self.entries.len() * size_of::<Entry>()
    }

    /// Which bases it replaces, from the first of them on, the new one, and the log that is left.
    pub(super) fn finish(self) -> (usize, Base, Log) {
        let positions = self.first..self.first + self.made.positions.len();
        let base = Base::trusted(self.made.layout, positions, Arc::new(self.made), true);
        (self.first_base, base, self.log)
    }
}
