//! Attention over selected rows and causal attention against the reference, and the rows themselves.

use a2ats_kernel::{
    Dtype, Kernels,
    attention::{Causal, Partial, Selection},
    kv::{KvRows, Rows, row_bytes, row_width},
    linear::Precision,
};
use a2ats_tests::{
    backends::on_every_backend,
    inputs::{
        Guarded, Noise, ROUNDING, Stored, assert_close, config, dtypes, fitting, groups, head_dims,
        input_rounding, offsets, query_precision, rounded, row_counts, weight_precision,
    },
    reference::{attention::attend, to_f64},
};
use proptest::{prelude::*, sample::select};

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
    /// some of Σ w_j (1 + S_j) (|v_j| + |out|).
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
            want.magnitudes.extend(attend(query, &keys[..mask.len() * d], &terms, d, scale, mask));
            want.values.extend(out);
        }
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
    fn attention_over_any_positions_and_ranges_is_close_to_the_reference(
        (count, head_dim, group) in (row_counts(), head_dims(), groups()),
        (dtype, offset, sizes) in (dtypes(), offsets(), sizes()),
        (sorted, seed) in (any::<bool>(), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let tokens = Tokens::new(&mut noise, dtype, head_dim, count, sizes);
        let queries = queries(&mut noise, dtype, group * head_dim, sizes);
        let scale = scale_of(head_dim);
        let mut positions = noise.positions(count);
        if sorted {
            positions.sort_unstable();
        }
        let start = noise.below(count);
        let range = start..start + 1 + noise.below(count - start);
        let stored = tokens.stored(offset);
        let rows = Rows::new(stored.elements(), head_dim).unwrap();
        let in_range: Vec<u32> = range.clone().map(|position| position as u32).collect();
        let (mut of_positions, mut of_range) = (Want::default(), Want::default());
        tokens.attend(&mut of_positions, &queries, scale, &mask_of(&positions, count));
        tokens.attend(&mut of_range, &queries, scale, &mask_of(&in_range, count));
        on_every_backend(|kernels| {
            let queries = Guarded::new(&queries, offset);
            let (mut partial, mut out) = (Partial::default(), vec![0.0; queries.len()]);
            let tolerance = tolerance(kernels, dtype, head_dim, count);
            for (selection, want) in
                [(Selection::Positions(&positions), &of_positions), (Selection::Range(range.clone()), &of_range)]
            {
                kernels.attend(rows, &selection, &queries, scale, &mut partial).unwrap();
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
        let rows = Rows::new(stored.elements(), head_dim).unwrap();
        let mut want = Want::default();
        tokens.attend(&mut want, &queries, scale_of(head_dim), &mask_of(&positions, count));
        on_every_backend(|kernels| {
            let mut whole: Option<Partial> = None;
            for cut in cuts.windows(2) {
                let (mut part, selection) = (Partial::default(), Selection::Positions(&positions[cut[0]..cut[1]]));
                kernels.attend(rows, &selection, &queries, scale_of(head_dim), &mut part).unwrap();
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
        let sizes = Magnitudes { keys: fitting(narrow, sizes.keys), values: fitting(narrow, sizes.values), ..sizes };
        let count = first + positions + after;
        let mut tokens = Tokens::new(&mut noise, past_dtype, head_dim, past, sizes);
        let stored_past = tokens.stored(15 - offset);
        let recent = Tokens::new(&mut noise, dtype, head_dim, count, sizes);
        let stored = recent.stored(offset);
        tokens.keys.extend(&recent.keys);
        tokens.values.extend(&recent.values);
        let queries = queries(&mut noise, dtype, positions * group * head_dim, sizes);
        let scale = scale_of(head_dim);
        let mut want = Want::default();
        for (i, queries) in queries.chunks_exact(group * head_dim).enumerate() {
            tokens.attend(&mut want, queries, scale, &vec![true; past + first + i + 1]);
        }
        let rows = Rows::new(stored.elements(), head_dim).unwrap();
        let earlier = Rows::new(stored_past.elements(), head_dim).unwrap();
        on_every_backend(|kernels| {
            let mut out = Guarded::new(&vec![f32::NAN; queries.len()], offset);
            let past = (past > 0 || offset > 7).then_some(earlier);
            for precision in [Precision::Full, Precision::Rounded] {
                let request = Causal { past, rows, first, group, queries: &queries, scale, precision };
                kernels.attend_causal(&request, &mut out).unwrap();
                let tolerance = [dtype, past_dtype].map(|dtype| {
                    let rounded = if precision == Precision::Rounded { input_rounding(kernels, dtype) } else { 0.0 };
                    tolerance(kernels, dtype, head_dim, earlier.len() + count) + rounded
                });
                let what = format!("{}, {precision:?}", kernels.name());
                assert_close(&what, &out, &want.values, &want.magnitudes, tolerance[0].max(tolerance[1]));
            }
        });
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_changes_nothing(
        (count, queries, outputs) in (0_usize..=4, 0_usize..=300, 0_usize..=300),
        (start, end, position) in (edges(), edges(), prop_oneof![0_u32..=5, Just(u32::MAX)]),
        (group, first, whole) in (0_usize..=17, edges(), any::<[bool; 2]>()),
    ) {
        let head_dim = 16;
        let queries = vec![1.0; if whole[0] { queries / head_dim * head_dim } else { queries }];
        let outputs = if whole[1] { queries.len() } else { outputs };
        let stored = Stored::rows(Dtype::F32, &vec![1.0; count * head_dim], &vec![1.0; count * head_dim], head_dim, 0);
        let rows = Rows::new(stored.elements(), head_dim).unwrap();
        let heads = queries.len() / head_dim;
        let fits = (1..=16).contains(&heads) && queries.len() == heads * head_dim;
        on_every_backend(|kernels| {
            let mut partial = Partial::default();
            kernels.attend(rows, &Selection::Range(0..count), &[1.0; 16], 1.0, &mut partial).unwrap();
            let before = partial.clone();
            let done = kernels.attend(rows, &Selection::Range(start..end), &queries, 1.0, &mut partial);
            assert!(done.is_err() || fits && end <= count, "{done:?}");
            assert!(done.is_ok() || !(fits && start <= end && end <= count), "{done:?}");
            assert!(done.is_ok() || partial == before);

            let mut partial = before.clone();
            let done = kernels.attend(rows, &Selection::Positions(&[0, position]), &queries, 1.0, &mut partial);
            assert_eq!(done.is_ok(), fits && (position as usize) < count, "{done:?}");
            assert!(done.is_ok() || partial == before);

            let mut out = Guarded::new(&vec![-1.0; outputs], 1);
            let request = Causal { past: None, rows, first, group, queries: &queries, scale: 1.0, precision: Precision::Full };
            let done = kernels.attend_causal(&request, &mut out);
            let positions = queries.len().checked_div(group * head_dim).unwrap_or(0);
            let fits = (1..=16).contains(&group) && queries.len() == positions * group * head_dim;
            let inside = first.checked_add(positions).is_some_and(|end| end <= count);
            assert!(done.is_err() || fits && outputs == queries.len() && (inside || positions == 0), "{done:?}");
            assert!(done.is_ok() || !(fits && outputs == queries.len() && inside), "{done:?}");
            assert!(done.is_ok() || out.iter().all(|&x| x == -1.0));
        });
    }

    #[test]
    fn rows_appended_in_pieces_are_rows_appended_at_once(
        (head_dim, dtype, capacity) in (head_dims(), dtypes(), prop_oneof![Just(0_usize), 1_usize..=200]),
        pieces in proptest::collection::vec(prop_oneof![0_usize..=3, 0_usize..=70], 1..8),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise::new(seed);
        let count = pieces.iter().sum::<usize>();
        let (keys, values) = (noise.vector(count * head_dim, 100.0), noise.vector(count * head_dim, 1.0));
        let mut rows = KvRows::new(dtype, head_dim, capacity).unwrap();
        let mut at = 0;
        for piece in pieces {
            let range = at * head_dim..(at + piece) * head_dim;
            rows.append(&keys[range.clone()], &values[range]).unwrap();
            at += piece;
            prop_assert_eq!((rows.len(), rows.is_empty(), rows.rows().len()), (at, at == 0, at));
        }
        let want = Stored::rows(dtype, &keys, &values, head_dim, 0).elements().to_f32();
        prop_assert_eq!(rows.rows().elements().to_f32(), want, "content, and zeros in the padding");
        prop_assert_eq!((rows.rows().elements().dtype(), rows.rows().head_dim()), (dtype, head_dim));
        prop_assert_eq!(rows.row_bytes(), row_bytes(dtype, head_dim));
        prop_assert_eq!(rows.row_bytes(), 2 * row_width(head_dim) * dtype.size());

        let before = rows.rows().elements().to_f32();
        for (keys, values) in [(1, 1), (head_dim, 2 * head_dim), (head_dim, 0), (0, 1), (head_dim + 1, head_dim + 1)] {
            prop_assert!(rows.append(&vec![1.0; keys], &vec![1.0; values]).is_err());
        }
        prop_assert_eq!(rows.rows().elements().to_f32(), &before[..]);

        let (row, cut) = (2 * row_width(head_dim), noise.below(count + 2));
        prop_assert_eq!(rows.rows().before(cut).elements().to_f32(), &before[..cut.min(count) * row]);
        prop_assert_eq!(rows.rows().from(cut).elements().to_f32(), &before[cut.min(count) * row..]);
        rows.truncate(cut);
        prop_assert_eq!(rows.rows().elements().to_f32(), &before[..cut.min(count) * row]);
        let again = cut.min(count) * head_dim..;
        rows.append(&keys[again.clone()], &values[again]).unwrap();
        prop_assert_eq!(rows.rows().elements().to_f32(), before);
    }
}

/// Positions about four rows, and at the end of the numbers.
fn edges() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0_usize..=5, 1 => Just(usize::MAX), 1 => Just(usize::MAX - 1)]
}

#[test]
fn attention_to_nothing_is_zero_and_merges_as_nothing() {
    on_every_backend(|kernels| {
        let mut rows = KvRows::new(Dtype::F16, 16, 1).unwrap();
        rows.append(&[1.0; 16], &[3.0; 16]).unwrap();
        let (mut nothing, mut one, mut out) = (Partial::default(), Partial::default(), vec![f32::NAN; 32]);
        kernels.attend(rows.rows(), &Selection::Positions(&[]), &[1.0; 32], 1.0, &mut nothing).unwrap();
        nothing.finish(&mut out).unwrap();
        assert_eq!(out, [0.0; 32]);
        kernels.attend(rows.rows(), &Selection::Range(0..1), &[1.0; 32], 1.0, &mut one).unwrap();
        let alone = one.clone();
        one.merge(&nothing).unwrap();
        assert_eq!(one, alone);
        nothing.merge(&one).unwrap();
        nothing.finish(&mut out).unwrap();
        assert_eq!(out, [3.0; 32]);
        assert!(Partial::default().merge(&one).is_err());
        assert!(one.finish(&mut out[1..]).is_err());
    });
}

#[test]
fn rows_of_other_sizes_are_errors() {
    for head_dim in (0..=300).filter(|d| !(16..=256).contains(d) || d % 2 == 1) {
        assert!(KvRows::new(Dtype::F32, head_dim, 1).is_err(), "{head_dim}");
        assert!(Rows::new(Stored::new(Dtype::F32, &[], 0).elements(), head_dim).is_err(), "{head_dim}");
    }
    let stored = Stored::new(Dtype::F16, &[1.0; 128], 0);
    let (one_too_long, two) =
        (Rows::new(stored.elements(), 20).unwrap(), Rows::new(stored.elements(), 18).unwrap());
    on_every_backend(|kernels| {
        let request = Causal {
            past: Some(one_too_long),
            rows: two,
            first: 0,
            group: 1,
            queries: &[1.0; 18],
            scale: 1.0,
            precision: Precision::Full,
        };
        assert!(kernels.attend_causal(&request, &mut [0.0; 18]).is_err());
    });
    for len in [1, 32, 63, 65, 127] {
        assert!(Rows::new(Stored::new(Dtype::Bf16, &vec![0.0; len], 0).elements(), 18).is_err(), "{len}");
    }
    assert!(KvRows::new(Dtype::F32, 128, usize::MAX).is_err());
}
