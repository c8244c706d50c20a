//! Attention over selected rows, in one piece or in merged parts, on every backend of this CPU against the reference.
#![no_main]
#![forbid(unsafe_code)]

mod backends;

use a2ats_kernel::{
    Dtype, Kernels,
    attention::{Partial, Scratch},
    rows::{Rows, Run, Runs},
};
use a2ats_tests::{
    calls::runs_of,
    inputs::{Guarded, Noise, ROUNDING, Stored, assert_close, query_precision, rounded},
    reference::{attention::attend, to_f64},
};
use arbitrary::{Arbitrary, Result, Unstructured};
use backends::backends;
use libfuzzer_sys::fuzz_target;
use std::ops::Range;

/// Most products of a query's and a key's elements in a case, so that thousands of cases run in a second.
const MOST_WORK: usize = 1 << 13;

/// What rounding may make of each element of the output. The one place where tolerances are.
///
/// A fuzzer finds inputs whose roundings all go the same way, so sums count with their lengths, where the property
/// tests get by with the roots of these. The rest is e^x, the scale, and the merging of a few parts; how the backend
/// sees the query; and the softmax weights, which the BF16 instructions multiply with values as bf16 numbers.
fn allowed_errors(kernels: &dyn Kernels, case: &Case, expected: &Expected) -> Vec<f64> {
    let sums = ROUNDING * (32 + case.head_dim + 2 * case.rows) as f64;
    let scores = sums + query_precision(kernels, case.dtype);
    let bf16_weights = ["avx512bf16", "neonbf16"].contains(&kernels.name()) && case.dtype == Dtype::Bf16;
    let weights = if bf16_weights { 2_f64.powi(-8) } else { 0.0 };
    let terms = expected.score_terms.iter().zip(&expected.weight_terms);
    terms.map(|(of_scores, of_weights)| scores * of_scores + weights * of_weights).collect()
}

/// The rows of a cache, a group's queries, and which rows they attend.
#[derive(Debug)]
struct Case {
    dtype: Dtype,
    rows: usize,
    head_dim: usize,
    group: usize,
    /// Elements that the rows and the queries start after an aligned address.
    offsets: [usize; 2],
    scale: f32,
    numbers: Numbers,
    attended: Attended,
    /// Where what is attended is cut into parts, ascending.
    cuts: Vec<usize>,
}

/// Keys, values and queries: noise of some magnitudes, with single numbers replaced.
#[derive(Debug)]
struct Numbers {
    seed: u64,
    keys: f32,
    values: f32,
    queries: f32,
    /// Which number of which of the three, and what it becomes.
    planted: Vec<(u8, u16, Planted)>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Planted {
    /// So many 64ths of the magnitude.
    Part(i8),
    /// Any bits: NaN, infinities and numbers that overflow. Such a case must not panic or touch what is outside.
    Bits(u32),
}

#[derive(Debug)]
enum Attended {
    Range(Range<usize>),
    Positions(Vec<u32>),
}

impl Attended {
    fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::Positions(positions) => positions.len(),
        }
    }

    fn runs(&self) -> Vec<Run> {
        match self {
            Self::Range(range) => vec![Run::new(0, range.clone())],
            Self::Positions(positions) => runs_of(positions),
        }
    }

    fn mask(&self, rows: usize) -> Vec<bool> {
        let mut mask = vec![false; rows];
        match self {
            Self::Range(range) => mask[range.clone()].fill(true),
            Self::Positions(positions) => positions.iter().for_each(|&at| mask[at as usize] = true),
        }
        mask
    }
}

impl<'a> Arbitrary<'a> for Case {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let dtype = *u.choose(&[Dtype::Bf16, Dtype::F16, Dtype::F32])?;
        let head_dim = 2 * u.int_in_range(8..=128)?;
        let group = u.int_in_range(1..=16.min(MOST_WORK / head_dim))?;
        let rows = u.int_in_range(0..=260.min(MOST_WORK / (head_dim * group)))?;
        let offsets = [u.int_in_range(0..=15)?, u.int_in_range(0..=15)?];
        let attended = attended(u, rows)?;
        let mut cuts = Vec::new();
        for _ in 0..u.int_in_range(0..=4)? {
            cuts.push(u.int_in_range(0..=attended.len())?);
        }
        cuts.sort_unstable();
        let scale = *u.choose(&[1.0, -1.0, 0.5, 3.0])? / (head_dim as f32).sqrt();
        let numbers = numbers(u, dtype)?;
        Ok(Self { dtype, rows, head_dim, group, offsets, scale, numbers, attended, cuts })
    }
}

fn attended(u: &mut Unstructured<'_>, rows: usize) -> Result<Attended> {
    if u.arbitrary()? {
        let start = u.int_in_range(0..=rows)?;
        return Ok(Attended::Range(start..u.int_in_range(start..=rows)?));
    }
    // A few positions in the order the bytes say, or many in a shuffled one.
    let mut positions: Vec<u32> = (0..rows as u32).collect();
    let wanted = u.int_in_range(0..=rows)?;
    if wanted > 24 {
        Noise::new(u.arbitrary()?).shuffle(&mut positions);
    } else {
        for at in 0..wanted {
            positions.swap(at, u.int_in_range(at..=rows - 1)?);
        }
    }
    positions.truncate(wanted);
    Ok(Attended::Positions(positions))
}

/// Numbers that leave every storage type some bits, and scores that leave f32 bits after the point.
fn numbers(u: &mut Unstructured<'_>, dtype: Dtype) -> Result<Numbers> {
    let exponents = if dtype == Dtype::F16 { -6..=9 } else { -60..=60 };
    let keys: i32 = u.int_in_range(exponents.clone())?;
    let values: i32 = u.int_in_range(exponents)?;
    let scores: i32 = u.int_in_range(-20..=4)?;
    let planted = (0..u.int_in_range(0..=8)?)
        .map(|_| Ok((u.int_in_range(0..=2)?, u.arbitrary()?, u.arbitrary()?)))
        .collect::<Result<_>>()?;
    let seed = u.arbitrary()?;
    let [keys, values, queries] = [keys, values, scores - keys].map(|exponent| 2_f32.powi(exponent));
    Ok(Numbers { seed, keys, values, queries, planted })
}

/// The numbers of a case.
struct Tokens {
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
    /// Whether all results are numbers, about which the reference has a say.
    tame: bool,
}

impl Tokens {
    fn new(case: &Case) -> Self {
        let (cached, numbers) = (case.rows * case.head_dim, &case.numbers);
        let mut noise = Noise::new(numbers.seed);
        let magnitudes = [numbers.keys, numbers.values, numbers.queries];
        let lengths = [cached, cached, case.group * case.head_dim];
        let mut all = [0, 1, 2].map(|i| noise.vector(lengths[i], magnitudes[i]));
        let mut tame = true;
        for &(which, at, planted) in &numbers.planted {
            let which = usize::from(which);
            let Some(last) = all[which].len().checked_sub(1) else { continue };
            all[which][usize::from(at).min(last)] = match planted {
                Planted::Part(part) => magnitudes[which] * f32::from(part) / 64.0,
                Planted::Bits(bits) => {
                    tame = false;
                    f32::from_bits(bits)
                }
            };
        }
        let [keys, values, queries] = all;
        Self { keys: rounded(case.dtype, &keys), values: rounded(case.dtype, &values), queries, tame }
    }
}

/// What the reference gives, and per element the terms that rounding errors come from.
#[derive(Default)]
struct Expected {
    values: Vec<f64>,
    /// Σ w_j (1 + S_j) (|v_j| + |out|) with S_j = Σ|q·k_j|: rounding turns a score s_j by some of S_j and the
    /// exponential by some of itself.
    score_terms: Vec<f64>,
    /// Σ w_j |v_j|: what an error of the weights alone is relative to.
    weight_terms: Vec<f64>,
}

impl Expected {
    fn new(case: &Case, tokens: &Tokens) -> Self {
        let (d, scale, mask) = (case.head_dim, f64::from(case.scale), case.attended.mask(case.rows));
        if case.attended.len() == 0 {
            // Attention to nothing is zero, exactly.
            let zeros = || vec![0.0; case.group * d];
            return Self { values: zeros(), score_terms: zeros(), weight_terms: zeros() };
        }
        let (keys, values) = (to_f64(&tokens.keys), to_f64(&tokens.values));
        let absolutes: Vec<f64> = values.iter().map(|value| value.abs()).collect();
        let mut expected = Self::default();
        for query in to_f64(&tokens.queries).chunks_exact(d) {
            let out = attend(query, &keys, &values, d, scale, &mask);
            let mut terms = absolutes.clone();
            for (terms, key) in terms.chunks_exact_mut(d).zip(keys.chunks_exact(d)) {
                let score: f64 = key.iter().zip(query).map(|(k, q)| (k * q * scale).abs()).sum();
                for (term, out) in terms.iter_mut().zip(&out) {
                    *term = (1.0 + score) * (*term + out.abs());
                }
            }
            expected.score_terms.extend(attend(query, &keys, &terms, d, scale, &mask));
            expected.weight_terms.extend(attend(query, &keys, &absolutes, d, scale, &mask));
            expected.values.extend(out);
        }
        expected
    }
}

/// Attention in parts, merged in their order. `whole` and `part` come with what the last case left in them.
fn attend_in_parts(
    kernels: &dyn Kernels,
    rows: &Runs<'_>,
    (case, queries): (&Case, &[f32]),
    scratch: &mut Scratch,
    [whole, part]: &mut [Partial; 2],
) {
    let ends = case.cuts.iter().copied().chain([case.attended.len()]);
    let starts = [0].into_iter().chain(case.cuts.iter().copied());
    for (i, (start, end)) in starts.zip(ends).enumerate() {
        let target = if i == 0 { &mut *whole } else { &mut *part };
        kernels.attend(rows, start..end, queries, case.scale, scratch, target).expect("the parts lie inside");
        if i > 0 {
            whole.merge(part).expect("the parts are of the same queries");
        }
    }
}

/// Requests that do not fit are errors and leave what was computed before, which can be compared if it is numbers.
fn check_refusals(
    kernels: &dyn Kernels,
    rows: &Runs<'_>,
    (case, queries, tame): (&Case, &[f32], bool),
    scratch: &mut Scratch,
    partial: &mut Partial,
) {
    let before = partial.clone();
    let all = rows.len();
    for (part, queries) in [(0..all + 1, queries), (0..all, &queries[1..]), (0..all, &[])] {
        let done = kernels.attend(rows, part, queries, case.scale, scratch, partial);
        assert!(done.is_err(), "{}", kernels.name());
    }
    for run in [Run::new(0, 0..case.rows + 1), Run::new(1, 0..1)] {
        assert!(Runs::new(rows.areas(), &[run]).is_err(), "{run:?}");
    }
    assert!(!tame || *partial == before, "{}: an error changes nothing", kernels.name());
}

fuzz_target!(|case: Case| {
    let tokens = Tokens::new(&case);
    let stored = Stored::rows(case.dtype, &tokens.keys, &tokens.values, case.head_dim, case.offsets[0]);
    let area =
        [Rows::new(stored.elements(), case.head_dim).expect("even head_dims in 16..=256 are supported")];
    let runs = case.attended.runs();
    let rows = Runs::new(&area, &runs).expect("rows that there are");
    let queries = Guarded::new(&tokens.queries, case.offsets[1]);
    let expected = tokens.tame.then(|| Expected::new(&case, &tokens));
    let (mut partials, mut scratch) = ([Partial::default(), Partial::default()], Scratch::default());
    for &kernels in backends() {
        let mut out = Guarded::new(&vec![f32::NAN; queries.len()], case.offsets[0]);
        for in_parts in [false, true] {
            if in_parts {
                attend_in_parts(kernels, &rows, (&case, &queries), &mut scratch, &mut partials);
            } else {
                let whole = &mut partials[0];
                kernels
                    .attend(&rows, 0..rows.len(), &queries, case.scale, &mut scratch, whole)
                    .expect("the request fits");
            }
            partials[0].finish(&mut out).expect("the output is as long as the queries");
            if let Some(expected) = &expected {
                let allowed = allowed_errors(kernels, &case, expected);
                assert_close(kernels.name(), &out, &expected.values, &allowed, 1.0);
            }
        }
        check_refusals(kernels, &rows, (&case, &queries, tokens.tame), &mut scratch, &mut partials[0]);
    }
});
