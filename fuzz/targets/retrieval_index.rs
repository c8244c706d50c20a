//! The retrieval index, on every backend of this CPU, against a list of its tokens and the reference, which scores
//! and sorts every one of them.
#![no_main]
#![forbid(unsafe_code)]

use a2ats_kernel::{
    Kernels, available,
    retrieval::{RetrievalIndex, RetrievalScratch},
};
use a2ats_tests::reference::{retrieval::retrieve, to_f64};
use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use std::{ops::ControlFlow, slice::ChunksExact, sync::OnceLock};

/// Most tokens of an index: one code fills its largest segment (1022 positions after 1536 in smaller ones) with them.
const MOST_TOKENS: usize = 3000;

/// What stands in the output before a retrieval and must stay there.
const KEPT: [u32; 2] = [u32::MAX, 7];

/// An index over some codewords, and what is done to it.
#[derive(Debug)]
struct Case {
    codes: usize,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Extend {
        first: First,
        codes: Vec<u16>,
    },
    Retrieve {
        /// `[group, codes]` as a rule.
        scores: Vec<f32>,
        take: usize,
    },
    /// Goes on with a copy of the index.
    Copy,
}

#[derive(Debug)]
enum First {
    /// So many positions after the next one.
    After(usize),
    At(usize),
}

impl<'a> Arbitrary<'a> for Case {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let codes = if one_in(8, u)? { u.int_in_range(13..=300)? } else { u.int_in_range(1..=12)? };
        let mut steps = Vec::new();
        let mut left = MOST_TOKENS;
        u.arbitrary_loop(Some(1), Some(24), |u| {
            let step = match u.int_in_range(0..=9)? {
                0..=4 => Step::Extend { first: first(u)?, codes: token_codes(u, codes, &mut left)? },
                5..=8 => retrieval(u, codes)?,
                _ => Step::Copy,
            };
            steps.push(step);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Self { codes, steps })
    }
}

/// True once in so many; false when the bytes have run out.
fn one_in(count: u8, u: &mut Unstructured<'_>) -> Result<bool> {
    Ok(u.int_in_range(1..=count)? == count)
}

fn first(u: &mut Unstructured<'_>) -> Result<First> {
    const EDGES: [usize; 6] =
        [0, 40, u32::MAX as usize - 3, u32::MAX as usize, u32::MAX as usize + 1, usize::MAX];
    Ok(match u.int_in_range(0..=15)? {
        0..=11 => First::After(0),
        12..=14 => First::After(u.int_in_range(0..=300)?),
        _ => First::At(*u.choose(&EDGES)?),
    })
}

/// Codes of some tokens: one by one, or a long run that few bytes describe; now and then one that does not exist.
fn token_codes(u: &mut Unstructured<'_>, codes: usize, left: &mut usize) -> Result<Vec<u16>> {
    let mut of_tokens: Vec<u16> = if one_in(6, u)? {
        let count = u.int_in_range(0..=*left)?;
        let (start, stride) = (u.int_in_range(0..=codes - 1)?, u.int_in_range(0..=codes - 1)?);
        (0..count).map(|i| ((start + i * stride) % codes) as u16).collect()
    } else {
        let count = u.int_in_range(0..=64.min(*left))?;
        (0..count).map(|_| u.int_in_range(0..=codes - 1).map(|code| code as u16)).collect::<Result<_>>()?
    };
    *left -= of_tokens.len();
    if one_in(16, u)? && !of_tokens.is_empty() {
        let at = u.choose_index(of_tokens.len())?;
        of_tokens[at] = u.arbitrary()?;
    }
    Ok(of_tokens)
}

/// A retrieval whose scores come from a small palette, so that they tie, or from one byte each.
fn retrieval(u: &mut Unstructured<'_>, codes: usize) -> Result<Step> {
    const AWKWARD: [f32; 10] =
        [0.0, -0.0, 1.0, -1.0, 0.999_999_94, f32::MAX, f32::MIN, 1e-45, f32::INFINITY, f32::NEG_INFINITY];
    let group = if one_in(16, u)? { *u.choose(&[0, 17])? } else { u.int_in_range(1..=16)? };
    let len = if one_in(16, u)? { u.int_in_range(0..=2 * codes * group)? } else { codes * group };
    let mut palette = Vec::new();
    u.arbitrary_loop(Some(0), Some(6), |u| {
        palette.push(if u.arbitrary()? { *u.choose(&AWKWARD)? } else { u.arbitrary()? });
        Ok(ControlFlow::Continue(()))
    })?;
    let score = |_| {
        let byte: u8 = u.arbitrary()?;
        Ok(if palette.is_empty() {
            f32::from(byte) - 99.5
        } else {
            palette[usize::from(byte) % palette.len()]
        })
    };
    let scores = (0..len).map(score).collect::<Result<_>>()?;
    let take =
        if one_in(8, u)? { *u.choose(&[0, MOST_TOKENS, usize::MAX])? } else { u.int_in_range(0..=120)? };
    Ok(Step::Retrieve { scores, take })
}

/// The tokens that an index must hold.
#[derive(Default)]
struct Model {
    positions: Vec<u32>,
    codes: Vec<usize>,
}

impl Model {
    fn next_position(&self) -> usize {
        self.positions.last().map_or(0, |&last| last as usize + 1)
    }

    /// The union of the heads' best `take` tokens, ascending.
    fn best(&self, heads: ChunksExact<'_, f32>, take: usize) -> Vec<u32> {
        let heads: Vec<Vec<f64>> = heads.map(to_f64).collect();
        // The reference wants the share of the tokens that is taken, and rounds down.
        let share = if take == 0 { 0.0 } else { (take as f64 + 0.5) / self.codes.len().max(1) as f64 };
        let picked = retrieve(&heads, &self.codes, self.codes.len(), share, 0, 0).picked;
        self.positions
            .iter()
            .zip(picked)
            .filter(|(_, picked)| *picked)
            .map(|(&position, _)| position)
            .collect()
    }
}

/// The backends of this CPU, named once in the output: what a run did not cover should be seen.
fn backends() -> &'static [&'static dyn Kernels] {
    static BACKENDS: OnceLock<Vec<&dyn Kernels>> = OnceLock::new();
    BACKENDS.get_or_init(|| {
        let backends = available();
        eprintln!("backends: {backends:?}");
        backends
    })
}

fn extend(index: &mut RetrievalIndex, model: &mut Model, codes: usize, first: &First, of_tokens: &[u16]) {
    let next = index.next_position();
    let first = match *first {
        First::After(gap) => next.saturating_add(gap),
        First::At(first) => first,
    };
    let end = first.saturating_add(of_tokens.len());
    let fits = first >= next && end < 1 << 32 && of_tokens.iter().all(|&code| usize::from(code) < codes);
    let done = index.extend(first, of_tokens);
    assert_eq!(done.is_ok(), fits, "{done:?}");
    if fits {
        model.positions.extend(first as u32..end as u32);
        model.codes.extend(of_tokens.iter().map(|&code| usize::from(code)));
        // Adding no tokens moves the next position too.
        assert_eq!(index.next_position(), end);
    } else {
        assert_eq!(index.next_position(), next);
    }
    assert!(index.next_position() >= model.next_position());
    assert_eq!((index.len(), index.is_empty()), (model.codes.len(), model.codes.is_empty()));
}

/// Retrieves on every backend.
fn check_retrieval(
    index: &RetrievalIndex,
    model: &Model,
    codes: usize,
    (scores, take): (&[f32], usize),
    scratch: &mut RetrievalScratch,
) {
    let heads = scores.chunks_exact(codes);
    let group = heads.len();
    let fits = (1..=16).contains(&group) && heads.remainder().is_empty();
    let specified = fits && !scores.iter().any(|score| score.is_nan());
    let want = if specified { model.best(heads, take) } else { Vec::new() };
    for &kernels in backends() {
        let name = kernels.name();
        let mut positions = KEPT.to_vec();
        let done = index.retrieve(kernels, scores, take, scratch, &mut positions);
        assert_eq!(done.is_ok(), fits, "{name}: {done:?}");
        assert_eq!(positions[..KEPT.len()], KEPT, "{name}: what was there stays");
        let got = &mut positions[KEPT.len()..];
        got.sort_unstable();
        assert!(got.is_sorted_by(|a, b| a < b), "{name}: a position twice: {got:?}");
        if specified || !fits {
            assert_eq!(got, want, "{name}");
        } else {
            // Which tokens NaN makes a head take is not specified, but they are tokens, and not more than it may take.
            assert!(
                got.iter().all(|position| model.positions.binary_search(position).is_ok()),
                "{name}: {got:?}"
            );
            assert!(got.len() <= take.saturating_mul(group), "{name}: {got:?}");
        }
    }
}

fuzz_target!(|case: Case| {
    let mut index = RetrievalIndex::new(case.codes).expect("1 to 300 codewords are supported");
    let (mut model, mut scratch) = (Model::default(), RetrievalScratch::default());
    for step in &case.steps {
        match step {
            Step::Extend { first, codes } => extend(&mut index, &mut model, case.codes, first, codes),
            Step::Retrieve { scores, take } => {
                check_retrieval(&index, &model, case.codes, (scores, *take), &mut scratch);
            }
            Step::Copy => index = index.clone(),
        }
    }
    let everything = (&vec![0.0; case.codes][..], usize::MAX);
    check_retrieval(&index, &model, case.codes, everything, &mut scratch);
});
