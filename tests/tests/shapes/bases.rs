//! Bases in other memory, and stores that go on from them.

use crate::{
    Case,
    attention::stored,
    draw::{Draw, numbers},
    stores::{content, layout, rows_of},
};
use a2ats_kernel::{
    Dtype,
    estimate::Sums,
    store::{Base, BaseMemory, Layout, Parts, Store},
};
use a2ats_tests::inputs::Stored;
use std::{ops::Range, sync::Arc};

pub const CASES: &[Case] = &[("Base::new", base), ("Store::from_base", from_base)];

/// A base in other memory.
struct Memory {
    rows: Stored,
    offsets: Vec<u32>,
    positions: Vec<u32>,
    floats: Option<Vec<f32>>,
    numbers: Vec<i8>,
    scales: Vec<f32>,
}

impl BaseMemory for Memory {
    fn parts(&self) -> Parts<'_> {
        let Self { rows, offsets, positions, floats, numbers, scales } = self;
        let sums = floats.as_ref().map_or(Sums::Int8 { numbers, scales }, |floats| Sums::F32(floats));
        Parts { rows: rows.elements(), offsets, positions, sums }
    }
}

impl Memory {
    /// Tokens at `range`, whose codes take turns.
    fn new(layout: &Layout, range: Range<usize>) -> Self {
        let (codes, mut offsets, mut positions) = (layout.codes, vec![0], Vec::new());
        for code in 0..codes {
            positions.extend(range.clone().skip(code).step_by(codes).map(|position| position as u32));
            offsets.push(positions.len() as u32);
        }
        let slots = range.len().min(codes);
        let len = slots * layout.width();
        Self {
            rows: stored(range.len(), layout.head_dim, layout.dtype),
            offsets,
            positions,
            floats: (layout.dtype == Dtype::F32).then(|| numbers(len)),
            numbers: vec![1; len],
            scales: numbers(slots),
        }
    }
    /// Whether it holds the tokens of `range`, in the order of a base.
    fn holds(&self, layout: &Layout, range: &Range<usize>) -> bool {
        let (rows, width) = (range.len(), layout.width());
        let offsets: Vec<usize> = self.offsets.iter().map(|&offset| offset as usize).collect();
        let are_offsets = offsets.len() == layout.codes + 1
            && (offsets.first(), offsets.last()) == (Some(&0), Some(&rows))
            && offsets.is_sorted();
        if range.start > range.end || !are_offsets || self.positions.len() != rows {
            return false;
        }
        let mut ordered = self.positions.clone();
        ordered.sort_unstable();
        let slots = offsets.windows(2).filter(|code| code[0] < code[1]).count();
        let (elements, are_floats) = (self.rows.elements(), self.floats.is_some());
        ordered.into_iter().eq(range.clone().map(|position| position as u32))
            && offsets.windows(2).all(|code| self.positions[code[0]..code[1]].is_sorted())
            && (elements.dtype(), elements.len()) == (layout.dtype, rows * 2 * width)
            && are_floats == (layout.dtype == Dtype::F32)
            && self.numbers.len() == slots * width
            && (are_floats || self.scales.len() == slots)
    }

    /// Changes some of it.
    fn change(&mut self, draw: &mut Draw<'_>, layout: &Layout) {
        let dtype = draw.instead(layout.dtype, &[Dtype::F32, Dtype::F16, Dtype::Bf16]);
        let of_rows = draw.len(self.rows.elements().len());
        self.rows = Stored::new(dtype, &numbers(of_rows), 3);
        let (offset, position) = (draw.below(self.offsets.len()), draw.below(self.positions.len().max(1)));
        self.offsets[offset] = draw.narrow(self.offsets[offset] as usize);
        let (offsets, rows) = (draw.len(self.offsets.len()), self.positions.len());
        self.offsets.resize(offsets, rows as u32);
        if let Some(position) = self.positions.get_mut(position) {
            *position = draw.narrow(*position as usize);
        }
        self.positions.resize(draw.len(rows), 0);
        let (of_sums, scales) = (draw.len(self.numbers.len()), draw.len(self.scales.len()));
        self.numbers.resize(of_sums, 1);
        self.scales.resize(scales, 1.0);
        let are_floats = draw.instead(self.floats.is_some(), &[true, false]);
        self.floats = are_floats.then(|| numbers(of_sums));
    }
}

/// The layout of a base and its positions.
fn of_base(draw: &mut Draw<'_>) -> (Layout, Range<usize>) {
    let (dtype, head_dim, codes) = (draw.dtype(), draw.head_dim(), 1 + draw.below(5));
    let sinks = draw.below(4);
    let layout = Layout { window: 1 + draw.below(3), sinks, ..layout(dtype, head_dim, codes) };
    (layout, sinks..sinks + draw.below(20))
}

fn base(draw: &mut Draw<'_>) {
    let (layout, range) = of_base(draw);
    let mut memory = Memory::new(&layout, range.clone());
    memory.change(draw, &layout);
    let start = draw.instead(range.start, &[range.start + 1, 0, range.end, usize::MAX]);
    let range = start..draw.number(range.end);
    let fits = memory.holds(&layout, &range);
    draw.hold(Base::new(layout, range, Arc::new(memory)), fits, true);
}

fn from_base(draw: &mut Draw<'_>) {
    let (layout, range) = of_base(draw);
    let start = draw.len(range.start);
    let range = start..start + range.len();
    let memory = Memory::new(&layout, range.clone());
    let base = Base::new(layout, range.clone(), Arc::new(memory)).unwrap();
    let window = layout.window + draw.below(3);
    let capacity = draw.number(range.end + window);
    let tokens = |draw: &mut Draw<'_>, good: usize| {
        let count = draw.len(good);
        let (rows, codes) = (draw.len(count * layout.head_dim), draw.len(count));
        (numbers(rows), vec![0_u16; codes])
    };
    let (sinks, window) = (tokens(draw, layout.sinks), tokens(draw, window));
    let done =
        Store::from_base(base, capacity, (&sinks.0, &sinks.0, &sinks.1), (&window.0, &window.0, &window.1));
    let are_tokens = |(rows, codes): &(Vec<f32>, Vec<u16>)| rows.len() == codes.len() * layout.head_dim;
    let (kept, len) = (layout.sinks.min(capacity), range.end + window.1.len());
    let fits = are_tokens(&sinks)
        && are_tokens(&window)
        && (range.start, sinks.1.len()) == (kept, kept)
        && len <= capacity
        && capacity < 1 << 31
        // What is in the window lies behind the base.
        && (layout.window <= window.1.len() || range.is_empty());
    if let Ok(mut store) = done.as_ref().map(|store| store.fork().unwrap()) {
        let runs = content(&store).3;
        assert_eq!((store.len(), rows_of(&runs)), (len, len));
        store.counts(&mut Vec::new()).unwrap();
        store.sort(draw.kernels).unwrap();
        store.truncate(draw.kernels, len / 2).unwrap();
        assert_eq!(rows_of(&content(&store).3), len / 2);
    }
    draw.hold(done, fits, true);
}
