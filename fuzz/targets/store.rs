//! What a kv head keeps of its tokens, against a list of them and the reference, which scores and sorts every one: tokens are
//! appended, laid out by code, cut off, forked and retrieved from, in any order.
#![no_main]
#![forbid(unsafe_code)]

mod backends;

use a2ats_kernel::{
    Dtype,
    decode::{Amount, Choice, Estimate, Sparsity},
    store::Store,
};
use a2ats_tests::{
    inputs::rounded,
    reference::{retrieval::retrieve, to_f64},
};
use arbitrary::{Arbitrary, Result, Unstructured};
use backends::backends;
use libfuzzer_sys::fuzz_target;
use std::ops::ControlFlow;

const HEAD_DIM: usize = 16;

/// Most tokens of a store.
const CAPACITY: usize = 1500;

/// A store over some codewords, and what is done to it.
#[derive(Debug)]
struct Case {
    sparsity: Sparsity,
    dtype: Dtype,
    codes: usize,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    /// Tokens with these codes: one by one, or a long run that few bytes describe.
    Append(Vec<u16>),
    /// `[group, codes]` as a rule.
    Retrieve(Vec<f32>),
    Sort,
    SortSome(usize),
    Truncate(usize),
    /// Goes on with a fork; or with the store, and forgets the fork.
    Fork(bool),
}

impl<'a> Arbitrary<'a> for Case {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let codes = if one_in(8, u)? { u.int_in_range(13..=300)? } else { u.int_in_range(1..=12)? };
        let sparsity = Sparsity {
            retrieve: f64::from(u.int_in_range(0..=110_u8)?) / 100.0,
            window: u.int_in_range(1..=40)?,
            sinks: if one_in(16, u)? { CAPACITY + 7 } else { u.int_in_range(0..=10)? },
            estimate: if u.arbitrary()? { Estimate::Fixed } else { Estimate::Off },
        };
        let dtype = *u.choose(&[Dtype::Bf16, Dtype::F16, Dtype::F32])?;
        let mut steps = Vec::new();
        u.arbitrary_loop(Some(1), Some(30), |u| {
            steps.push(match u.int_in_range(0..=15)? {
                0..=5 => Step::Append(token_codes(u, codes)?),
                6..=8 => retrieval(u, codes)?,
                9 => Step::Sort,
                10..=12 => Step::SortSome(u.int_in_range(0..=100)?),
                13 | 14 => Step::Truncate(u.int_in_range(0..=CAPACITY)?),
                _ => Step::Fork(u.arbitrary()?),
            });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Self { sparsity, dtype, codes, steps })
    }
}

/// True once in so many; false when the bytes have run out.
fn one_in(count: u8, u: &mut Unstructured<'_>) -> Result<bool> {
    Ok(u.int_in_range(1..=count)? == count)
}

/// Codes of some tokens; now and then one that does not exist.
fn token_codes(u: &mut Unstructured<'_>, codes: usize) -> Result<Vec<u16>> {
    let mut of_tokens: Vec<u16> = if one_in(4, u)? {
        let count = u.int_in_range(0..=600)?;
        let (start, stride) = (u.int_in_range(0..=codes - 1)?, u.int_in_range(0..=codes - 1)?);
        (0..count).map(|i| ((start + i * stride) % codes) as u16).collect()
    } else {
        let count = u.int_in_range(0..=40)?;
        (0..count).map(|_| u.int_in_range(0..=codes - 1).map(|code| code as u16)).collect::<Result<_>>()?
    };
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
    let group = if one_in(16, u)? { *u.choose(&[0, 17])? } else { u.int_in_range(1..=4)? };
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
    Ok(Step::Retrieve((0..len).map(score).collect::<Result<_>>()?))
}

/// A store, and the codes and first numbers of the tokens that it must hold.
struct Pair {
    store: Store,
    codes: Vec<u16>,
    firsts: Vec<f32>,
    /// Tokens appended ever: the next one's number.
    appended: usize,
}

impl Pair {
    fn append(&mut self, of_tokens: &[u16]) {
        let layout = self.store.layout();
        let count = of_tokens.len();
        let firsts: Vec<f32> = (self.appended..self.appended + count).map(|i| (i % 251) as f32).collect();
        let numbers: Vec<f32> = firsts.iter().flat_map(|&first| [first; HEAD_DIM]).collect();
        let fits = self.codes.len() + count <= CAPACITY
            && of_tokens.iter().all(|&code| usize::from(code) < layout.codes);
        let done = self.store.append(&numbers, &numbers, of_tokens);
        assert_eq!(done.is_ok(), fits, "{done:?}");
        if fits {
            self.codes.extend(of_tokens);
            self.firsts.extend(rounded(layout.dtype, &firsts));
            self.appended += count;
        }
    }

    fn truncate(&mut self, tokens: usize) {
        self.store.truncate(backends()[0], tokens).expect("memory for a few tokens");
        self.codes.truncate(tokens);
        self.firsts.truncate(tokens);
    }

    /// All rows lie where the positions say, each once, with the codes in order of position.
    fn check_content(&self) {
        assert_eq!(self.store.len(), self.codes.len());
        assert_eq!(self.store.codes(), self.codes);
        let mut runs = Vec::new();
        self.store.all_rows(&mut runs);
        let (areas, positions) =
            (self.store.areas(), self.store.positions(&runs).expect("runs of the store"));
        let mut is_there = vec![false; self.codes.len()];
        let rows = runs.iter().flat_map(|run| run.rows().map(|row| (run.area as usize, row)));
        for ((area, row), position) in rows.zip(positions) {
            let row =
                areas[area].elements().range(row * 64..(row + 1) * 64).expect("a row of an area").to_f32();
            let want = self.firsts[position as usize];
            assert!(row[..HEAD_DIM].iter().chain(&row[32..32 + HEAD_DIM]).all(|&x| x == want));
            assert!(!is_there[position as usize], "position {position} twice");
            is_there[position as usize] = true;
        }
        assert!(is_there.iter().all(|is| *is));
    }

    /// Retrieves on every backend.
    fn check_retrieval(&mut self, sparsity: &Sparsity, scores: &[f32], choice: &mut Choice) {
        let codes = self.store.layout().codes;
        let heads = scores.chunks_exact(codes);
        let group = heads.len();
        let fits = (1..=16).contains(&group) && heads.remainder().is_empty();
        // Tokens that score −∞ tie with those of sinks and window in the reference.
        let is_low = |score: &f32| score.is_nan() || *score == f32::NEG_INFINITY;
        let specified = fits && !scores.iter().any(is_low);
        let tokens = self.codes.len();
        for &kernels in backends() {
            let name = kernels.name();
            let done = choice.choose(kernels, &mut self.store, sparsity, scores);
            assert_eq!(done.is_ok(), fits, "{name}: {done:?}");
            let Ok(amount) = done else { continue };
            let mut positions = self.store.positions(choice.runs()).expect("runs of the store");
            positions.sort_unstable();
            assert!(positions.is_sorted_by(|a, b| a < b), "{name}: a position twice: {positions:?}");
            if specified {
                let heads: Vec<Vec<f64>> = scores.chunks_exact(codes).map(to_f64).collect();
                let of_tokens: Vec<usize> = self.codes.iter().map(|&code| code.into()).collect();
                let (share, window, sinks) = (sparsity.retrieve, sparsity.window, sparsity.sinks);
                let want = retrieve(&heads, &of_tokens, tokens, share, window, sinks);
                let marked = |mask: &[bool]| -> Vec<u32> {
                    (0..tokens as u32).filter(|&at| mask[at as usize]).collect()
                };
                assert_eq!(positions, marked(&want.attended), "{name}");
                let picked = marked(&want.picked).len();
                assert_eq!(amount, Amount { tokens, attended: positions.len(), picked }, "{name}");
            } else {
                // Which tokens NaN makes a head take is not specified, but they are tokens.
                assert!(positions.iter().all(|&position| (position as usize) < tokens), "{name}");
            }
        }
    }
}

fuzz_target!(|case: Case| {
    let layout = case.sparsity.layout(case.dtype, HEAD_DIM, case.codes);
    let store = Store::new(layout, CAPACITY).expect("a lawful layout");
    let mut pair = Pair { store, codes: Vec::new(), firsts: Vec::new(), appended: 0 };
    let (mut choice, first) = (Choice::default(), backends()[0]);
    for step in &case.steps {
        match step {
            Step::Append(codes) => pair.append(codes),
            Step::Retrieve(scores) => pair.check_retrieval(&case.sparsity, scores, &mut choice),
            Step::Sort => pair.store.sort(first).expect("memory for a few tokens"),
            Step::SortSome(rows) => {
                pair.store.sort_some(first, *rows).expect("memory for a few tokens");
            }
            Step::Truncate(tokens) => pair.truncate(*tokens),
            Step::Fork(goes_on) => {
                let fork = pair.store.fork().expect("memory for a few tokens");
                if *goes_on {
                    pair.store = fork;
                }
            }
        }
        pair.check_content();
    }
    pair.check_retrieval(&case.sparsity, &vec![0.0; case.codes], &mut choice);
});
