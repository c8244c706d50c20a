//! The estimate of what is not attended, against its formula in f64.

use a2ats_kernel::{
    Dtype, Error, Kernels,
    attention::Partial,
    estimate::{Part, STRIP, Scratch, Sums, Table, Unattended},
    rows::{Rows, Run, Runs, row_width},
};
use a2ats_tests::{
    backends::on_every_backend,
    calls,
    inputs::{
        Noise, ROUNDING, Stored, assert_close, between_guards, config, dtypes, groups, head_dims, offsets,
        query_precision, rounded, weight_precision,
    },
    reference::{linear::dot, to_f64},
};
use proptest::{prelude::*, sample::select};

/// One kv head's step, all of it made up.
struct Case {
    head_dim: usize,
    group: usize,
    dtype: Dtype,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// `[slots, width]` and `[slots]`: sums are products of the two.
    numbers: Vec<i8>,
    scales: Vec<f32>,
    /// `[slots]`
    codes: Vec<u16>,
    counts: Vec<u32>,
    /// `[codes]`
    shares: Vec<f32>,
    /// Slots of the first table; the others are in a second one.
    first_table: usize,
    scores: Vec<f32>,
    offsets: Vec<f32>,
    /// The codes of the last rows, which are in no sum.
    row_codes: Vec<u16>,
    scale: f32,
}

impl Case {
    /// `sizes` are rows, rows with codes, slots, and codes, which are in order if all have slots; `spread` is how far scores
    /// lie apart.
    fn new(
        noise: &mut Noise,
        (rows, with_codes, slots, codes): (usize, usize, usize, usize),
        (group, head_dim, dtype): (usize, usize, Dtype),
        spread: f32,
    ) -> Self {
        let width = row_width(head_dim);
        let mut order: Vec<u16> = (0..codes as u16).collect();
        if slots < codes {
            noise.shuffle(&mut order);
            order.truncate(slots);
        }
        let mut numbers = vec![0; slots * width];
        for numbers in numbers.chunks_exact_mut(width) {
            let values = noise.vector(head_dim, 127.0);
            for (number, value) in numbers.iter_mut().zip(values) {
                *number = value as i8;
            }
        }
        let values = noise.vector(rows * head_dim, 1.0);
        let with_codes = with_codes.min(rows - 1);
        let shares = (0..codes).map(|_| [0.0, 1.0, 0.5, 1e-3][noise.below(4)]).collect();
        Self {
            head_dim,
            group,
            dtype,
            queries: noise.vector(group * head_dim, 1.0),
            keys: rounded(dtype, &noise.vector(rows * head_dim, 1.0)),
            values: rounded(dtype, &values),
            numbers,
            scales: (0..slots).map(|_| 4.0 / (127 << noise.below(4)) as f32).collect(),
            codes: order,
            counts: (0..slots).map(|_| 1 + noise.below(90) as u32).collect(),
            shares,
            first_table: noise.below(slots + 1),
            scores: noise.vector(group * codes, spread),
            offsets: noise.vector(group, 2.0),
            row_codes: (0..with_codes).map(|_| noise.below(codes) as u16).collect(),
            scale: 0.5,
        }
    }

    /// The rows that are attended: half of those with codes, beside all others.
    fn attended(&self) -> usize {
        self.values.len() / self.head_dim - self.row_codes.len() / 2
    }

    /// The first row that has a code.
    fn first_with_code(&self) -> usize {
        self.values.len() / self.head_dim - self.row_codes.len()
    }

    /// The sums as f32.
    fn sums(&self) -> Vec<f32> {
        let of_slot = self.numbers.chunks_exact(row_width(self.head_dim)).zip(&self.scales);
        of_slot.flat_map(|(numbers, scale)| numbers.iter().map(move |&x| f32::from(x) * scale)).collect()
    }

    /// `[slots, width]` in strips.
    fn in_strips<T: Copy>(&self, rows: &[T], guard: T, offset: usize) -> Vec<T> {
        let width = row_width(self.head_dim);
        let strip =
            |strip: usize| rows.chunks(width).flat_map(move |row| &row[strip * STRIP..][..STRIP]).copied();
        let strips: Vec<T> = (0..width / STRIP).flat_map(strip).collect();
        between_guards(strips.into_iter(), guard, offset)
    }

    /// What the kernels make of it, all at once or in parts.
    fn run(&self, kernels: &dyn Kernels, offset: usize, parts: usize) -> Result<Vec<f32>, Error> {
        let width = row_width(self.head_dim);
        let (sums, cut) = (self.sums(), self.first_table * width);
        let in_f32 = [&sums[..cut], &sums[cut..]].map(|sums| self.in_strips(sums, f32::NAN, offset));
        let in_int8 = [&self.numbers[..cut], &self.numbers[cut..]]
            .map(|numbers| self.in_strips(numbers, i8::MIN, offset));
        let table = |number: usize, slots: std::ops::Range<usize>| {
            let inside = offset..offset + slots.len() * width;
            let sums = if self.dtype == Dtype::F32 {
                Sums::F32(&in_f32[number][inside])
            } else {
                Sums::Int8 { numbers: &in_int8[number][inside], scales: &self.scales[slots.clone()] }
            };
            Table { sums, codes: &self.codes[slots.clone()], counts: &self.counts[slots] }
        };
        let tables = [table(0, 0..self.first_table), table(1, self.first_table..self.codes.len())];
        let rows = Stored::rows(self.dtype, &self.keys, &self.values, self.head_dim, offset);
        let rows = [Rows::new(rows.elements(), self.head_dim)?];
        let attended = self.attended();
        let mut whole = calls::attend(kernels, rows[0], &[Run::new(0, 0..attended)], &self.queries, 1.0)?;
        // In two pieces.
        let (first, end) = (self.first_with_code(), self.first_with_code() + self.row_codes.len());
        let cut = first + self.row_codes.len() / 3;
        let runs = [Run::new(0, first..cut), Run::new(0, cut..end)];
        let what = Unattended {
            tables: &tables,
            rows: Runs::new(&rows, &runs)?,
            row_codes: &self.row_codes,
            shares: &self.shares,
            scores: &self.scores,
            offsets: &self.offsets,
            scale: self.scale,
        };
        let (mut part, mut scratch) = (Partial::default(), Scratch::default());
        // What a larger part left in the working memory does not matter.
        kernels.estimate(&what, &what.whole(), &mut scratch, &mut part)?;
        for number in 0..parts {
            let slots = what.slots() * number / parts..what.slots() * (number + 1) / parts;
            kernels.estimate(&what, &Part { slots, rows: number == parts / 2 }, &mut scratch, &mut part)?;
            whole.merge(&part)?;
        }
        let mut values = vec![f32::NAN; self.queries.len()];
        whole.finish(&mut values)?;
        Ok(values)
    }

    /// The estimate of a code for a query head, as the kernels round it: e to a number of a thousand would show more.
    fn estimate(&self, head: usize, code: u16) -> f64 {
        let codes = self.scores.len() / self.group;
        let score = self.scores[head * codes + usize::from(code)];
        f64::from(score * self.scale + self.offsets[head])
    }

    /// The formula, and the sizes of what is summed up.
    fn formula(&self) -> (Vec<f64>, Vec<f64>) {
        let (d, width) = (self.head_dim, row_width(self.head_dim));
        let (keys, values, sums) = (to_f64(&self.keys), to_f64(&self.values), to_f64(&self.sums()));
        let attended = self.attended();
        let (mut out, mut sizes) = (Vec::new(), Vec::new());
        for (head, query) in to_f64(&self.queries).chunks_exact(d).enumerate() {
            let scores: Vec<f64> = keys.chunks_exact(d).take(attended).map(|key| dot(query, key)).collect();
            let of = |&code: &u16| self.estimate(head, code);
            let share = |code: &u16| f64::from(self.shares[usize::from(*code)]);
            let estimate = |code| if share(code) > 0.0 { of(code) } else { f64::NEG_INFINITY };
            let slots: Vec<f64> = self.codes.iter().map(estimate).collect();
            let rows: Vec<f64> = self.row_codes.iter().map(estimate).collect();
            let all = scores.iter().chain(&slots).chain(&rows);
            let largest = all.copied().fold(f64::NEG_INFINITY, f64::max);
            let weight = |score: f64| if score > f64::NEG_INFINITY { (score - largest).exp() } else { 0.0 };
            let mut total = 0.0;
            let (mut head_out, mut head_sizes) = (vec![0.0; d], vec![0.0; d]);
            let mut add = |weight: f64, of: &[f64]| {
                for ((out, size), x) in head_out.iter_mut().zip(&mut head_sizes).zip(of) {
                    *out += weight * x;
                    *size += (weight * x).abs();
                }
            };
            for (score, value) in scores.iter().zip(values.chunks_exact(d)) {
                total += weight(*score);
                add(weight(*score), value);
            }
            let of_slots = slots.iter().zip(&self.codes).zip(&self.counts).zip(sums.chunks_exact(width));
            for (((estimate, code), count), sum) in of_slots {
                let weight = weight(*estimate) * share(code);
                total += weight * f64::from(*count);
                add(weight, &sum[..d]);
            }
            let of_rows = values.chunks_exact(d).skip(self.first_with_code());
            for ((estimate, code), value) in rows.iter().zip(&self.row_codes).zip(of_rows) {
                let weight = weight(*estimate) * share(code);
                total += weight;
                add(weight, value);
            }
            out.extend(head_out.iter().map(|x| x / total));
            sizes.extend(head_sizes.iter().zip(&head_out).map(|(size, x)| (size + x.abs()) / total));
        }
        (out, sizes)
    }

    fn check(&self, kernels: &dyn Kernels, offset: usize) {
        let (want, sizes) = self.formula();
        for parts in [1, 3] {
            let values = self.run(kernels, offset, parts).unwrap();
            // The scores of what is attended are sums over a head, of random errors.
            let tolerance = (20.0 + (self.head_dim as f64).sqrt()) * ROUNDING
                + query_precision(kernels, self.dtype) * 4.0
                + weight_precision(kernels, self.dtype);
            // Weights below 2^−64 count as nothing.
            let sizes: Vec<f64> = sizes.iter().map(|size| size + 1e-16 / tolerance).collect();
            assert_close(kernels.name(), &values, &want, &sizes, tolerance);
        }
    }
}

fn sizes() -> impl Strategy<Value = (usize, usize, usize, usize)> {
    let rows = prop_oneof![1_usize..=4, 1_usize..=100];
    let slots = prop_oneof![0_usize..=3, select(vec![31, 32, 33, 63, 64, 65]), 0_usize..=300];
    let more = prop_oneof![Just(0), 1_usize..=20];
    (rows, 0_usize..=90, slots, more)
        .prop_map(|(rows, with_codes, slots, more)| (rows, with_codes, slots, (slots + more).max(1)))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_estimate_is_its_formula(
        sizes in sizes(),
        shape in (groups(), head_dims(), dtypes()),
        (spread, offset, seed) in (select(vec![0.0_f32, 1e-30, 1.0, 8.0, 100.0, 1e4, 1e30, 3e38]), offsets(), any::<u64>()),
    ) {
        on_every_backend(|kernels| {
            Case::new(&mut Noise::new(seed), sizes, shape, spread).check(kernels, offset);
        });
    }

    #[test]
    fn nothing_left_changes_nothing(
        sizes in sizes(),
        shape in (groups(), head_dims(), dtypes()),
        seed in any::<u64>(),
    ) {
        on_every_backend(|kernels| {
            let mut case = Case::new(&mut Noise::new(seed), sizes, shape, 30.0);
            case.shares.fill(0.0);
            let values = case.run(kernels, 0, 1).unwrap();
            case.shares.fill(1.0);
            let rows = case.values.len() - case.row_codes.len() / 2 * case.head_dim;
            case.row_codes.clear();
            case.keys.truncate(rows);
            case.values.truncate(rows);
            let none = Case { codes: vec![], counts: vec![], numbers: vec![], scales: vec![], first_table: 0, ..case };
            assert_eq!(values, none.run(kernels, 0, 1).unwrap(), "{}", kernels.name());
        });
    }
}

/// Softmax weights add up to 1, whatever is estimated.
#[test]
fn values_that_are_all_alike_come_out_as_they_are() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        on_every_backend(|kernels| {
            let mut case = Case::new(&mut Noise::new(7), (60, 40, 100, 130), (5, 48, dtype), 3.0);
            case.values.fill(1.0);
            let sums = case.numbers.chunks_mut(64).zip(&mut case.scales).zip(&case.counts);
            for ((numbers, scale), count) in sums {
                numbers[..48].fill(127);
                *scale = *count as f32 / 127.0;
            }
            for parts in [1, 4] {
                let values = case.run(kernels, 0, parts).unwrap();
                assert!(
                    values.iter().all(|x| (x - 1.0).abs() < 3e-6),
                    "{} {dtype}: {values:?}",
                    kernels.name()
                );
            }
        });
    }
}
