//! A store beside lists of its tokens, and what must be so of the two; a base's parts in other memory.

use a2ats_kernel::{
    Dtype, Elements, Kernels,
    decode::{Choice, Sparsity},
    estimate::{STRIP, Sums},
    rows::{Rows, row_width},
    store::{Base, BaseMemory, Parts, Store},
};
use a2ats_tests::{
    inputs::{Noise, ROUNDING, rounded},
    reference::retrieval::retrieve,
};
use half::{bf16, f16};
use std::sync::Arc;

pub const HEAD_DIM: usize = 18;

/// A store, and all that was put into it.
pub struct Pair {
    pub store: Store,
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
    pub codes: Vec<u16>,
}

impl Pair {
    pub fn new(sparsity: &Sparsity, dtype: Dtype, codes: usize) -> Self {
        Self::with_capacity(sparsity, dtype, codes, 2000)
    }

    pub fn with_capacity(sparsity: &Sparsity, dtype: Dtype, codes: usize, capacity: usize) -> Self {
        let store = Store::new(sparsity.layout(dtype, HEAD_DIM, codes), capacity).unwrap();
        Self { store, keys: Vec::new(), values: Vec::new(), codes: Vec::new() }
    }

    pub fn append(&mut self, noise: &mut Noise, tokens: usize) {
        let layout = self.store.layout();
        let (keys, values) = (noise.vector(tokens * HEAD_DIM, 3.0), noise.vector(tokens * HEAD_DIM, 3.0));
        let codes = noise.codes(tokens, layout.codes);
        self.store.append(&keys, &values, &codes).unwrap();
        self.keys.extend(rounded(layout.dtype, &keys));
        self.values.extend(rounded(layout.dtype, &values));
        self.codes.extend(codes);
    }

    /// Tokens that have left the window are refused, and keep their codes.
    pub fn recode(&mut self, noise: &mut Noise, tokens: usize) {
        let (layout, len) = (self.store.layout(), self.codes.len());
        let codes = noise.codes(tokens, layout.codes);
        let left = layout.window_start(len) - layout.sinks.min(len);
        let newest = if left == 0 { len } else { len.min(layout.window) };
        let done = self.store.set_codes(&codes);
        assert_eq!(done.is_ok(), tokens <= newest, "{tokens} of {len}: {done:?}");
        if done.is_ok() {
            self.codes[len - tokens..].copy_from_slice(&codes);
        }
    }

    pub fn truncate(&mut self, kernels: &dyn Kernels, tokens: usize) {
        self.store.truncate(kernels, tokens).unwrap();
        self.codes.truncate(tokens);
        self.keys.truncate(tokens * HEAD_DIM);
        self.values.truncate(tokens * HEAD_DIM);
    }

    pub fn fork(&self) -> Self {
        let store = self.store.fork().unwrap();
        Self { store, keys: self.keys.clone(), values: self.values.clone(), codes: self.codes.clone() }
    }

    /// All rows lie where the positions say, each once, with the codes in order of position.
    pub fn assert_content(&self) {
        assert_eq!((self.store.len(), self.store.is_empty()), (self.codes.len(), self.codes.is_empty()));
        assert_eq!(self.store.codes(), self.codes);
        let mut runs = Vec::new();
        self.store.all_rows(&mut runs);
        let positions = self.store.positions(&runs).unwrap();
        let mut sorted = positions.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..self.codes.len() as u32).collect::<Vec<_>>());
        let (areas, width) = (self.store.areas(), row_width(HEAD_DIM));
        let rows = runs.iter().flat_map(|run| run.rows().map(|row| (run.area as usize, row)));
        for ((area, row), position) in rows.zip(positions) {
            let row = of_row(&areas[area], row);
            let token = position as usize * HEAD_DIM..(position as usize + 1) * HEAD_DIM;
            assert_eq!(row[..HEAD_DIM], self.keys[token.clone()]);
            assert_eq!(row[width..width + HEAD_DIM], self.values[token]);
            assert!(row[HEAD_DIM..width].iter().chain(&row[width + HEAD_DIM..]).all(|&x| x == 0.0));
        }
    }

    /// Before any position from the end of the bases on there are the rows of all tokens before it.
    pub fn assert_rows_before(&self) {
        let (first, len) =
            (self.store.bases().last().map_or(0, |base| base.positions().end), self.codes.len());
        for end in [first, first.midpoint(len), len] {
            let mut runs = Vec::new();
            self.store.rows_before(end, &mut runs);
            let mut positions = self.store.positions(&runs).unwrap();
            positions.sort_unstable();
            assert_eq!(positions, (0..end as u32).collect::<Vec<_>>());
        }
    }

    /// All that has left the window lies in bases.
    pub fn assert_sorted(&self) {
        let layout = self.store.layout();
        let end = self.store.bases().last().map_or(layout.sinks, |base| base.positions().end);
        assert_eq!(end, layout.window_start(self.store.len()).max(layout.sinks));
    }

    /// Bases hold what has left the window, by code, with the sums of that.
    pub fn assert_bases(&self) {
        let layout = self.store.layout();
        let mut end = layout.sinks;
        for base in self.store.bases() {
            assert_eq!(base.positions().start, end);
            end = base.positions().end;
            assert!(end <= layout.window_start(self.store.len()));
            assert_eq!(base.is_empty(), base.positions().is_empty());
            self.assert_sums(base);
            let Some(parts) = base.parts() else { continue };
            let slots: Vec<u16> = base.slots().to_vec();
            let again = Base::new(layout, base.positions(), Arc::new(Copied::of(&parts))).unwrap();
            assert_eq!((again.slots(), again.positions()), (&slots[..], base.positions()));
            let (again, parts) = (again.parts().unwrap(), base.parts().unwrap());
            assert_eq!(again.rows.to_f32(), parts.rows.to_f32());
            assert_eq!((again.offsets, again.positions), (parts.offsets, parts.positions));
        }
    }

    pub fn assert_sums(&self, base: &Base) {
        let (slots, width) = (base.slots().len(), row_width(HEAD_DIM));
        for (slot, &code) in base.slots().iter().enumerate() {
            let of_code: Vec<usize> =
                base.positions().filter(|&position| self.codes[position] == code).collect();
            let value = |i: usize| {
                of_code.iter().map(move |position| f64::from(self.values[position * HEAD_DIM + i]))
            };
            let largest = (0..HEAD_DIM).map(|i| value(i).sum::<f64>().abs()).fold(0.0, f64::max);
            for i in 0..width {
                let want: f64 = if i < HEAD_DIM { value(i).sum() } else { 0.0 };
                let size: f64 = if i < HEAD_DIM { value(i).map(f64::abs).sum() } else { 0.0 };
                let at = (i / STRIP * slots + slot) * STRIP + i % STRIP;
                let (got, allowed) = match base.sums() {
                    Sums::F32(numbers) => (f64::from(numbers[at]), 0.0),
                    Sums::Int8 { numbers, scales } => {
                        (f64::from(numbers[at]) * f64::from(scales[slot]), largest / 253.9)
                    }
                };
                let allowed = allowed + 16.0 * ROUNDING * (size + largest);
                assert!((got - want).abs() <= allowed, "code {code}, column {i}: {got}, want {want}");
            }
        }
    }

    /// What is chosen is what the specification says.
    pub fn assert_chosen(
        &mut self,
        kernels: &dyn Kernels,
        noise: &mut Noise,
        sparsity: &Sparsity,
        group: usize,
    ) {
        let codes = self.store.layout().codes;
        // Whole numbers, so that scores tie.
        let scores = noise.whole_numbers(group * codes, 2);
        let mut choice = Choice::default();
        let amount = choice.choose(kernels, &mut self.store, sparsity, &scores).unwrap();
        let heads: Vec<Vec<f64>> =
            scores.chunks_exact(codes).map(|scores| scores.iter().map(|&x| f64::from(x)).collect()).collect();
        let of_tokens: Vec<usize> = self.codes.iter().map(|&code| code.into()).collect();
        let Sparsity { retrieve: share, window, sinks, .. } = *sparsity;
        let want = retrieve(&heads, &of_tokens, of_tokens.len(), share, window, sinks);
        let mut positions = self.store.positions(choice.runs()).unwrap();
        positions.sort_unstable();
        let attended: Vec<u32> = (0..).zip(&want.attended).filter(|(_, is)| **is).map(|(at, _)| at).collect();
        assert_eq!(positions, attended);
        assert_eq!(amount.picked, want.picked.iter().filter(|picked| **picked).count());
    }
}

/// The elements of a row.
pub fn of_row(rows: &Rows<'_>, row: usize) -> Vec<f32> {
    let width = 2 * row_width(HEAD_DIM);
    rows.elements().range(row * width..(row + 1) * width).unwrap().to_f32()
}

/// A base in memory of somebody else.
pub struct Copied {
    pub dtype: Dtype,
    /// Whether its sums are f32, or else int8.
    sums_are_f32: bool,
    pub rows: (Vec<f32>, Vec<f16>, Vec<bf16>),
    pub offsets: Vec<u32>,
    pub positions: Vec<u32>,
    pub sums: Vec<f32>,
    pub numbers: Vec<i8>,
    pub scales: Vec<f32>,
}

impl Copied {
    pub fn of(parts: &Parts<'_>) -> Self {
        let mut copied = Self {
            dtype: parts.rows.dtype(),
            sums_are_f32: matches!(parts.sums, Sums::F32(_)),
            rows: (Vec::new(), Vec::new(), Vec::new()),
            offsets: parts.offsets.to_vec(),
            positions: parts.positions.to_vec(),
            sums: Vec::new(),
            numbers: Vec::new(),
            scales: Vec::new(),
        };
        match parts.rows {
            Elements::F32(rows) => copied.rows.0 = rows.to_vec(),
            Elements::F16(rows) => copied.rows.1 = rows.to_vec(),
            Elements::Bf16(rows) => copied.rows.2 = rows.to_vec(),
        }
        match parts.sums {
            Sums::F32(sums) => copied.sums = sums.to_vec(),
            Sums::Int8 { numbers, scales } => {
                (copied.numbers, copied.scales) = (numbers.to_vec(), scales.to_vec())
            }
        }
        copied
    }
}

impl BaseMemory for Copied {
    fn parts(&self) -> Parts<'_> {
        let rows = match self.dtype {
            Dtype::F32 => Elements::F32(&self.rows.0),
            Dtype::F16 => Elements::F16(&self.rows.1),
            Dtype::Bf16 => Elements::Bf16(&self.rows.2),
        };
        let sums = if self.sums_are_f32 {
            Sums::F32(&self.sums)
        } else {
            Sums::Int8 { numbers: &self.numbers, scales: &self.scales }
        };
        Parts { rows, offsets: &self.offsets, positions: &self.positions, sums }
    }
}
