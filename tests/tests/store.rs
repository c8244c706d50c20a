//! What a kv head keeps, against a list of its tokens: rows, codes, positions and what is chosen, whatever lies where.

use a2ats_kernel::{
    Dtype, Elements, Error, Kernels, available,
    decode::{Choice, Estimate, Sparsity},
    estimate::{STRIP, Sums},
    rows::{MAX_AREAS, Rows, row_width},
    store::{Base, BaseMemory, Memory, Parts, Store},
};
use a2ats_tests::{
    backends::on_every_backend,
    inputs::{Noise, ROUNDING, config, dtypes, rounded},
    reference::retrieval::retrieve,
};
use half::{bf16, f16};
use proptest::{prelude::*, sample::select};
use std::sync::Arc;

const HEAD_DIM: usize = 18;

/// What happens to a store.
#[derive(Debug, Clone, Copy)]
enum Change {
    Append(usize),
    Choose,
    Sort,
    SortSome(usize),
    /// To so many hundredths of its length.
    Truncate(usize),
    /// Goes on with a fork, or with what was forked.
    Fork(bool),
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => prop_oneof![1_usize..=3, 1_usize..=90].prop_map(Change::Append),
        3 => Just(Change::Choose),
        1 => Just(Change::Sort),
        3 => prop_oneof![0_usize..=9, 0_usize..=200].prop_map(Change::SortSome),
        1 => prop_oneof![select(vec![0_usize, 97, 99]), 0_usize..=100].prop_map(Change::Truncate),
        1 => any::<bool>().prop_map(Change::Fork),
    ]
}

/// A store, and all that was put into it.
struct Pair {
    store: Store,
    keys: Vec<f32>,
    values: Vec<f32>,
    codes: Vec<u16>,
}

impl Pair {
    fn new(sparsity: &Sparsity, dtype: Dtype, codes: usize) -> Self {
        Self::with_capacity(sparsity, dtype, codes, 2000)
    }

    fn with_capacity(sparsity: &Sparsity, dtype: Dtype, codes: usize, capacity: usize) -> Self {
        let store = Store::new(sparsity.layout(dtype, HEAD_DIM, codes), capacity).unwrap();
        Self { store, keys: Vec::new(), values: Vec::new(), codes: Vec::new() }
    }

    fn append(&mut self, noise: &mut Noise, tokens: usize) {
        let layout = self.store.layout();
        let (keys, values) = (noise.vector(tokens * HEAD_DIM, 3.0), noise.vector(tokens * HEAD_DIM, 3.0));
        let codes = noise.codes(tokens, layout.codes);
        self.store.append(&keys, &values, &codes).unwrap();
        self.keys.extend(rounded(layout.dtype, &keys));
        self.values.extend(rounded(layout.dtype, &values));
        self.codes.extend(codes);
    }

    fn truncate(&mut self, kernels: &dyn Kernels, tokens: usize) {
        self.store.truncate(kernels, tokens).unwrap();
        self.codes.truncate(tokens);
        self.keys.truncate(tokens * HEAD_DIM);
        self.values.truncate(tokens * HEAD_DIM);
    }

    fn fork(&self) -> Self {
        let store = self.store.fork().unwrap();
        Self { store, keys: self.keys.clone(), values: self.values.clone(), codes: self.codes.clone() }
    }

    /// All rows lie where the positions say, each once, with the codes in order of position.
    fn assert_content(&self) {
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
    fn assert_rows_before(&self) {
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
    fn assert_sorted(&self) {
        let layout = self.store.layout();
        let end = self.store.bases().last().map_or(layout.sinks, |base| base.positions().end);
        assert_eq!(end, layout.window_start(self.store.len()).max(layout.sinks));
    }

    /// Bases hold what has left the window, by code, with the sums of that.
    fn assert_bases(&self) {
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

    fn assert_sums(&self, base: &Base) {
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
    fn assert_chosen(&mut self, kernels: &dyn Kernels, noise: &mut Noise, sparsity: &Sparsity, group: usize) {
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
fn of_row(rows: &Rows<'_>, row: usize) -> Vec<f32> {
    let width = 2 * row_width(HEAD_DIM);
    rows.elements().range(row * width..(row + 1) * width).unwrap().to_f32()
}

/// A base in memory of somebody else.
struct Copied {
    dtype: Dtype,
    /// Whether its sums are f32, or else int8.
    sums_are_f32: bool,
    rows: (Vec<f32>, Vec<f16>, Vec<bf16>),
    offsets: Vec<u32>,
    positions: Vec<u32>,
    sums: Vec<f32>,
    numbers: Vec<i8>,
    scales: Vec<f32>,
}

impl Copied {
    fn of(parts: &Parts<'_>) -> Self {
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

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_store_holds_and_chooses_what_a_list_does(
        (changes, dtype, codes) in (proptest::collection::vec(changes(), 1..30), dtypes(), prop_oneof![1_usize..=5, 1_usize..=300]),
        (window, sinks, retrieve, group) in (1_usize..=40, 0_usize..=10, 0.0..0.6_f64, 1_usize..=4),
        (capacity, seed) in (prop_oneof![1 => 1_usize..=400, 1 => Just(2000)], any::<u64>()),
    ) {
        let sparsity = Sparsity { retrieve, window, sinks, estimate: Estimate::Fixed };
        let kernels = available()[0];
        let mut noise = Noise::new(seed);
        let mut pair = Pair::with_capacity(&sparsity, dtype, codes, capacity);
        let mut others = Vec::new();
        for change in changes {
            match change {
                Change::Append(tokens) => pair.append(&mut noise, tokens.min(capacity - pair.codes.len())),
                Change::Choose => pair.assert_chosen(kernels, &mut noise, &sparsity, group),
                Change::Sort => {
                    pair.store.sort(kernels).unwrap();
                    pair.assert_sorted();
                }
                Change::SortSome(rows) => { pair.store.sort_some(kernels, rows).unwrap(); }
                Change::Truncate(hundredths) => pair.truncate(kernels, pair.codes.len() * hundredths / 100),
                Change::Fork(swap) => {
                    let mut fork = pair.fork();
                    if swap {
                        std::mem::swap(&mut pair, &mut fork);
                    }
                    others.push(fork);
                }
            }
            pair.assert_content();
            pair.assert_rows_before();
            pair.assert_bases();
        }
        others.push(pair);
        for mut pair in others {
            pair.assert_content();
            pair.assert_bases();
            pair.assert_chosen(kernels, &mut noise, &sparsity, group);
            while !pair.store.sort_some(kernels, 7).unwrap() {}
            pair.assert_sorted();
            pair.assert_content();
            pair.assert_bases();
            pair.assert_chosen(kernels, &mut noise, &sparsity, group);
        }
    }

    #[test]
    fn a_store_goes_on_from_a_base_in_other_memory(
        (tokens, codes, dtype) in (60_usize..=300, 1_usize..=50, dtypes()),
        (window, sinks, more) in (1_usize..=30, 0_usize..=10, 0_usize..=200),
        seed in any::<u64>(),
    ) {
        let sparsity = Sparsity { retrieve: 0.2, window, sinks, estimate: Estimate::Off };
        let (kernels, mut noise) = (available()[0], Noise::new(seed));
        let mut pair = Pair::new(&sparsity, dtype, codes);
        pair.append(&mut noise, tokens);
        pair.store.sort(kernels).unwrap();
        let Some(base) = pair.store.bases().first() else { return Ok(()) };
        let (positions, memory) = (base.positions(), Arc::new(Copied::of(&base.parts().unwrap())));
        let base = Base::new(pair.store.layout(), positions.clone(), memory).unwrap();
        let of = |range: std::ops::Range<usize>| {
            let numbers = range.start * HEAD_DIM..range.end * HEAD_DIM;
            (pair.keys[numbers.clone()].to_vec(), pair.values[numbers].to_vec(), pair.codes[range].to_vec())
        };
        let (first, last) = (of(0..sinks), of(positions.end..tokens));
        let store = Store::from_base(base, 2000, (&first.0, &first.1, &first.2), (&last.0, &last.1, &last.2)).unwrap();
        let mut pair = Pair { store, ..pair };
        pair.assert_content();
        pair.append(&mut noise, more);
        pair.assert_chosen(kernels, &mut noise, &sparsity, 2);
        let before = pair.store.memory();
        pair.store.sort(kernels).unwrap();
        prop_assert!(pair.store.memory().shared >= before.shared, "what lies elsewhere stays there");
        pair.assert_content();
        pair.assert_bases();
        pair.assert_chosen(kernels, &mut noise, &sparsity, 2);
    }
}

/// A fork costs what it has of its own.
#[test]
fn a_fork_takes_little_memory() {
    for head_dim in [64, 128] {
        let layout = Sparsity::default().layout(Dtype::Bf16, head_dim, 4096);
        let mut store = Store::new(layout, 1 << 17).unwrap();
        let mut noise = Noise::new(1);
        let numbers = noise.vector(4096 * head_dim, 1.0);
        store.append(&numbers, &numbers, &noise.codes(4096, 4096)).unwrap();
        store.sort(available()[0]).unwrap();
        let (parent, fork) = (store.memory(), store.fork().unwrap().memory());
        assert_eq!(fork.shared, parent.shared);
        assert!(20 * fork.own < parent.own + parent.shared, "{fork:?} of {parent:?}");
    }
}

/// A store lays out anew what it has for itself, and leaves what others use too where it is, as long as areas suffice.
#[test]
fn forks_of_forks_share_all_the_bases_there_is_room_for() {
    let sparsity = Sparsity { retrieve: 0.3, window: 4, sinks: 2, estimate: Estimate::Fixed };
    let (kernels, mut noise) = (available()[0], Noise::new(13));
    let mut pair = Pair::new(&sparsity, Dtype::Bf16, 6);
    let mut ancestors: Vec<Pair> = Vec::new();
    for generation in 1..=2 * MAX_AREAS {
        for _ in 0..2 {
            pair.append(&mut noise, 40);
            pair.store.sort(kernels).unwrap();
            let bases = pair.store.bases();
            assert_eq!(bases.len(), generation.min(MAX_AREAS - 1));
            let of_parent = ancestors.last().map_or(&[][..], |parent| parent.store.bases());
            for (base, of_parent) in bases[..bases.len() - 1].iter().zip(of_parent) {
                assert!(std::ptr::eq(base.parts().unwrap().positions, of_parent.parts().unwrap().positions));
            }
        }
        let fork = pair.fork();
        ancestors.push(std::mem::replace(&mut pair, fork));
    }
    for mut pair in ancestors {
        pair.assert_content();
        pair.assert_bases();
        pair.assert_sorted();
        pair.assert_chosen(kernels, &mut noise, &sparsity, 3);
    }
}

/// Of a base that is cut all rows stay where they are; its sums and the numbers of its rows are the store's own.
#[test]
fn what_a_cut_takes_is_counted() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let sparsity = Sparsity { window: 20, sinks: 3, ..Sparsity::default() };
        let (kernels, mut noise) = (available()[0], Noise::new(5));
        let mut pair = Pair::new(&sparsity, dtype, 50);
        pair.append(&mut noise, 500);
        pair.store.sort(kernels).unwrap();
        let layout = pair.store.layout();
        let of_token = layout.row_bytes() + size_of::<u16>();
        let shared = pair.store.memory().shared;
        assert_eq!(pair.store.memory(), Memory { own: 23 * of_token, shared });
        pair.truncate(kernels, 300);
        let slots = pair.store.bases()[0].slots().len();
        let of_cut = slots * layout.sum_bytes() + 50 * size_of::<u32>();
        assert_eq!(pair.store.memory(), Memory { own: 23 * of_token + of_cut, shared });
    }
}

#[test]
fn what_is_being_laid_out_is_counted_and_survives_truncation_of_newer_tokens() {
    let sparsity = Sparsity { window: 20, sinks: 3, ..Sparsity::default() };
    let (kernels, mut noise) = (available()[0], Noise::new(6));
    let mut pair = Pair::new(&sparsity, Dtype::F16, 50);
    pair.append(&mut noise, 1000);
    let before = pair.store.memory();
    assert!(!pair.store.sort_some(kernels, 100).unwrap());
    let row = pair.store.layout().row_bytes();
    assert!(pair.store.memory().own >= before.own + 100 * row);
    // Of 977 rows outside the window 100 are done; a token that comes and goes does not begin anew.
    for piece in 2..=10 {
        pair.append(&mut noise, 1);
        pair.truncate(kernels, 1000);
        assert_eq!(pair.store.sort_some(kernels, 100).unwrap(), piece == 10, "{piece}");
    }
    assert_eq!(pair.store.memory().own, 23 * (row + size_of::<u16>()));
    pair.assert_content();
    pair.assert_bases();
    // One that goes into the window again does.
    let mut fork = pair.fork();
    fork.append(&mut noise, 500);
    assert!(!fork.store.sort_some(kernels, 100).unwrap());
    fork.truncate(kernels, 1400);
    assert!(fork.store.memory().own < 450 * (row + size_of::<u16>() + 16));
}

#[test]
fn a_million_rows_of_one_value_have_an_exact_sum() {
    let layout = Sparsity { window: 1, sinks: 0, ..Sparsity::default() }.layout(Dtype::F16, 16, 1);
    on_every_backend(|kernels| {
        let mut store = Store::new(layout, 1 << 20).unwrap();
        for _ in 0..1 << 10 {
            store.append(&[0.0; 16 << 10], &[0.1; 16 << 10], &[0; 1 << 10]).unwrap();
        }
        store.sort(kernels).unwrap();
        let Sums::Int8 { numbers, scales } = store.bases()[0].sums() else { panic!("rows are f16") };
        let rows = f64::from((1 << 20) - 1);
        let want = rows * f64::from(rounded(Dtype::F16, &[0.1])[0]);
        let got = f64::from(numbers[0]) * f64::from(scales[0]);
        assert!((got / want - 1.0).abs() < 1e-6, "{}: {got}, want {want}", kernels.name());
    });
}

/// What retrieval and the estimate multiply with stays a number, whatever the values are.
#[test]
fn sums_in_integers_are_numbers() {
    let layout = Sparsity { window: 1, sinks: 0, ..Sparsity::default() }.layout(Dtype::Bf16, 16, 1);
    let mut store = Store::new(layout, 100).unwrap();
    let mut values = [f32::MAX; 16];
    (values[1], values[2], values[3]) = (f32::MIN, f32::NAN, 0.0);
    store.append(&[0.0; 100 * 16], &values.repeat(100), &[0; 100]).unwrap();
    on_every_backend(|kernels| {
        let mut store = store.fork().unwrap();
        store.sort(kernels).unwrap();
        let Sums::Int8 { numbers, scales } = store.bases()[0].sums() else { panic!("rows are bf16") };
        assert_eq!(numbers[..5], [127, -127, 0, 0, 127], "{}", kernels.name());
        assert!((scales[0] / (f32::MAX / 127.0) - 1.0).abs() < 1e-6, "{}: {scales:?}", kernels.name());
    });
}

/// A base costs the copy of all that goes into it: a log has to be long for that.
#[test]
fn stores_want_sorting_once_their_log_is_long() {
    let (kernels, sparsity) = (available()[0], Sparsity { window: 4, sinks: 2, ..Sparsity::default() });
    let mut store = Store::new(sparsity.layout(Dtype::Bf16, 16, 8), 200_000).unwrap();
    let append = |store: &mut Store, tokens: usize| {
        let numbers = vec![0.0; tokens * 16];
        let codes = vec![3; if store.layout().codes > 0 { tokens } else { 0 }];
        store.append(&numbers, &numbers, &codes).unwrap();
    };
    assert!(!store.wants_sorting());
    append(&mut store, 100);
    assert!(!store.wants_sorting());
    append(&mut store, 100_000);
    assert!(store.wants_sorting());
    assert!(!store.sort_some(kernels, 1000).unwrap());
    assert!(store.wants_sorting());
    store.sort(kernels).unwrap();
    assert!(!store.wants_sorting());
    append(&mut store, 1000);
    assert!(!store.wants_sorting());
    append(&mut store, 1000);
    assert!(store.wants_sorting());

    // Without codes there is nothing to sort by.
    let mut dense = Store::new(sparsity.layout(Dtype::Bf16, 16, 0), 1000).unwrap();
    append(&mut dense, 1000);
    let before = dense.memory();
    assert!(!dense.wants_sorting());
    assert!(dense.sort_some(kernels, 10).unwrap());
    dense.sort(kernels).unwrap();
    assert!(dense.bases().is_empty());
    assert_eq!(dense.memory(), before);
}

#[test]
fn numbers_beyond_a_storage_type_become_its_largest() {
    for (dtype, largest) in [(Dtype::F16, 65504.0), (Dtype::Bf16, f32::from_bits(0x7f7f_0000))] {
        let layout = Sparsity::default().layout(dtype, 16, 0);
        let mut store = Store::new(layout, 1).unwrap();
        let (mut keys, mut values) = ([7e4; 16], [f32::MAX; 16]);
        (keys[1], values[1], values[2]) = (f32::NAN, f32::NEG_INFINITY, 1.0);
        store.append(&keys, &values, &[]).unwrap();
        let row = store.areas()[0].elements().to_f32();
        if dtype == Dtype::F16 {
            assert_eq!(row[0], largest);
        }
        assert!(row[1].is_nan());
        assert_eq!(row[32..35], [largest, -largest, 1.0]);
    }
}

#[test]
fn capacities_and_layouts_that_make_no_sense_are_errors() {
    let layout = Sparsity::default().layout(Dtype::Bf16, 128, 4096);
    // A terabyte of address space, which not every system gives.
    assert!(matches!(Store::new(layout, (1 << 31) - 1), Ok(_) | Err(Error::Memory { .. })));
    for capacity in [1 << 31, usize::MAX] {
        assert!(Store::new(layout, capacity).is_err());
    }
    for head_dim in [0, 14, 15, 17, 258] {
        assert!(Store::new(a2ats_kernel::store::Layout { head_dim, ..layout }, 1).is_err(), "{head_dim}");
    }
    assert!(Store::new(a2ats_kernel::store::Layout { window: 0, ..layout }, 1).is_err());
    assert!(Store::new(a2ats_kernel::store::Layout { codes: (1 << 16) + 1, ..layout }, 1).is_err());
}
