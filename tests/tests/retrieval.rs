//! Retrieval against the reference: the same set, exactly, ties and all.

use a2ats_kernel::{
    Elements,
    decode::{Choice, HeadIndex, Sparsity, Tail},
    kv::Rows,
    retrieval::{RetrievalIndex, RetrievalScratch},
};
use a2ats_tests::{
    backends::on_every_backend,
    inputs::{Noise, config, groups},
    reference::retrieval::{Retrieved, retrieve},
};
use proptest::{prelude::*, sample::select};

/// Scores `[group, codes]` that tie often: a handful of values, zeros of both signs and the ends of the range among
/// them, or numbers that hardly ever tie.
fn scores(noise: &mut Noise, codes: usize, group: usize, levels: usize) -> Vec<f32> {
    const ENDS: [f32; 10] = [0.0, -0.0, 1.0, -1.0, f32::MAX, f32::MIN, 1e-45, -1e-45, 1e-30, 0.999_999_94];
    if levels == 0 {
        return noise.vector(codes * group, 1e3);
    }
    (0..codes * group).map(|_| ENDS[noise.below(levels)]).collect()
}

/// What the reference retrieves for the same scores.
fn reference(
    scores: &[f32],
    group: usize,
    codes: &[u16],
    share: f64,
    window: usize,
    sinks: usize,
) -> Retrieved {
    let of_head = |scores: &[f32]| scores.iter().map(|&x| f64::from(x)).collect();
    let heads: Vec<Vec<f64>> = scores.chunks_exact(scores.len() / group).map(of_head).collect();
    let codes: Vec<usize> = codes.iter().map(|&code| code.into()).collect();
    retrieve(&heads, &codes, codes.len(), share, window, sinks)
}

fn marked(mask: &[bool]) -> Vec<u32> {
    (0..mask.len() as u32).filter(|&position| mask[position as usize]).collect()
}

/// Without a tail nobody looks at rows.
fn no_rows() -> Rows<'static> {
    Rows::new(Elements::F32(&[]), 16).unwrap()
}

/// Sorted, and without duplicates to begin with.
fn as_set(positions: &[u32]) -> Vec<u32> {
    let mut sorted = positions.to_vec();
    sorted.sort_unstable();
    assert!(sorted.is_sorted_by(|a, b| a < b), "a position twice: {sorted:?}");
    sorted
}

fn assert_chosen(index: &mut HeadIndex, sparsity: Sparsity, scores: &[f32], group: usize) {
    let Sparsity { retrieve, window, sinks, .. } = sparsity;
    let want = reference(scores, group, index.codes(), retrieve, window, sinks);
    let (attended, picked) = (marked(&want.attended).len(), marked(&want.picked).len());
    on_every_backend(|kernels| {
        let mut positions = vec![9; 3];
        let choice = index
            .choose(kernels, no_rows(), scores, &mut RetrievalScratch::default(), &mut positions)
            .unwrap();
        assert_eq!(as_set(&positions), marked(&want.attended), "{}", kernels.name());
        assert_eq!(choice, Choice { tokens: index.codes().len(), attended, picked });
    });
}

/// Shares of the context: none, hardly any, the paper's, half, almost all, all, more than all.
fn shares() -> impl Strategy<Value = f64> {
    let special = select(vec![0.0, 1e-9, 0.03, 0.1, 0.5, 0.999, 1.0, 2.0, 1e300]);
    prop_oneof![special, 0.0..1.0_f64]
}

fn sparsities() -> impl Strategy<Value = Sparsity> {
    let window = prop_oneof![3 => 1_usize..=80, 1 => Just(usize::MAX)];
    let sinks = prop_oneof![3 => 0_usize..=12, 1 => 0_usize..=200, 1 => Just(usize::MAX)];
    (shares(), window, sinks).prop_map(|(retrieve, window, sinks)| Sparsity {
        retrieve,
        window,
        sinks,
        tail: Tail::Off,
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn retrieval_equals_the_reference_with_ties(
        (tokens, codes, group) in (0_usize..=400, prop_oneof![1_usize..=6, 1_usize..=600], groups()),
        (levels, sparsity) in (0_usize..=10, sparsities()),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise::new(seed);
        let mut index = HeadIndex::new(codes, sparsity).unwrap();
        index.append(&noise.codes(tokens, codes));
        assert_chosen(&mut index, sparsity, &scores(&mut noise, codes, group, levels), group);
    }

    #[test]
    fn an_index_that_grows_step_by_step_retrieves_like_one_made_at_once(
        (codes, group, levels) in (prop_oneof![1_usize..=4, 1_usize..=40], groups(), 0_usize..=10),
        (sparsity, steps) in (sparsities(), proptest::collection::vec(prop_oneof![0_usize..=3, 0_usize..=90], 1..12)),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise::new(seed);
        let mut index = HeadIndex::new(codes, sparsity).unwrap();
        for step in steps {
            index.append(&noise.codes(step, codes));
            let scores = scores(&mut noise, codes, group, levels);
            assert_chosen(&mut index, sparsity, &scores, group);
            assert_chosen(&mut index.clone(), sparsity, &scores, group);
        }
    }

    #[test]
    fn an_index_cut_short_retrieves_as_if_it_never_had_more(
        (codes, group, levels, sparsity) in (1_usize..=20, groups(), 0_usize..=10, sparsities()),
        (tokens, cut, more) in (0_usize..=200, 0_usize..=210, 0_usize..=90),
        (chosen, seed) in (any::<bool>(), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let mut index = HeadIndex::new(codes, sparsity).unwrap();
        index.append(&noise.codes(tokens, codes));
        let scores = scores(&mut noise, codes, group, levels);
        if chosen {
            assert_chosen(&mut index, sparsity, &scores, group);
        }
        let before = index.codes().to_vec();
        let left = match index.truncate(cut) {
            Ok(()) => cut.min(tokens),
            Err(_) => tokens,
        };
        prop_assert!(left == cut.min(tokens) || chosen);
        prop_assert_eq!(index.codes(), &before[..left]);
        index.append(&noise.codes(more, codes));
        assert_chosen(&mut index, sparsity, &scores, group);
    }

    #[test]
    fn any_take_equals_the_reference_where_positions_have_gaps(
        (codes, group, levels) in (1_usize..=12, groups(), 0_usize..=10),
        pieces in proptest::collection::vec((0_usize..=20, 0_usize..=60), 1..6),
        (share, seed) in (prop_oneof![1 => Just(1.0), 3 => 0.0..1.2_f64], any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let mut index = RetrievalIndex::new(codes).unwrap();
        let (mut all, mut at) = (Vec::new(), Vec::new());
        for (gap, len) in pieces {
            let first = index.next_position() + gap;
            let piece = noise.codes(len, codes);
            index.extend(first, &piece).unwrap();
            at.extend(first as u32..(first + len) as u32);
            all.extend(piece);
        }
        prop_assert_eq!((index.len(), index.is_empty()), (all.len(), all.is_empty()));
        let take = (share * all.len() as f64) as usize;
        let scores = scores(&mut noise, codes, group, levels);
        let want = reference(&scores, group, &all, share, 0, 0);
        let want: Vec<u32> = marked(&want.picked).into_iter().map(|i| at[i as usize]).collect();
        on_every_backend(|kernels| {
            let mut got = vec![u32::MAX];
            index.retrieve(kernels, &scores, take, &mut RetrievalScratch::default(), &mut got).unwrap();
            assert_eq!(got[0], u32::MAX, "what was there stays");
            assert_eq!(as_set(&got[1..]), want, "{}", kernels.name());
        });
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_changes_nothing(
        (codes, group, length) in (1_usize..=9, 0_usize..=18, 0_usize..=160),
        (first, bad) in (prop_oneof![0_usize..=12, Just(u32::MAX as usize), Just(usize::MAX)], 0_u16..=9),
        fits in any::<bool>(),
    ) {
        let mut index = RetrievalIndex::new(codes).unwrap();
        index.extend(2, &[0; 5]).unwrap();
        let extended = index.extend(first, &[0, bad]);
        let accepted = (7..1000).contains(&first) && usize::from(bad) < codes;
        prop_assert_eq!(extended.is_ok(), accepted, "{:?}", extended);
        prop_assert_eq!((index.len(), index.next_position()), if accepted { (7, first + 2) } else { (5, 7) });

        let length = if fits { codes * group } else { length };
        on_every_backend(|kernels| {
            let mut positions = vec![3];
            let scratch = &mut RetrievalScratch::default();
            let retrieved = index.retrieve(kernels, &vec![0.5; length], 2, scratch, &mut positions);
            let accepted = length.is_multiple_of(codes) && (1..=16).contains(&(length / codes));
            assert_eq!(retrieved.is_ok(), accepted, "{retrieved:?}");
            assert_eq!(positions, if accepted { vec![3, 2, 3] } else { vec![3] });
        });
    }
}

#[test]
fn long_posting_lists_equal_the_reference() {
    let mut noise = Noise::new(5);
    let (codes, group) = (3, 4);
    for levels in [0, 2, 4] {
        let sparsity = Sparsity { retrieve: 0.4, window: 64, sinks: 8, tail: Tail::Off };
        let mut index = HeadIndex::new(codes, sparsity).unwrap();
        for piece in [1, 700, 5, 3000, 1, 1, 2500, 900] {
            index.append(&noise.codes(piece, codes));
            assert_chosen(&mut index, sparsity, &scores(&mut noise, codes, group, levels), group);
        }
    }
}

#[test]
fn the_highest_of_65536_codes_is_retrieved_first() {
    let mut index = RetrievalIndex::new(1 << 16).unwrap();
    index.extend(0, &[7, u16::MAX, 0, u16::MAX, 7]).unwrap();
    let mut scores = vec![0.0; 1 << 16];
    scores[usize::from(u16::MAX)] = 1.0;
    on_every_backend(|kernels| {
        let mut positions = Vec::new();
        index.retrieve(kernels, &scores, 3, &mut RetrievalScratch::default(), &mut positions).unwrap();
        assert_eq!(as_set(&positions), [0, 1, 3]);
    });
}

#[test]
fn outliers_and_ends_of_the_range_are_told_apart() {
    // Bisecting by distance never comes near the codes that matter here.
    let mut scores: Vec<f32> = (0..600).map(|i| (i as f32 * 0.37).sin() * 1e-20).collect();
    scores[3] = f32::MAX;
    scores[599] = f32::INFINITY;
    scores[7] = f32::MIN;
    scores[8] = f32::NEG_INFINITY;
    for take in [1, 2, 3, 30, 599] {
        let mut index = RetrievalIndex::new(600).unwrap();
        index.extend(0, &(0..600).collect::<Vec<u16>>()).unwrap();
        let mut best: Vec<u32> = (0..600).collect();
        best.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        on_every_backend(|kernels| {
            let mut got = Vec::new();
            index.retrieve(kernels, &scores, take, &mut RetrievalScratch::default(), &mut got).unwrap();
            assert_eq!(as_set(&got), as_set(&best[..take]), "{}", kernels.name());
        });
    }
}

#[test]
fn scores_that_are_no_numbers_do_no_harm() {
    let mut index = RetrievalIndex::new(40).unwrap();
    index.extend(0, &(0..40).chain(0..40).collect::<Vec<u16>>()).unwrap();
    for numbers in [0, 1, 20, 39] {
        let scores: Vec<f32> = (0..40).map(|i| if i < numbers { i as f32 } else { f32::NAN }).collect();
        on_every_backend(|kernels| {
            let mut got = Vec::new();
            index.retrieve(kernels, &scores, 30, &mut RetrievalScratch::default(), &mut got).unwrap();
            assert!(as_set(&got).len() <= 80, "{}", kernels.name());
        });
    }
}

#[test]
fn sparsities_that_make_no_sense_are_errors() {
    for retrieve in [f64::NAN, f64::INFINITY, -0.1] {
        assert!(HeadIndex::new(4, Sparsity { retrieve, ..Sparsity::default() }).is_err(), "{retrieve}");
    }
    assert!(HeadIndex::new(4, Sparsity { window: 0, ..Sparsity::default() }).is_err());
    assert!(HeadIndex::new(4, Sparsity { retrieve: 0.0, sinks: 0, window: 1, tail: Tail::Off }).is_ok());
}

#[test]
fn a_code_outside_the_codebook_is_an_error_once_it_leaves_the_window() {
    let sparsity = Sparsity { retrieve: 0.5, window: 2, sinks: 0, tail: Tail::Off };
    let mut index = HeadIndex::new(3, sparsity).unwrap();
    index.append(&[0, 3, 1, 2]);
    on_every_backend(|kernels| {
        let mut positions = Vec::new();
        assert!(
            index
                .choose(kernels, no_rows(), &[0.0; 3], &mut RetrievalScratch::default(), &mut positions)
                .is_err()
        );
    });
}

#[test]
fn numbers_of_codewords_that_do_not_fit_are_errors() {
    for codes in [0, (1 << 16) + 1, usize::MAX] {
        assert!(RetrievalIndex::new(codes).is_err(), "{codes}");
        assert!(HeadIndex::new(codes, Sparsity::default()).is_err(), "{codes}");
    }
}
