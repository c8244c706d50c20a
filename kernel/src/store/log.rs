//! The newest tokens of a store: rows in order of position behind the rows of the sinks, their codes, and which of them have left
//! the window, by code.

use super::layout::Layout;
use crate::{
    dtype::{Dtype, Elements},
    error::{Error, Result, expect_len},
    memory::{Pages, Reservation},
    rows::Rows,
    simd::Stored,
};
use half::{bf16, f16};
use std::ops::Range;

/// A token that has left the window: its code, then its row, so that entries sort by code and then by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) code: u16,
    pub(super) row: u32,
}

#[derive(Debug)]
pub(super) struct Log {
    /// Room for as many rows as the store may have.
    memory: Reservation,
    /// The code of each row; 0 where there are no codes.
    pub(super) codes: Vec<u16>,
    /// Rows that are filled.
    pub(super) len: usize,
    /// The position of the first row behind the sinks.
    pub(super) first: usize,
    /// Rows behind the sinks that have left the window, as far as they were entered.
    pub(super) entries: Vec<Entry>,
}

impl Log {
    /// An empty log with address space for `rows` rows, the first of which behind the sinks is at position `first`.
    pub(super) fn new(layout: &Layout, first: usize, rows: usize) -> Result<Self> {
        let memory = Reservation::of_rows(rows, layout.row_bytes(), Pages::Small)?;
        Ok(Self { memory, codes: Vec::new(), len: 0, first, entries: Vec::new() })
    }

    /// Rows there is address space for.
    pub(super) fn capacity(&self, layout: &Layout) -> usize {
        self.memory.len() / layout.row_bytes()
    }

    /// The row of a position, which is a sink or behind all bases.
    pub(super) fn row_of(&self, layout: &Layout, position: usize) -> usize {
        if position < layout.sinks { position } else { layout.sinks + position - self.first }
    }

    /// The position of a row.
    pub(super) const fn position_of(&self, layout: &Layout, row: usize) -> usize {
        if row < layout.sinks { row } else { self.first + row - layout.sinks }
    }

    /// One more than the last position.
    pub(super) const fn end(&self, layout: &Layout) -> usize {
        self.first + self.len - layout.sinks
    }

    pub(super) fn rows<'a>(&'a self, layout: &Layout) -> Rows<'a> {
        let elements =
            Elements::of_bytes(layout.dtype, &self.memory.bytes()[..self.len * layout.row_bytes()]);
        Rows::new(elements, layout.head_dim).unwrap_or_else(|_| unreachable!("the layout was checked"))
    }

    /// Takes room for so many more tokens than there are codes of.
    pub(super) fn check_room(&mut self, tokens: usize) -> Result<()> {
        try_reserve(&mut self.codes, tokens)
    }

    /// Enters what another log has entered, of which this one has all rows.
    pub(super) fn enter_as(&mut self, other: &Self) -> Result<()> {
        try_reserve(&mut self.entries, other.entries.len())?;
        self.entries.extend_from_slice(&other.entries);
        Ok(())
    }

    /// Adds rows; there is room for them.
    pub(super) fn append(&mut self, layout: &Layout, keys: &[f32], values: &[f32], codes: &[u16]) {
        let (tokens, bytes) = (keys.len() / layout.head_dim, layout.row_bytes());
        let (before, after) = (self.len * bytes, (self.len + tokens) * bytes);
        if before < HUGE_PAGES_FROM && after >= HUGE_PAGES_FROM {
            self.memory.use_huge_pages();
        }
        let memory = &mut self.memory.bytes_mut()[self.len * bytes..(self.len + tokens) * bytes];
        match layout.dtype {
            Dtype::F32 => write_rows::<f32>(memory, layout, keys, values),
            Dtype::F16 => write_rows::<f16>(memory, layout, keys, values),
            Dtype::Bf16 => write_rows::<bf16>(memory, layout, keys, values),
        }
        self.codes.extend_from_slice(codes);
        self.codes.resize(self.len + tokens, 0);
        self.len += tokens;
    }

    /// Replaces the codes of the last rows, which are not entered.
    pub(super) fn set_codes(&mut self, codes: &[u16]) {
        let from = self.len - codes.len();
        self.codes[from..].copy_from_slice(codes);
    }

    /// Copies a row that is stored already; there is room for it.
    pub(super) fn push(&mut self, layout: &Layout, row: &[u8], code: u16) {
        let bytes = layout.row_bytes();
        self.memory.bytes_mut()[self.len * bytes..][..bytes].copy_from_slice(row);
        self.codes.push(code);
        self.len += 1;
    }

    /// Copies rows of another log, with their codes; there is room for them.
    pub(super) fn extend(&mut self, layout: &Layout, other: &Self, rows: Range<usize>) {
        let bytes = layout.row_bytes();
        let from = &other.memory.bytes()[rows.start * bytes..rows.end * bytes];
        self.memory.bytes_mut()[self.len * bytes..][..from.len()].copy_from_slice(from);
        self.codes.extend_from_slice(&other.codes[rows.clone()]);
        self.len += rows.len();
    }

    /// The rows that are entered.
    pub(super) fn entered(&self, layout: &Layout) -> Range<usize> {
        layout.sinks..layout.sinks + self.entries.len()
    }

    /// Enters the rows behind the sinks and before row `end` that are not entered yet.
    pub(super) fn enter(&mut self, layout: &Layout, end: usize) -> Result<()> {
        let start = self.entered(layout).end;
        let Some(count) = end.checked_sub(start).filter(|&count| count > 0) else { return Ok(()) };
        try_reserve(&mut self.entries, count)?;
        let before = self.entries.len();
        let new = (start..end).map(|row| Entry { code: self.codes[row], row: row as u32 });
        self.entries.extend(new);
        if count <= FEW {
            // Each to its place; entries of a code ascend by row, and these rows are higher than all before.
            for i in before..self.entries.len() {
                let entry = self.entries[i];
                let at = self.entries[..i].partition_point(|other| *other < entry);
                self.entries[at..=i].rotate_right(1);
            }
        } else {
            self.entries.sort_unstable();
        }
        Ok(())
    }

    /// Takes rows from row `end` on out of what is entered.
    pub(super) fn leave(&mut self, end: usize) {
        self.entries.retain(|entry| (entry.row as usize) < end);
    }

    /// Forgets rows from `len` on, which are not entered.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.codes.truncate(self.len);
    }

    /// The entries of a code.
    pub(super) fn of_code(&self, code: usize) -> &[Entry] {
        let start = self.entries.partition_point(|entry| usize::from(entry.code) < code);
        let of = &self.entries[start..];
        &of[..of.partition_point(|entry| usize::from(entry.code) == code)]
    }

    /// Bytes of memory in use; address space that is not touched does not count.
    pub(super) fn bytes(&self, layout: &Layout) -> usize {
        self.len * layout.row_bytes()
            + self.codes.len() * size_of::<u16>()
            + self.entries.len() * size_of::<Entry>()
    }
}

/// Bytes from which on rows come on huge pages. There may be room for the longest context and a few tokens in it: on huge pages from
/// the beginning, those would take 2 MiB a head.
const HUGE_PAGES_FROM: usize = 2 << 20;

/// Up to so many entries are put in their places one by one.
const FEW: usize = 16;

/// Elements as bytes.
pub(super) fn bytes_of(elements: Elements<'_>) -> &[u8] {
    match elements {
        Elements::F32(elements) => bytemuck::cast_slice(elements),
        Elements::F16(elements) => bytemuck::cast_slice(elements),
        Elements::Bf16(elements) => bytemuck::cast_slice(elements),
    }
}

/// Room for so many more elements, or an error.
pub(super) fn try_reserve<T>(elements: &mut Vec<T>, more: usize) -> Result<()> {
    elements.try_reserve(more).map_err(|error| Error::Memory {
        bytes: (elements.len().saturating_add(more)).saturating_mul(size_of::<T>()),
        reason: error.to_string(),
    })
}

fn write_rows<T: Stored>(memory: &mut [u8], layout: &Layout, keys: &[f32], values: &[f32]) {
    let (width, head_dim) = (layout.width(), layout.head_dim);
    let rows: &mut [T] = bytemuck::cast_slice_mut(memory);
    let tokens = keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim));
    for (row, (key, value)) in rows.chunks_exact_mut(2 * width).zip(tokens) {
        let (key_half, value_half) = row.split_at_mut(width);
        for (half, from) in [(key_half, key), (value_half, value)] {
            // Only rows that were cut off may have been here before: padding stays zero.
            for (to, &x) in half.iter_mut().zip(from) {
                *to = T::round(x);
            }
        }
    }
}

/// Checks the shapes of tokens to append; gives how many there are.
pub(super) fn check_tokens(layout: &Layout, keys: &[f32], values: &[f32], codes: &[u16]) -> Result<usize> {
    let tokens = keys.len() / layout.head_dim;
    expect_len("keys", keys.len(), tokens * layout.head_dim)?;
    expect_len("values", values.len(), keys.len())?;
    expect_len("codes", codes.len(), if layout.codes > 0 { tokens } else { 0 })?;
    check_codes(layout, codes)?;
    Ok(tokens)
}

/// Refuses codes that are not among the codewords.
pub(super) fn check_codes(layout: &Layout, codes: &[u16]) -> Result<()> {
    match codes.iter().find(|&&code| usize::from(code) >= layout.codes) {
        None => Ok(()),
        Some(bad) => {
            let supported = "codes below the number of codewords";
            Err(Error::Unsupported { what: "code", got: bad.to_string(), supported })
        }
    }
}
