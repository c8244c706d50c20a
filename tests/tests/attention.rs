//! Attention over selected rows and causal attention against the reference, and the rows themselves.

use a2ats_kernel::{
    Dtype, Kernels,
    attention::{Causal, Partial, Scratch, segment_rows},
    linear::Precision,
    rows::{MAX_AREAS, Rows, Run, Runs},
};
use a2ats_tests::{
    backends::on_every_backend,
    calls,
    inputs::{
        Guarded, Noise, ROUNDING, Stored, assert_close, config, dtypes, fitting, groups, head_dims,
        input_rounding, offsets, query_precision, rounded, row_counts, weight_precision,
    },
    reference::{attention::attend, to_f64},
};
use proptest::{prelude::*, sample::select};
use std::ops::Range;

/// Of the terms of [`Want::add`]: f32 sums over a head and over the rows (random errors, so by their roots), e^x, and
/// how the backend sees the query.
fn tolerance(kernels: &dyn Kernels, dtype: Dtype, head_dim: usize, rows: usize) -> f64 {
    ROUNDING * (3.0 + 0.1 * ((head_dim as f64).sqrt() + (rows as f64).sqrt()))
        + query_precision(kernels, dtype)
        + weight_precision(kernels, dtype)
}

/// What the reference gives, and per element the sum of what rounding errors come from.
#[derive(Default)]
struct Want {
    values: Vec<f64>,
    magnitudes: Vec<f64>,
}

/// Keys and values, as the rows store them.
struct Tokens {
    dtype: Dtype,
    head_dim: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Tokens {
    fn new(noise: &mut Noise, dtype: Dtype, head_dim: usize, count: usize, magnitudes: Magnitudes) -> Self {
        let mut keys = noise.vector(count * head_dim, fitting(dtype, magnitudes.keys));
        if magnitudes.constant_keys {
            (head_dim..keys.len()).for_each(|i| keys[i] = keys[i - head_dim]);
        }
        let values = noise.vector(count * head_dim, fitting(dtype, magnitudes.values));
        Self { dtype, head_dim, keys: rounded(dtype, &keys), values: rounded(dtype, &values) }
    }

    fn stored(&self, offset: usize) -> Stored {
        Stored::rows(self.dtype, &self.keys, &self.values, self.head_dim, offset)
    }

    /// Adds the attention of one group over the tokens that `mask` marks.
    ///
    /// Rounding turns a score s_j by some of S_j = Σ|q·k_j| and the exponential by some of itself, so the output by
    /// some of Σ w_j (1 + S_j) (|v_j| + |out|). Weights below the normal range are 0, whatever their values.
    fn attend(&self, want: &mut Want, queries: &[f32], scale: f32, mask: &[bool]) {
        let (d, scale) = (self.head_dim, f64::from(scale));
        let (keys, values) = (to_f64(&self.keys), to_f64(&self.values));
        for query in to_f64(queries).chunks_exact(d) {
            let out = attend(query, &keys[..mask.len() * d], &values[..mask.len() * d], d, scale, mask);
            let mut terms = vec![0.0; mask.len() * d];
            for (j, key) in keys.chunks_exact(d).take(mask.len()).enumerate() {
                let score: f64 = key.iter().zip(query).map(|(k, q)| (k * q).abs() * scale).sum();
                for i in j * d..(j + 1) * d {
                    terms[i] = (1.0 + score) * (values[i].abs() + out[i % d].abs());
                }
            }
            let mut magnitudes = attend(query, &keys[..mask.len() * d], &terms, d, scale, mask);
            for (value, _) in values.chunks_exact(d).zip(mask).filter(|(_, seen)| **seen) {
                for (magnitude, value) in magnitudes.iter_mut().zip(value) {
                    *magnitude += f64::from(f32::MIN_POSITIVE) / ROUNDING * value.abs();
                }
            }
            want.magnitudes.extend(magnitudes);
            want.values.extend(out);
        }
    }
}

/// Rows in some areas of memory.
struct Split {
    areas: Vec<Stored>,
    /// The first token of each area, and how many there are.
    firsts: Vec<usize>,
}

impl Split {
    fn new(noise: &mut Noise, tokens: &Tokens, areas: usize, offset: usize) -> Self {
        let (d, count) = (tokens.head_dim, tokens.keys.len() / tokens.head_dim);
        let mut firsts: Vec<usize> = (1..areas).map(|_| noise.below(count + 1)).collect();
        firsts.extend([0, count]);
        firsts.sort_unstable();
        let area = |ends: &[usize]| {
            let range = ends[0] * d..ends[1] * d;
            Stored::rows(tokens.dtype, &tokens.keys[range.clone()], &tokens.values[range], d, offset)
        };
        Self { areas: firsts.windows(2).map(area).collect(), firsts }
    }

    /// Some runs of up to `longest` rows, no row twice, in random order; and the tokens in that order.
    fn runs(&self, noise: &mut Noise, longest: usize) -> (Vec<Run>, Vec<u32>) {
        let mut runs = Vec::new();
        for (area, ends) in self.firsts.windows(2).enumerate() {
            let mut at = 0;
            while at < ends[1] - ends[0] {
                let end = (ends[1] - ends[0]).min(at + 1 + noise.below(longest));
                runs.push(Run::new(area, at..end));
                at = end;
            }
        }
        noise.shuffle(&mut runs);
        runs.truncate(1 + noise.below(runs.len()));
        let first = |run: &Run| self.firsts[run.area as usize];
        let tokens =
            runs.iter().flat_map(|run| run.rows().map(move |row| (first(run) + row) as u32)).collect();
        (runs, tokens)
    }
}

#[derive(Debug, Clone, Copy)]
struct Magnitudes {
    queries: f32,
    keys: f32,
    values: f32,
    constant_keys: bool,
}

/// Magnitudes whose scores stay within some hundreds, scale included: larger ones leave f32 no bits after the point.
fn sizes() -> impl Strategy<Value = Magnitudes> {
    let scores = select(vec![
        (1.0_f32, 1.0_f32),
        (1.0, 1.0),
        (8.0, 1.0),
        (20.0, 3.0),
        (1e-15, 1e15),
        (1e20, 1e-20),
        (0.0, 1.0),
        (1e-30, 1.0),
    ]);
    let values = select(vec![1.0_f32, 1.0, 1e15, 1e-30, 0.0]);
    (scores, values, prop_oneof![3 => Just(false), 1 => Just(true)]).prop_map(
        |((queries, keys), values, constant_keys)| Magnitudes { queries, keys, values, constant_keys },
    )
}

fn scale_of(head_dim: usize) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}

/// Queries of a size that goes with the keys of that type.
fn queries(noise: &mut Noise, dtype: Dtype, len: usize, sizes: Magnitudes) -> Vec<f32> {
    noise.vector(len, sizes.queries * (sizes.keys / fitting(dtype, sizes.keys)))
}

fn mask_of(positions: &[u32], len: usize) -> Vec<bool> {
    let mut mask = vec![false; len];
    positions.iter().for_each(|&position| mask[position as usize] = true);
    mask
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn attention_over_any_runs_of_any_areas_is_close_to_the_reference(
        (count, head_dim, group) in (row_counts(), head_dims(), groups()),
        (dtype, offset, sizes) in (dtypes(), offsets(), sizes()),
        (areas, longest, seed) in (1_usize..=MAX_AREAS, select(vec![1_usize, 3, 40, 300]), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let tokens = Tokens::new(&mut noise, dtype, head_dim, count, sizes);
        let queries = queries(&mut noise, dtype, group * head_dim, sizes);
        let scale = scale_of(head_dim);
        let split = Split::new(&mut noise, &tokens, areas, offset);
        let rows: Vec<Rows<'_>> = split.areas.iter().map(|area| Rows::new(area.elements(), head_dim).unwrap()).collect();
        let (runs, positions) = split.runs(&mut noise, longest);
        let all = Runs::new(&rows, &runs).unwrap();
        assert_eq!((all.len(), all.is_empty()), (positions.len(), positions.is_empty()));
        let part = noise.below(positions.len());
        let part = part..part + 1 + noise.below(positions.len() - part);
        let (mut of_all, mut of_part) = (Want::default(), Want::default());
        tokens.attend(&mut of_all, &queries, scale, &mask_of(&positions, count));
        tokens.attend(&mut of_part, &queries, scale, &mask_of(&positions[part.clone()], count));
        on_every_backend(|kernels| {
            let queries = Guarded::new(&queries, offset);
            let (mut partial, mut out) = (Partial::default(), vec![0.0; queries.len()]);
            let (mut scratch, tolerance) = (Scratch::default(), tolerance(kernels, dtype, head_dim, count));
            for (part, want) in [(0..positions.len(), &of_all), (part.clone(), &of_part)] {
                kernels.attend(&all, part, &queries, scale, &mut scratch, &mut partial).unwrap();
                partial.finish(&mut out).unwrap();
                assert_close(kernels.name(), &out, &want.values, &want.magnitudes, tolerance);
            }
        });
    }

    #[test]
    fn merged_parts_are_close_to_the_reference_of_the_whole(
        (count, head_dim, group) in (row_counts(), head_dims(), groups()),
        (dtype, sizes, parts) in (dtypes(), sizes(), 1_usize..=6),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise::new(seed);
        let tokens = Tokens::new(&mut noise, dtype, head_dim, count, sizes);
        let queries = queries(&mut noise, dtype, group * head_dim, sizes);
        let positions = noise.positions(count);
        let mut cuts: Vec<usize> = (1..parts).map(|_| noise.below(positions.len() + 1)).collect();
        cuts.extend([0, positions.len()]);
        cuts.sort_unstable();
        let stored = tokens.stored(0);
        let rows = [Rows::new(stored.elements(), head_dim).unwrap()];
        let runs = calls::runs_of(&positions);
        let all = Runs::new(&rows, &runs).unwrap();
        let mut want = Want::default();
        tokens.attend(&mut want, &queries, scale_of(head_dim), &mask_of(&positions, count));
        on_every_backend(|kernels| {
            let (mut whole, mut scratch): (Option<Partial>, _) = (None, Scratch::default());
            for cut in cuts.windows(2) {
                let mut part = Partial::default();
                let scale = scale_of(head_dim);
                kernels.attend(&all, cut[0]..cut[1], &queries, scale, &mut scratch, &mut part).unwrap();
                match &mut whole {
                    Some(whole) => whole.merge(&part).unwrap(),
                    None => whole = Some(part),
                }
            }
            let mut out = vec![f32::NAN; queries.len()];
            whole.unwrap().finish(&mut out).unwrap();
            assert_close(kernels.name(), &out, &want.values, &want.magnitudes, tolerance(kernels, dtype, head_dim, count));
        });
    }

    #[test]
    fn parts_of_whole_segments_have_the_bits_of_the_whole(
        (count, head_dim, group) in (1..=5000_usize, select(vec![32_usize, 64]), 1_usize..=5),
        (dtype, seed) in (dtypes(), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let (keys, values) = (noise.vector(count * head_dim, 3.0), noise.vector(count * head_dim, 1.0));
        let stored = Stored::rows(dtype, &keys, &values, head_dim, 0);
        let queries = noise.vector(group * head_dim, 1.0);
        let rows = [Rows::new(stored.elements(), head_dim).unwrap()];
        let runs = calls::runs_of(&noise.positions(count));
        let all = Runs::new(&rows, &runs).unwrap();
        let segments = all.len().div_ceil(segment_rows(all.len()));
        let mut cuts: Vec<usize> = (0..noise.below(4)).map(|_| noise.below(segments + 1)).collect();
        cuts.extend([0, segments]);
        cuts.sort_unstable();
        let cuts: Vec<usize> = cuts.into_iter().map(|cut| all.len().min(cut * segment_rows(all.len()))).collect();
        on_every_backend(|kernels| {
            let mut scratch = Scratch::default();
            let mut attend = |part: Range<usize>| {
                let mut out = Partial::default();
                kernels.attend(&all, part, &queries, 0.3, &mut scratch, &mut out).unwrap();
                out
            };
            let finish = |whole: &Partial| {
                let mut out = vec![f32::NAN; queries.len()];
                whole.finish(&mut out).unwrap();
                out
            };
            let parts = cuts.windows(2).map(|cut| attend(cut[0]..cut[1]));
            let merged = parts.reduce(|mut whole, part| {
                whole.merge(&part).unwrap();
                whole
            });
            assert_eq!(finish(&merged.unwrap()), finish(&attend(0..all.len())), "{}", kernels.name());
        });
    }

    /// Softmax weights add up to 1.
    #[test]
    fn values_that_are_all_alike_come_out_as_they_are(
        (count, head_dim, group) in (row_counts(), head_dims(), groups()),
        (dtype, size, seed) in (dtypes(), select(vec![0.1_f32, 3.0, 30.0]), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let keys = noise.vector(count * head_dim, size);
        let stored = Stored::rows(dtype, &keys, &vec![1.0; keys.len()], head_dim, 0);
        let queries = noise.vector(group * head_dim, 1.0);
        on_every_backend(|kernels| {
            let rows = Rows::new(stored.elements(), head_dim).unwrap();
            let whole = calls::attend(kernels, rows, &[Run::new(0, 0..count)], &queries, 1.0).unwrap();
            let mut out = vec![f32::NAN; queries.len()];
            whole.finish(&mut out).unwrap();
            assert!(out.iter().all(|x| (x - 1.0).abs() < 2e-6), "{}: {out:?}", kernels.name());
        });
    }

    #[test]
    fn causal_attention_is_close_to_the_reference(
        (positions, group, head_dim) in (prop_oneof![1_usize..=50, select(vec![39_usize, 40, 41, 80, 81])], groups(), head_dims()),
        (first, after) in (prop_oneof![Just(0_usize), 0_usize..=140], 0_usize..=3),
        (dtype, offset, sizes) in (dtypes(), offsets(), sizes()),
        (past, past_dtype) in (prop_oneof![Just(0_usize), 1_usize..=130], dtypes()),
        seed in any::<u64>(),
    ) {
        let positions = positions.min(1 + 160 / group);
        let mut noise = Noise::new(seed);
        let narrow = if past > 0 && past_dtype == Dtype::F16 { past_dtype } else { dtype };
        let fitting = Magnitudes { keys: fitting(narrow, sizes.keys), values: fitting(narrow, sizes.values), ..sizes };
        let count = first + positions + after;
        let mut tokens = Tokens::new(&mut noise, past_dtype, head_dim, past, fitting);
        let stored_past = tokens.stored(15 - offset);
        let recent = Tokens::new(&mut noise, dtype, head_dim, count, fitting);
        let stored = recent.stored(offset);
        tokens.keys.extend(&recent.keys);
        tokens.values.extend(&recent.values);
        let queries = queries(&mut noise, narrow, positions * group * head_dim, sizes);
        let scale = scale_of(head_dim);
        let mut want = Want::default();
        for (i, queries) in queries.chunks_exact(group * head_dim).enumerate() {
            tokens.attend(&mut want, queries, scale, &vec![true; past + first + i + 1]);
        }
        let rows = Rows::new(stored.elements(), head_dim).unwrap();
        let earlier = [Rows::new(stored_past.elements(), head_dim).unwrap()];
        // All of the past, in another order.
        let mut pieces: Vec<Run> = (0..past).step_by(37).map(|at| Run::new(0, at..past.min(at + 37))).collect();
        pieces.reverse();
        let earlier = Runs::new(&earlier, &pieces).unwrap();
        on_every_backend(|kernels| {
            let mut out = Guarded::new(&vec![f32::NAN; queries.len()], offset);
            let past = (past > 0 || offset > 7).then_some(earlier);
            for precision in [Precision::Full, Precision::Rounded] {
                let request = Causal { past, rows, first, group, queries: &queries, scale, precision };
                kernels.attend_causal(&request, &mut Scratch::default(), &mut out).unwrap();
                let tolerance = [dtype, past_dtype].map(|dtype| {
                    let rounded = if precision == Precision::Rounded { input_rounding(kernels, dtype) } else { 0.0 };
                    tolerance(kernels, dtype, head_dim, earlier.len() + count) + rounded
                });
                let what = format!("{}, {precision:?}", kernels.name());
                assert_close(&what, &out, &want.values, &want.magnitudes, tolerance[0].max(tolerance[1]));
            }
        });
    }
}

/// Every tile of queries beside every number of rows in the last tiles of rows and the last block.
#[test]
fn every_tile_is_close_to_the_reference() {
    let mut noise = Noise::new(67);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        for group in 1..=16 {
            for count in (1..=9).chain(30..=34) {
                let magnitudes = Magnitudes { queries: 1.0, keys: 1.0, values: 1.0, constant_keys: false };
                let tokens = Tokens::new(&mut noise, dtype, 48, count, magnitudes);
                let queries = noise.vector(group * 48, 1.0);
                let mut want = Want::default();
                tokens.attend(&mut want, &queries, 1.0, &vec![true; count]);
                let stored = tokens.stored(1);
                on_every_backend(|kernels| {
                    let rows = Rows::new(stored.elements(), 48).unwrap();
                    let whole =
                        calls::attend(kernels, rows, &[Run::new(0, 0..count)], &queries, 1.0).unwrap();
                    let mut out = vec![f32::NAN; queries.len()];
                    whole.finish(&mut out).unwrap();
                    let tolerance = tolerance(kernels, dtype, 48, count);
                    assert_close(kernels.name(), &out, &want.values, &want.magnitudes, tolerance);
                });
            }
        }
    }
}

/// Two large scores that differ by a quarter, which queries of eight bits do not tell apart.
#[test]
fn decode_sees_queries_in_full() {
    let (mut keys, mut queries) = (vec![0.0; 2 * 128], vec![1.0; 128]);
    keys[..64].fill(1.0);
    keys[128 + 64..].fill(1.0);
    queries[..64].fill(1.0 + 2_f32.powi(-8));
    let values = [[1.0; 128], [0.0; 128]].concat();
    let want = 1.0 / (1.0 + (-0.25_f32).exp());
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let stored = Stored::rows(dtype, &keys, &values, 128, 0);
        on_every_backend(|kernels| {
            let rows = Rows::new(stored.elements(), 128).unwrap();
            let whole = calls::attend(kernels, rows, &[Run::new(0, 0..2)], &queries, 1.0).unwrap();
            let mut out = [0.0; 128];
            whole.finish(&mut out).unwrap();
            assert!(
                out.iter().all(|x| (x - want).abs() < 5e-3),
                "{} {dtype}: {}, want {want}",
                kernels.name(),
                out[0]
            );
        });
    }
}

#[test]
fn attention_to_nothing_is_zero_and_merges_as_nothing() {
    let stored = Stored::rows(Dtype::F16, &[1.0; 16], &[3.0; 16], 16, 0);
    let rows = Rows::new(stored.elements(), 16).unwrap();
    on_every_backend(|kernels| {
        let mut out = vec![f32::NAN; 32];
        let mut nothing = calls::attend(kernels, rows, &[], &[1.0; 32], 1.0).unwrap();
        nothing.finish(&mut out).unwrap();
        assert_eq!(out, [0.0; 32]);
        let mut one = calls::attend(kernels, rows, &[Run::new(0, 0..1)], &[1.0; 32], 1.0).unwrap();
        let alone = one.clone();
        one.merge(&nothing).unwrap();
        assert_eq!(one, alone);
        nothing.merge(&one).unwrap();
        nothing.finish(&mut out).unwrap();
        assert_eq!(out, [3.0; 32]);
    });
}

#[test]
fn other_head_dims_are_errors() {
    for head_dim in (0..=300).filter(|d| !(16..=256).contains(d) || d % 2 == 1) {
        assert!(Rows::new(Stored::new(Dtype::F32, &[], 0).elements(), head_dim).is_err(), "{head_dim}");
    }
}
