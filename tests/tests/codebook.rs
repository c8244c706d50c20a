//! Codeword scores and codes against the reference.

use a2ats_kernel::{
    Codebook, Dtype, Kernels, available,
    codebook::{BestCode, Probes},
};
use a2ats_tests::{
    backends::on_every_backend,
    calls,
    inputs::{
        Guarded, Noise, ROUNDING, assert_close, config, dtypes, fitting, head_dims, magnitudes, offsets,
        query_precision, rounded, unit_matrix,
    },
    reference::{codebook::Codebook as Reference, to_f64},
};
use proptest::{collection, prelude::*, sample::select};

/// Scores, of Σ|q·(ĉ − μ)|: f32 sums over a head (random errors, so by the root of its length), ĉ − μ rounded once,
/// and how the backend sees q.
fn score_tolerance(kernels: &dyn Kernels, dtype: Dtype, head_dim: usize) -> f64 {
    ROUNDING * (3.0 + 0.1 * (head_dim as f64).sqrt()) + query_precision(kernels, dtype)
}

/// By how much a code's distance may exceed the best, of the terms that both are sums of (see [`Case::terms`]): three
/// f32 sums in a row, and how the backend sees their result.
fn distance_tolerance(kernels: &dyn Kernels, dtype: Dtype) -> f64 {
    4.0 * ROUNDING + query_precision(kernels, dtype)
}

/// Numbers of codewords around the blocks of 64 and 256.
fn code_counts() -> impl Strategy<Value = usize> {
    prop_oneof![select(vec![1_usize, 2, 63, 64, 65, 127, 129, 255, 256, 257, 513]), 1_usize..=300]
}

/// A codebook in both implementations.
struct Case {
    book: Codebook,
    /// The codewords as the table stores them: rounded to its type after the mean was taken out.
    reference: Reference,
    /// The same less the mean.
    centered: Vec<f64>,
    dtype: Dtype,
}

impl Case {
    fn new(codewords: &[f32], cholesky: &[f32], head_dim: usize, dtype: Dtype) -> Self {
        let book = Codebook::new(codewords, cholesky, head_dim, dtype).unwrap();
        let codes = codewords.len() / head_dim;
        assert_eq!((book.codes(), book.head_dim(), book.dtype()), (codes, head_dim, dtype));
        let center = to_f64(book.center());
        let centered: Vec<f64> = match dtype {
            Dtype::F32 => less(&to_f64(codewords), &center),
            _ => to_f64(&rounded(
                dtype,
                &less(&to_f64(codewords), &center).iter().map(|&x| x as f32).collect::<Vec<_>>(),
            )),
        };
        let codewords = centered.iter().enumerate().map(|(i, x)| x + center[i % head_dim]).collect();
        let reference = Reference { codes, head_dim, codewords, cholesky: to_f64(cholesky) };
        Self { book, reference, centered, dtype }
    }

    /// The sum of the absolute values of what the distance of a key to a code is computed from: (k − μ)·L·Lᵀ·(ĉ − μ)
    /// and ½‖(ĉ − μ)·L‖².
    fn terms(&self, key: &[f32], code: usize) -> f64 {
        let d = self.reference.head_dim;
        let factor = &self.reference.cholesky;
        let image = |x: &[f64]| -> Vec<f64> {
            (0..d).map(|j| (j..d).map(|i| (x[i] * factor[i * d + j]).abs()).sum()).collect()
        };
        let key = image(&less(&to_f64(key), &to_f64(self.book.center())));
        let codeword = image(&self.centered[code * d..(code + 1) * d]);
        codeword.iter().zip(&key).map(|(c, k)| c * k + 0.5 * c * c).sum()
    }

    /// The code is the nearest, or farther by no more than rounding.
    fn assert_code(&self, kernels: &dyn Kernels, key: &[f32], code: u16) {
        let distances = self.reference.distances(&to_f64(key));
        let best = self.reference.encode(&to_f64(key));
        let code = usize::from(code);
        if code != best {
            let excess = distances[code] - distances[best];
            let terms = self.terms(key, code) + self.terms(key, best);
            let allowed = distance_tolerance(kernels, self.dtype) * terms;
            let what = format!("{} {}: code {code} for {best}", kernels.name(), self.dtype);
            assert!(excess <= allowed, "{what}: farther by {excess:e}, allowed {allowed:e}");
        }
    }

    fn encode(&self, kernels: &dyn Kernels, keys: &[f32]) -> Vec<u16> {
        let mut codes = vec![u16::MAX; keys.len() / self.book.head_dim()];
        kernels.encode(&self.book, keys, &mut codes).unwrap();
        codes
    }

    fn newest(&self, kernels: &dyn Kernels, key: &[f32]) -> u16 {
        calls::scores(kernels, &self.book, &vec![0.0; key.len()], key).unwrap().1[0]
    }
}

/// Each row of x less the center.
fn less(x: &[f64], center: &[f64]) -> Vec<f64> {
    x.iter().enumerate().map(|(i, x)| x - center[i % center.len()]).collect()
}

/// Codewords with a common part `shift` times as large as what tells them apart.
fn codewords(
    noise: &mut Noise,
    codes: usize,
    head_dim: usize,
    magnitude: f32,
    shift: f32,
) -> (Vec<f32>, Vec<f32>) {
    let common = noise.vector(head_dim, magnitude * shift);
    let own = noise.vector(codes * head_dim, magnitude);
    (own.iter().enumerate().map(|(i, x)| x + common[i % head_dim]).collect(), common)
}

/// Whole codewords whose mean is whole too: pairs of opposites (each twice or more if `few`) about a common vector.
fn whole_codewords(noise: &mut Noise, pairs: usize, head_dim: usize, few: bool) -> Vec<f32> {
    let common = noise.whole_numbers(head_dim, 20);
    let kinds = if few { 1 + pairs / 3 } else { pairs };
    let own = noise.whole_numbers(kinds * head_dim, 3);
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for pair in 0..pairs {
        let kind = &own[pair % kinds * head_dim..][..head_dim];
        rows.extend(
            [1.0, -1.0].map(|sign| kind.iter().zip(&common).map(|(x, common)| common + sign * x).collect()),
        );
    }
    noise.shuffle(&mut rows);
    rows.concat()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn scores_plus_the_center_are_close_to_the_reference(
        (codes, head_dim, group) in (code_counts(), head_dims(), 1_usize..=32),
        (dtype, offset, with_key) in (dtypes(), offsets(), any::<bool>()),
        (magnitude, query_magnitude, shift) in (magnitudes(), magnitudes(), select(vec![0.0_f32, 1.0, 300.0])),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise::new(seed);
        let (codewords, _) = codewords(&mut noise, codes, head_dim, fitting(dtype, magnitude), shift);
        let queries = noise.vector(group * head_dim, query_magnitude);
        let key = noise.vector(head_dim, 1.0);
        let case = Case::new(&codewords, &unit_matrix(head_dim), head_dim, dtype);
        let center = to_f64(case.book.center());
        let mut want = vec![0.0; codes * group];
        let mut magnitudes = vec![0.0; codes * group];
        for (h, query) in to_f64(&queries).chunks_exact(head_dim).enumerate() {
            let common: f64 = query.iter().zip(&center).map(|(q, c)| q * c).sum();
            // f64 rounds the common part too.
            let rounding: f64 = query.iter().zip(&center).map(|(q, c)| 1e-8 * (q * c).abs()).sum();
            for (c, score) in case.reference.scores(query).into_iter().enumerate() {
                let own = &case.centered[c * head_dim..(c + 1) * head_dim];
                want[h * codes + c] = score - common;
                magnitudes[h * codes + c] = rounding + own.iter().zip(query).map(|(c, q)| (c * q).abs()).sum::<f64>();
            }
        }
        on_every_backend(|kernels| {
            let mut got = Guarded::new(&vec![f32::NAN; codes * group], offset);
            let (queries, key) = (Guarded::new(&queries, 15 - offset), Guarded::new(&key, offset));
            let newest = if with_key { &key[..] } else { &[] };
            let newest = calls::scores_into(kernels, &case.book, &queries, newest, &mut got).unwrap();
            assert_eq!(newest.len(), usize::from(with_key));
            let what = format!("{} {dtype}, {codes} codes", kernels.name());
            assert_close(&what, &got, &want, &magnitudes, score_tolerance(kernels, dtype, head_dim));
        });
    }

    #[test]
    fn equal_codewords_score_equally_wherever_they_stand(
        (codes, copies, head_dim) in (1_usize..=20, 2_usize..=20, head_dims()),
        (group, dtype, with_key, seed) in (1_usize..=32, dtypes(), any::<bool>(), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let codewords = noise.vector(codes * head_dim, 1.0).repeat(copies);
        let (queries, key) = (noise.vector(group * head_dim, 1.0), noise.vector(head_dim, 1.0));
        let book = Codebook::new(&codewords, &unit_matrix(head_dim), head_dim, dtype).unwrap();
        on_every_backend(|kernels| {
            let newest = if with_key { &key[..] } else { &[] };
            let (scores, newest) = calls::scores(kernels, &book, &queries, newest).unwrap();
            for scores in scores.chunks_exact(copies * codes) {
                let (first, others) = scores.split_at(codes);
                for copy in others.chunks_exact(codes) {
                    assert_eq!(copy, first, "{} {dtype}", kernels.name());
                }
            }
            assert!(newest.iter().all(|&code| usize::from(code) < codes), "the lowest of equal codes");
            let mut batch = [u16::MAX; 2];
            kernels.encode(&book, &key.repeat(2), &mut batch).unwrap();
            assert!(batch.iter().all(|&code| usize::from(code) < codes), "{batch:?}");
        });
    }

    #[test]
    fn ranges_of_codes_and_sequences_that_share_a_pass_give_the_same_bits(
        (codes, head_dim, dtype) in (code_counts(), head_dims(), dtypes()),
        (sequences, group, parts) in (1_usize..=9, 1_usize..=9, 1_usize..=4),
        (copies, seed) in (1_usize..=3, any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        // Copies are in several ranges: the lowest of them is the best.
        let mut codewords = noise.vector(codes.div_ceil(copies) * head_dim, 1.0).repeat(copies);
        codewords.truncate(codes * head_dim);
        let book = Codebook::new(&codewords, &noise.cholesky(head_dim), head_dim, dtype).unwrap();
        let queries = noise.vector(sequences * group * head_dim, 1.0);
        let keys = noise.vector(sequences * head_dim, 1.0);
        let mut cuts: Vec<usize> = (1..parts).map(|_| noise.below(codes + 1)).collect();
        cuts.extend([0, codes]);
        cuts.sort_unstable();
        on_every_backend(|kernels| {
            let mut probes = Probes::default();
            kernels.prepare_probes(&book, &queries, &keys, &mut probes).unwrap();
            assert_eq!((probes.queries(), probes.keys()), (sequences * group, sequences));
            let mut together = vec![vec![]; sequences * group];
            let mut best = vec![BestCode::default(); sequences];
            for cut in cuts.windows(2) {
                let range = cut[0]..cut[1];
                let mut scores = Guarded::new(&vec![f32::NAN; sequences * group * range.len()], range.len() % 15);
                let mut of_range = vec![BestCode::default(); sequences];
                kernels
                    .codeword_scores(&book, &probes, range.clone(), &mut scores, &mut of_range)
                    .unwrap();
                for (all, scores) in together.iter_mut().zip(scores.chunks(range.len().max(1))) {
                    all.extend_from_slice(scores);
                }
                best.iter_mut().zip(&of_range).for_each(|(best, of_range)| best.merge(of_range));
            }
            for sequence in 0..sequences {
                let of = |all: &[f32], each: usize| all[sequence * each * head_dim..(sequence + 1) * each * head_dim].to_vec();
                let (alone, code) = calls::scores(kernels, &book, &of(&queries, group), &of(&keys, 1)).unwrap();
                assert_eq!(together[sequence * group..(sequence + 1) * group].concat(), alone, "{} {dtype}", kernels.name());
                assert_eq!(best[sequence].code(), code[0], "{} {dtype}", kernels.name());
            }
        });
    }

    #[test]
    fn gathered_codebooks_give_the_same_bits(
        (shapes, group) in (collection::vec((code_counts(), dtypes()), 1..=4), 1_usize..=32),
        (head_dim, seed) in (head_dims(), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let apart: Vec<Codebook> = shapes
            .iter()
            .map(|&(codes, dtype)| {
                let (codewords, factor) = (noise.vector(codes * head_dim, 1.0), noise.cholesky(head_dim));
                Codebook::new(&codewords, &factor, head_dim, dtype).unwrap()
            })
            .collect();
        let mut gathered = apart.clone();
        Codebook::gather(&mut gathered).unwrap();
        let (queries, key) = (noise.vector(group * head_dim, 1.0), noise.vector(head_dim, 1.0));
        on_every_backend(|kernels| {
            for (apart, gathered) in apart.iter().zip(&gathered) {
                let result = |book: &Codebook| calls::scores(kernels, book, &queries, &key).unwrap();
                assert_eq!(result(apart), result(gathered), "{}", kernels.name());
            }
        });
    }

    #[test]
    fn the_center_is_the_mean_codeword(
        (codes, head_dim, dtype) in (code_counts(), head_dims(), dtypes()),
        (magnitude, seed) in (magnitudes(), any::<u64>()),
    ) {
        let codewords = Noise::new(seed).vector(codes * head_dim, fitting(dtype, magnitude));
        let book = Codebook::new(&codewords, &unit_matrix(head_dim), head_dim, dtype).unwrap();
        let mut want = vec![0.0; head_dim];
        codewords.iter().enumerate().for_each(|(i, &x)| want[i % head_dim] += f64::from(x) / codes as f64);
        assert_close("center", book.center(), &want, &want.iter().map(|x| x.abs()).collect::<Vec<_>>(), 2.0 * ROUNDING);
    }

    #[test]
    fn codes_are_the_nearest_up_to_rounding(
        (codes, head_dim, keys) in (code_counts(), head_dims(), select(vec![0_usize, 1, 3, 59, 60, 61])),
        (dtype, offset) in (dtypes(), offsets()),
        (magnitude, shift) in (select(vec![1.0_f32, 1e-2, 100.0]), select(vec![0.0_f32, 1.0, 300.0])),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise::new(seed);
        let (mut codewords, common) = codewords(&mut noise, codes, head_dim, magnitude, shift);
        if codes > 2 {
            codewords.copy_within(0..head_dim, (codes - 1) * head_dim);
        }
        let case = Case::new(&codewords, &noise.cholesky(head_dim), head_dim, dtype);
        let mut all = noise.vector(keys * head_dim, magnitude);
        all.iter_mut().enumerate().for_each(|(i, x)| *x += common[i % head_dim]);
        on_every_backend(|kernels| {
            let batch = case.encode(kernels, &Guarded::new(&all, offset));
            for (key, &code) in all.chunks_exact(head_dim).zip(&batch).step_by(1 + keys / 8) {
                case.assert_code(kernels, key, code);
                case.assert_code(kernels, key, case.newest(kernels, key));
            }
        });
    }

    #[test]
    fn codes_of_whole_numbers_are_exact_with_the_lowest_of_equals(
        (pairs, head_dim, few) in (prop_oneof![1_usize..=4, 1_usize..=150], head_dims(), any::<bool>()),
        (dtype, keys, seed) in (dtypes(), 1_usize..=130, any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let codewords = whole_codewords(&mut noise, pairs, head_dim, few);
        let case = Case::new(&codewords, &unit_matrix(head_dim), head_dim, dtype);
        prop_assert_eq!(&case.reference.codewords, &to_f64(&codewords));
        let keys = noise.whole_numbers(keys * head_dim, 22);
        let want: Vec<u16> = case.reference.encode_all(&to_f64(&keys)).into_iter().map(|code| code as u16).collect();
        on_every_backend(|kernels| {
            assert_eq!(case.encode(kernels, &keys), want, "{}", kernels.name());
            for (key, &want) in keys.chunks_exact(head_dim).zip(&want).take(5) {
                assert_eq!(case.newest(kernels, key), want, "{}", kernels.name());
            }
        });
    }

    #[test]
    fn scores_of_whole_numbers_are_exact(
        (pairs, head_dim, group) in (1_usize..=100, head_dims(), 1_usize..=32),
        (dtype, seed) in (dtypes(), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let case = Case::new(&whole_codewords(&mut noise, pairs, head_dim, true), &unit_matrix(head_dim), head_dim, dtype);
        let queries = noise.whole_numbers(group * head_dim, 300);
        let mut want = vec![0.0; 2 * pairs * group];
        for (h, query) in to_f64(&queries).chunks_exact(head_dim).enumerate() {
            for (c, own) in case.centered.chunks_exact(head_dim).enumerate() {
                want[h * 2 * pairs + c] = own.iter().zip(query).map(|(c, q)| c * q).sum();
            }
        }
        on_every_backend(|kernels| {
            let (got, _) = calls::scores(kernels, &case.book, &queries, &[]).unwrap();
            assert_eq!(to_f64(&got), want, "{}", kernels.name());
        });
    }

    #[test]
    fn lengths_that_do_not_fit_are_errors_and_change_nothing(
        (codes, head_dim, group) in (1_usize..=3, select(vec![16_usize, 18]), 0_usize..=34),
        (queries, key, outputs, keys) in (0_usize..=60, 0_usize..=40, 0_usize..=60, 0_usize..=60),
        right in any::<[bool; 4]>(),
    ) {
        let given = |right: bool, needed: usize, other: usize| if right { needed } else { other };
        let case = Case::new(&vec![0.5; codes * head_dim], &unit_matrix(head_dim), head_dim, Dtype::F32);
        let queries = vec![1.0; given(right[0], group * head_dim, queries)];
        let group = queries.len() / head_dim;
        let key = vec![1.0; given(right[1], head_dim, key)];
        let outputs = given(right[2], codes * group, outputs);
        let keys = vec![1.0; given(right[3], 2 * head_dim, keys)];
        on_every_backend(|kernels| {
            let mut scores = Guarded::new(&vec![-1.0; outputs], 1);
            let scored = calls::scores_into(kernels, &case.book, &queries, &key, &mut scores);
            let whole = queries.len() == group * head_dim && key.len().is_multiple_of(head_dim);
            assert_eq!(scored.is_ok(), whole && outputs == codes * group, "{scored:?}");
            assert!(scored.is_ok() || scores.iter().all(|&x| x == -1.0));
            let mut codes = [77; 2];
            let encoded = kernels.encode(&case.book, &keys, &mut codes);
            assert_eq!(encoded.is_ok(), keys.len() == 2 * head_dim, "{encoded:?}");
            assert_eq!(codes, if encoded.is_ok() { [0; 2] } else { [77; 2] });
        });
    }

    #[test]
    fn codebooks_that_do_not_fit_are_errors(
        (head_dim, codewords, cholesky) in (0_usize..=300, 0_usize..=800, 0_usize..=800),
        (whole, right) in (any::<bool>(), any::<bool>()),
    ) {
        let codewords = if whole { codewords % 4 * head_dim } else { codewords };
        let factor = if right { unit_matrix(head_dim) } else { vec![0.0; cholesky] };
        let made = Codebook::new(&vec![1.0; codewords], &factor, head_dim, Dtype::Bf16);
        let supported = (16..=256).contains(&head_dim) && head_dim.is_multiple_of(2);
        let fits = supported && codewords > 0 && codewords.is_multiple_of(head_dim);
        prop_assert_eq!(made.is_ok(), fits && factor.len() == head_dim * head_dim, "{:?}", made.err());
    }
}

#[test]
fn all_65536_codes_are_found_and_one_more_is_an_error() {
    let head_dim = 16;
    // The code in binary, as signs: no two alike, and the mean is zero.
    let codeword = |code: usize| (0..head_dim).map(move |bit| if code >> bit & 1 == 1 { 1.0 } else { -1.0 });
    let mut codewords: Vec<f32> = (0..1 << 16).flat_map(codeword).collect();
    let case = Case::new(&codewords, &unit_matrix(head_dim), head_dim, Dtype::Bf16);
    let codes = [0, 1, 255, 256, 32767, 32768, 65534, 65535];
    let keys: Vec<f32> = codes.iter().flat_map(|&code| codeword(code.into())).collect();
    on_every_backend(|kernels| {
        assert_eq!(case.encode(kernels, &keys), codes, "{}", kernels.name());
        assert_eq!(case.newest(kernels, &keys[7 * head_dim..]), 65535, "{}", kernels.name());
    });
    codewords.extend([0.0; 16]);
    assert!(Codebook::new(&codewords, &unit_matrix(head_dim), head_dim, Dtype::Bf16).is_err());
}

#[test]
fn numbers_that_are_not_finite_are_errors() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 31] {
            let (mut codewords, mut cholesky) = (vec![1.0; 32], unit_matrix(16));
            codewords[at] = bad;
            assert!(Codebook::new(&codewords, &cholesky, 16, Dtype::F32).is_err());
            cholesky[at] = bad;
            assert!(Codebook::new(&[1.0; 32], &cholesky, 16, Dtype::F32).is_err());
        }
    }
}

#[test]
fn codewords_beyond_a_storage_type_are_errors() {
    let of_size = |size: f32| -> Vec<f32> { (0..32).map(|i| if i < 16 { size } else { -size }).collect() };
    for dtype in [Dtype::F32, Dtype::Bf16] {
        assert!(Codebook::new(&of_size(1e18), &unit_matrix(16), 16, dtype).is_ok());
        assert!(Codebook::new(&of_size(1e19), &unit_matrix(16), 16, dtype).is_err());
    }
    // The largest number of f16 is 65504.
    assert!(Codebook::new(&of_size(65504.0), &unit_matrix(16), 16, Dtype::F16).is_ok());
    assert!(Codebook::new(&of_size(65505.0), &unit_matrix(16), 16, Dtype::F16).is_err());
}

#[test]
fn probes_for_another_backend_or_codebook_are_errors() {
    let book = |head_dim, dtype| {
        Codebook::new(&vec![0.5; 3 * head_dim], &unit_matrix(head_dim), head_dim, dtype).unwrap()
    };
    let alike = book(16, Dtype::F32);
    let books =
        [book(16, Dtype::F32), alike, book(16, Dtype::F16), book(16, Dtype::Bf16), book(18, Dtype::F32)];
    for preparing in available() {
        for (number, book) in books.iter().enumerate() {
            let mut probes = Probes::default();
            let vector = vec![1.0; book.head_dim()];
            preparing.prepare_probes(book, &vector, &vector, &mut probes).unwrap();
            for multiplying in available() {
                for (other, book) in books.iter().enumerate() {
                    let (mut scores, mut best) = ([-1.0; 3], [BestCode::default()]);
                    let done = multiplying.codeword_scores(book, &probes, 0..3, &mut scores, &mut best);
                    let fits = preparing.name() == multiplying.name() && number == other;
                    assert_eq!(done.is_ok(), fits, "{done:?}");
                    assert_eq!(scores, if fits { [0.0; 3] } else { [-1.0; 3] });
                }
            }
        }
    }
}

#[test]
fn codes_that_are_not_there_and_keys_without_a_place_are_errors() {
    let book = Codebook::new(&[0.5; 3 * 16], &unit_matrix(16), 16, Dtype::F32).unwrap();
    on_every_backend(|kernels| {
        let mut probes = Probes::default();
        kernels.prepare_probes(&book, &[1.0; 16], &[1.0; 32], &mut probes).unwrap();
        for (start, end, keys) in
            [(0, 3, 2), (1, 1, 2), (0, 4, 2), (3, 4, 2), (2, 1, 2), (0, usize::MAX, 2), (0, 3, 1), (0, 3, 3)]
        {
            let mut scores = vec![-1.0; end.saturating_sub(start).min(4)];
            let mut best = vec![BestCode::default(); keys];
            let done = kernels.codeword_scores(&book, &probes, start..end, &mut scores, &mut best);
            assert_eq!(done.is_ok(), start <= end && end <= 3 && keys == 2, "{start}..{end}, {keys} keys");
            assert!(done.is_ok() || scores.iter().all(|&x| x == -1.0));
        }
    });
}

#[test]
fn a_factor_that_is_not_lower_triangular_is_an_error() {
    let mut factor = unit_matrix(16);
    factor[16] = 0.5;
    assert!(Codebook::new(&[1.0; 32], &factor, 16, Dtype::F32).is_ok());
    factor.swap(1, 16);
    let error = Codebook::new(&[1.0; 32], &factor, 16, Dtype::F32).unwrap_err().to_string();
    assert!(error.contains("lower triangular"), "{error}");
}
