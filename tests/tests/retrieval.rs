//! Retrieval against the reference: the same set, exactly, ties and all.

use a2ats_kernel::{
    Dtype, Kernels,
    decode::{Amount, Choice, Estimate, Sparsity},
    retrieval::{Postings, Scratch, retrieve},
    store::Store,
};
use a2ats_tests::{
    backends::on_every_backend,
    inputs::{Noise, config, groups},
    reference::retrieval::{Retrieved, retrieve as reference_retrieve, take_count},
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
    reference_retrieve(&heads, &codes, codes.len(), share, window, sinks)
}

fn marked(mask: &[bool]) -> Vec<u32> {
    (0..mask.len() as u32).filter(|&position| mask[position as usize]).collect()
}

/// Sorted, and without duplicates to begin with.
fn as_set(positions: &[u32]) -> Vec<u32> {
    let mut sorted = positions.to_vec();
    sorted.sort_unstable();
    assert!(sorted.is_sorted_by(|a, b| a < b), "a position twice: {sorted:?}");
    sorted
}

/// The positions of each code.
struct Lists(Vec<Vec<u32>>);

impl Lists {
    fn new(codes: usize, of_tokens: &[u16], positions: &[u32]) -> Self {
        let mut lists = vec![Vec::new(); codes];
        for (&code, &position) in of_tokens.iter().zip(positions) {
            lists[usize::from(code)].push(position);
        }
        Self(lists)
    }

    fn counts(&self) -> Vec<u32> {
        self.0.iter().map(|list| list.len() as u32).collect()
    }

    fn retrieve(&self, kernels: &dyn Kernels, scores: &[f32], take: usize) -> Vec<u32> {
        let mut prefixes = vec![77; 3];
        let scratch = &mut Scratch::default();
        retrieve(kernels, scores, &self.counts(), take, self, scratch, &mut prefixes).unwrap();
        assert_eq!(prefixes.len(), self.0.len());
        as_set(
            &self
                .0
                .iter()
                .zip(prefixes)
                .flat_map(|(list, taken)| list[..taken as usize].to_vec())
                .collect::<Vec<_>>(),
        )
    }
}

impl Postings for Lists {
    fn position(&self, code: usize, number: usize) -> Option<u32> {
        self.0[code].get(number).copied()
    }
}

/// Appends tokens of which only the codes matter.
fn append(store: &mut Store, codes: &[u16]) {
    let zeros = vec![0.0; codes.len() * 16];
    store.append(&zeros, &zeros, codes).unwrap();
}

fn store(codes: usize, sparsity: &Sparsity) -> Store {
    Store::new(sparsity.layout(Dtype::Bf16, 16, codes), 10_000).unwrap()
}

fn assert_chosen(store: &mut Store, codes: &[u16], sparsity: Sparsity, scores: &[f32], group: usize) {
    let Sparsity { retrieve, window, sinks, .. } = sparsity;
    let want = reference(scores, group, codes, retrieve, window, sinks);
    let (attended, picked) = (marked(&want.attended).len(), marked(&want.picked).len());
    on_every_backend(|kernels| {
        let mut choice = Choice::default();
        let amount = choice.choose(kernels, store, &sparsity, scores).unwrap();
        let positions = store.positions(choice.runs()).unwrap();
        assert_eq!(as_set(&positions), marked(&want.attended), "{}", kernels.name());
        assert_eq!(amount, Amount { tokens: codes.len(), attended, picked });
        assert_eq!(choice.amount(), amount);
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
        estimate: Estimate::Off,
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn retrieval_equals_the_reference_with_ties(
        (tokens, codes, group) in (0_usize..=400, prop_oneof![1_usize..=6, 1_usize..=600], groups()),
        (levels, sparsity, is_sorted) in (0_usize..=10, sparsities(), any::<bool>()),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise::new(seed);
        let (mut store, of_tokens) = (store(codes, &sparsity), noise.codes(tokens, codes));
        append(&mut store, &of_tokens);
        if is_sorted {
            store.sort(a2ats_kernel::available()[0]).unwrap();
        }
        assert_chosen(&mut store, &of_tokens, sparsity, &scores(&mut noise, codes, group, levels), group);
    }

    #[test]
    fn any_take_equals_the_reference_where_positions_have_gaps(
        (codes, group, levels) in (1_usize..=12, groups(), 0_usize..=10),
        pieces in proptest::collection::vec((0_usize..=20, 0_usize..=60), 1..6),
        (share, seed) in (prop_oneof![1 => Just(1.0), 3 => 0.0..1.2_f64], any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let (mut all, mut at, mut next) = (Vec::new(), Vec::new(), 0);
        for (gap, len) in pieces {
            let first = next + gap;
            next = first + len;
            at.extend(first as u32..next as u32);
            all.extend(noise.codes(len, codes));
        }
        let lists = Lists::new(codes, &all, &at);
        let take = (share * all.len() as f64) as usize;
        let scores = scores(&mut noise, codes, group, levels);
        let want = reference(&scores, group, &all, share, 0, 0);
        let want: Vec<u32> = marked(&want.picked).into_iter().map(|i| at[i as usize]).collect();
        on_every_backend(|kernels| {
            assert_eq!(lists.retrieve(kernels, &scores, take), want, "{}", kernels.name());
        });
    }

    #[test]
    fn numbers_and_distances_of_tokens_to_choose_are_exact(
        (hundredths, tokens) in (0_usize..=120, prop_oneof![0_usize..=300, 0_usize..=1 << 20]),
        (window, sinks, few) in (1_usize..=80, 0_usize..=12, 0_usize..=200),
    ) {
        let sparsity = Sparsity { retrieve: hundredths as f64 / 100.0, window, sinks, estimate: Estimate::Averaged };
        // Shares that end in a whole number of tokens, or just below one.
        for tokens in [tokens, tokens / 100 * 100] {
            prop_assert_eq!(sparsity.take(tokens), take_count(sparsity.retrieve, tokens));
        }
        let between = sinks..few.saturating_sub(window);
        let mut distances: Vec<usize> = between.map(|position| few - 1 - position).collect();
        distances.reverse();
        prop_assert_eq!(sparsity.distances(few).collect::<Vec<_>>(), distances);
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors(
        (codes, group, length) in (0_usize..=9, 0_usize..=18, 0_usize..=160),
        fits in any::<bool>(),
    ) {
        let lists = Lists::new(codes, &[], &[]);
        let length = if fits { codes * group } else { length };
        on_every_backend(|kernels| {
            let (mut prefixes, scratch) = (vec![], &mut Scratch::default());
            let counts = vec![3; codes];
            let done = retrieve(kernels, &vec![0.5; length], &counts, 2, &lists, scratch, &mut prefixes);
            let accepted = codes > 0 && length.is_multiple_of(codes) && (1..=16).contains(&(length / codes));
            assert_eq!(done.is_ok(), accepted, "{done:?}");
        });
    }
}

#[test]
fn long_logs_equal_the_reference() {
    let mut noise = Noise::new(5);
    let (codes, group) = (3, 4);
    for levels in [0, 2, 4] {
        let sparsity = Sparsity { retrieve: 0.4, window: 64, sinks: 8, estimate: Estimate::Off };
        let (mut store, mut of_tokens) = (store(codes, &sparsity), Vec::new());
        for piece in [1, 700, 5, 3000, 1, 1, 2500, 900] {
            let piece = noise.codes(piece, codes);
            append(&mut store, &piece);
            of_tokens.extend(piece);
            assert_chosen(&mut store, &of_tokens, sparsity, &scores(&mut noise, codes, group, levels), group);
        }
    }
}

#[test]
fn the_highest_of_65536_codes_is_retrieved_first() {
    let lists = Lists::new(1 << 16, &[7, u16::MAX, 0, u16::MAX, 7], &[0, 1, 2, 3, 4]);
    let mut scores = vec![0.0; 1 << 16];
    scores[usize::from(u16::MAX)] = 1.0;
    on_every_backend(|kernels| assert_eq!(lists.retrieve(kernels, &scores, 3), [0, 1, 3]));
}

#[test]
fn outliers_and_ends_of_the_range_are_told_apart() {
    // Bisecting by distance never comes near the codes that matter here.
    let mut scores: Vec<f32> = (0..600).map(|i| (i as f32 * 0.37).sin() * 1e-20).collect();
    scores[3] = f32::MAX;
    scores[599] = f32::INFINITY;
    scores[7] = f32::MIN;
    scores[8] = f32::NEG_INFINITY;
    let all: Vec<u32> = (0..600).collect();
    let lists = Lists::new(600, &(0..600).collect::<Vec<u16>>(), &all);
    for take in [1, 2, 3, 30, 599] {
        let mut best = all.clone();
        best.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        on_every_backend(|kernels| {
            assert_eq!(lists.retrieve(kernels, &scores, take), as_set(&best[..take]), "{}", kernels.name());
        });
    }
}

#[test]
fn scores_that_are_no_numbers_do_no_harm() {
    let positions: Vec<u32> = (0..80).collect();
    let lists = Lists::new(40, &(0..40).chain(0..40).collect::<Vec<u16>>(), &positions);
    for numbers in [0, 1, 20, 39] {
        let scores: Vec<f32> = (0..40).map(|i| if i < numbers { i as f32 } else { f32::NAN }).collect();
        on_every_backend(|kernels| {
            assert!(lists.retrieve(kernels, &scores, 30).len() <= 80, "{}", kernels.name());
            // Who takes all asks for no scores.
            assert_eq!(lists.retrieve(kernels, &scores, 80), positions, "{}", kernels.name());
        });
    }
}

#[test]
fn more_tokens_than_32_bits_count_are_an_error() {
    let lists = Lists::new(2, &[], &[]);
    on_every_backend(|kernels| {
        let (mut prefixes, scratch) = (vec![], &mut Scratch::default());
        let counts = [u32::MAX, 1];
        assert!(retrieve(kernels, &[0.5; 2], &counts, 2, &lists, scratch, &mut prefixes).is_err());
        let counts = [u32::MAX - 1, 1];
        assert!(retrieve(kernels, &[0.5, 1.0], &counts, 1 << 31, &lists, scratch, &mut prefixes).is_ok());
        assert_eq!(prefixes, [(1 << 31) - 1, 1]);
    });
}

#[test]
fn only_averaged_scores_take_an_averaged_rotation() {
    for estimate in [Estimate::Off, Estimate::Fixed, Estimate::Averaged] {
        let rotation = Sparsity { estimate, ..Sparsity::default() }.averaged_rotation(1000, &[1.0; 8]);
        assert_eq!(rotation.is_some(), estimate == Estimate::Averaged);
    }
}
