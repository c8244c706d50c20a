//! What a kv head keeps, against a list of its tokens: rows, codes, positions and what is chosen, whatever lies where.

mod pair;

use a2ats_kernel::{
    Dtype, Error, available,
    decode::{Estimate, Sparsity},
    estimate::Sums,
    rows::MAX_AREAS,
    store::{Base, Memory, Store},
};
use a2ats_tests::{
    backends::on_every_backend,
    inputs::{Noise, config, dtypes, rounded},
};
use pair::{Copied, HEAD_DIM, Pair};
use proptest::{prelude::*, sample::select};
use std::sync::Arc;

/// What happens to a store.
#[derive(Debug, Clone, Copy)]
enum Change {
    Append(usize),
    Choose,
    /// Gives so many of the newest tokens other codes.
    Recode(usize),
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
        1 => (0_usize..=50).prop_map(Change::Recode),
        1 => Just(Change::Sort),
        3 => prop_oneof![0_usize..=9, 0_usize..=200].prop_map(Change::SortSome),
        1 => prop_oneof![select(vec![0_usize, 97, 99]), 0_usize..=100].prop_map(Change::Truncate),
        1 => any::<bool>().prop_map(Change::Fork),
    ]
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
                Change::Recode(tokens) => pair.recode(&mut noise, tokens),
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
