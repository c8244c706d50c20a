//! Tokens that have left the window, laid out by code: immutable, and shared by the stores that were forked from one another.

use super::{
    layout::{Layout, Memory},
    log::bytes_of,
    sums::{self, Sum},
};
use crate::{
    dispatch::Kernels,
    dtype::{Dtype, Elements},
    error::{Error, Result, expect_len},
    estimate::Sums,
    memory::{Pages, Reservation},
    rows::Rows,
};
use std::{fmt, ops::Range, sync::Arc};

/// A base as flat slices: what a file of it holds.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The codes' rows, `[rows, 2 · width]`, positions ascending within a code.
    pub rows: Elements<'a>,
    /// `[codes + 1]`: the first row of each code, and the number of rows.
    pub offsets: &'a [u32],
    /// `[rows]`: the position of each row.
    pub positions: &'a [u32],
    /// Sums of values, a slot for each code that has rows, in their order.
    pub sums: Sums<'a>,
}

/// Memory that holds a base: a store's own, or somebody else's, a mapped file for instance. It is asked for its parts each time
/// they are needed, and must always give the same.
pub trait BaseMemory: Send + Sync {
    /// The parts.
    fn parts(&self) -> Parts<'_>;
}

/// Tokens of a range of positions, laid out by code.
#[derive(Clone)]
pub struct Base {
    memory: Arc<dyn BaseMemory>,
    layout: Layout,
    /// The tokens are at these positions.
    positions: Range<usize>,
    /// `[codes + 1]`
    offsets: Arc<[u32]>,
    /// The codes that have rows: which sums there are.
    slots: Arc<[u16]>,
    /// Where the base was cut: what is left.
    cut: Option<Cut>,
    /// Whether the memory is a store's own.
    is_own: bool,
}

/// What is left of a base whose last positions were cut off.
#[derive(Clone)]
struct Cut {
    /// `[codes]`: how many of each code's rows.
    counts: Arc<[u32]>,
    sums: Arc<OwnSums>,
}

/// Sums of a base that was cut.
struct OwnSums {
    numbers: Reservation,
    scales: Vec<f32>,
}

impl fmt::Debug for Base {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Base")
            .field("positions", &self.positions)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl Base {
    /// Tokens at `positions` in somebody's memory.
    ///
    /// # Errors
    /// If the parts do not fit the layout, one another or the positions.
    pub fn new(layout: Layout, positions: Range<usize>, memory: Arc<dyn BaseMemory>) -> Result<Self> {
        layout.check()?;
        if positions.start > positions.end {
            let need = format!("a base that begins at {} ends there or behind it", positions.start);
            return Err(Error::Position { position: positions.end, need });
        }
        let parts = memory.parts();
        expect_len("offsets of a base", parts.offsets.len(), layout.codes + 1)?;
        let rows = positions.len();
        let (first, last) = (parts.offsets[0], parts.offsets[layout.codes]);
        if first != 0 || last as usize != rows || !parts.offsets.is_sorted() {
            let supported = "ascending numbers from 0 to the number of rows";
            return Err(Error::Unsupported {
                what: "offsets of a base",
                got: format!("{first} to {last}"),
                supported,
            });
        }
        expect_len("positions of a base", parts.positions.len(), rows)?;
        expect_len("rows of a base", parts.rows.len(), rows.saturating_mul(2 * layout.width()))?;
        if parts.rows.dtype() != layout.dtype {
            let got = parts.rows.dtype().to_string();
            return Err(Error::Unsupported {
                what: "storage type of a base",
                got,
                supported: "that of the store",
            });
        }
        check_positions(&parts, &positions)?;
        let base = Self::trusted(layout, positions, memory.clone(), false);
        parts.sums.check(base.slots.len(), layout.width())?;
        if matches!(parts.sums, Sums::F32(_)) != (layout.dtype == Dtype::F32) {
            let (what, got) = ("type of value sums", "other".to_owned());
            return Err(Error::Unsupported {
                what,
                got,
                supported: "f32 beside f32 rows, int8 beside others",
            });
        }
        Ok(base)
    }

    /// The same without checks.
    pub(super) fn trusted(
        layout: Layout,
        positions: Range<usize>,
        memory: Arc<dyn BaseMemory>,
        is_own: bool,
    ) -> Self {
        let offsets: Arc<[u32]> = memory.parts().offsets.into();
        let has_rows = |code: &u16| offsets[usize::from(*code)] < offsets[usize::from(*code) + 1];
        let slots = (0..layout.codes).map(|code| code as u16).filter(has_rows).collect();
        Self { memory, layout, positions, offsets, slots, cut: None, is_own }
    }

    /// The layout of the stores that it fits.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// The positions of its tokens.
    pub fn positions(&self) -> Range<usize> {
        self.positions.clone()
    }

    /// How many tokens it holds.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The flat slices it lies in; none if positions were cut off behind it, which the slices still hold.
    pub fn parts(&self) -> Option<Parts<'_>> {
        self.cut.is_none().then(|| self.memory.parts())
    }

    /// Whether others use its memory too, or it is not the store's own.
    pub(super) fn is_shared(&self) -> bool {
        !self.is_own || Arc::strong_count(&self.memory) > 1
    }

    /// All rows there are in memory, those that were cut off included.
    pub(super) fn rows(&self) -> Rows<'_> {
        let rows = Rows::new(self.memory.parts().rows, self.layout.head_dim);
        rows.unwrap_or_else(|_| unreachable!("the layout was checked"))
    }

    /// The rows of a code.
    pub(super) fn of_code(&self, code: usize) -> Range<usize> {
        let start = self.offsets[code];
        let end = self.cut.as_ref().map_or(self.offsets[code + 1], |cut| start + cut.counts[code]);
        start as usize..end as usize
    }

    /// How many rows each code has, added to `counts`, `[codes]`.
    pub(super) fn add_counts(&self, counts: &mut [u32]) {
        match &self.cut {
            None => {
                for (count, offsets) in counts.iter_mut().zip(self.offsets.windows(2)) {
                    *count += offsets[1] - offsets[0];
                }
            }
            Some(cut) => {
                for (count, of_code) in counts.iter_mut().zip(cut.counts.iter()) {
                    *count += of_code;
                }
            }
        }
    }

    /// A row as it is stored.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        let bytes = self.layout.row_bytes();
        &bytes_of(self.memory.parts().rows)[row * bytes..(row + 1) * bytes]
    }

    /// The code and the row of every token at a position from `start` on.
    pub(super) fn from(&self, start: usize) -> impl Iterator<Item = (usize, u16, usize)> {
        self.slots.iter().flat_map(move |&code| {
            let rows = self.of_code(code.into());
            let positions = self.positions_of(rows.clone());
            let before = positions.partition_point(|&position| (position as usize) < start);
            positions[before..]
                .iter()
                .zip(rows.start + before..)
                .map(move |(&position, row)| (position as usize, code, row))
        })
    }

    /// The positions of some rows.
    pub(super) fn positions_of(&self, rows: Range<usize>) -> &[u32] {
        &self.memory.parts().positions[rows]
    }

    /// The codes that have rows in it, and so a slot in its sums.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// How many rows the code of each slot has.
    pub(super) fn counts_of_slots(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().map(|&code| self.of_code(code.into()).len() as u32)
    }

    /// The sums of values, a slot for each code of [`Base::slots`].
    pub fn sums(&self) -> Sums<'_> {
        match &self.cut {
            None => self.memory.parts().sums,
            Some(cut) => cut.sums.see(&self.layout),
        }
    }

    /// Its memory: what it was made of counts as shared, and what a cut takes besides too where forks have the same one. Offsets are
    /// there twice, in the memory and beside it; those in somebody else's count once.
    pub(super) fn bytes(&self) -> Memory {
        let of_token = self.layout.row_bytes() + size_of::<u32>();
        let made = self.offsets[self.layout.codes] as usize * of_token
            + self.slots.len() * (self.layout.sum_bytes() + size_of::<u16>())
            + self.offsets.len() * size_of::<u32>() * if self.is_own { 2 } else { 1 };
        let of_cut = self.slots.len() * self.layout.sum_bytes() + self.layout.codes * size_of::<u32>();
        match &self.cut {
            None => Memory { own: 0, shared: made },
            Some(cut) if Arc::strong_count(&cut.sums) > 1 => Memory { own: 0, shared: made + of_cut },
            Some(_) => Memory { own: of_cut, shared: made },
        }
    }

    /// What is left of it before `end`, with the sums of that; nothing, if there is nothing.
    pub(super) fn before(&self, kernels: &dyn Kernels, end: usize) -> Result<Option<Self>> {
        if end <= self.positions.start {
            return Ok(None);
        }
        if end >= self.positions.end {
            return Ok(Some(self.clone()));
        }
        let counts: Arc<[u32]> = (0..self.layout.codes)
            .map(|code| {
                let rows = self.of_code(code);
                let positions = self.positions_of(rows);
                positions.partition_point(|&position| (position as usize) < end) as u32
            })
            .collect();
        let cut = Cut { sums: Arc::new(self.sums_of(kernels, &counts)?), counts };
        Ok(Some(Self { positions: self.positions.start..end, cut: Some(cut), ..self.clone() }))
    }

    /// The sums of the first rows of each code, so many of each.
    fn sums_of(&self, kernels: &dyn Kernels, counts: &[u32]) -> Result<OwnSums> {
        let slots = self.slots.len();
        let mut sums = OwnSums::new(&self.layout, slots)?;
        let mut sum = Sum::new(self.layout);
        for (slot, &code) in self.slots.iter().enumerate() {
            let first = self.offsets[usize::from(code)] as usize;
            sum.add(kernels, self.rows(), first..first + counts[usize::from(code)] as usize)?;
            sum.put(slot, slots, sums.numbers.bytes_mut(), &mut sums.scales);
        }
        Ok(sums)
    }
}

impl OwnSums {
    fn new(layout: &Layout, slots: usize) -> Result<Self> {
        let number = if layout.dtype == Dtype::F32 { size_of::<f32>() } else { 1 };
        let numbers = Reservation::of_rows(slots, layout.width() * number, Pages::Huge)?;
        Ok(Self { numbers, scales: vec![0.0; if layout.scale_bytes() > 0 { slots } else { 0 }] })
    }

    fn see(&self, layout: &Layout) -> Sums<'_> {
        sums::see(layout, self.numbers.bytes(), &self.scales)
    }
}

/// Whether positions ascend within each code, and are those of the range, each once.
fn check_positions(parts: &Parts<'_>, range: &Range<usize>) -> Result<()> {
    let mut is_there = vec![false; range.len()];
    for code in parts.offsets.windows(2) {
        let of_code = &parts.positions[code[0] as usize..code[1] as usize];
        if !of_code.is_sorted() {
            let need = "positions ascend within a code".to_owned();
            return Err(Error::Position { position: of_code.first().map_or(0, |&at| at as usize), need });
        }
        for &position in of_code {
            let place = (position as usize).checked_sub(range.start).and_then(|at| is_there.get_mut(at));
            match place {
                Some(place) if !*place => *place = true,
                _ => {
                    let need = format!("a base of {range:?} holds each of these once");
                    return Err(Error::Position { position: position as usize, need });
                }
            }
        }
    }
    Ok(())
}
