//! The estimate of what is not attended, against its formula in f64.

use a2ats_kernel::{
    Dtype, Error, Kernels,
    attention::{Partial, Selection},
    kv::row_width,
    tail::{NEGLIGIBLE, Rest, STRIP, Sums},
};
use a2ats_tests::{
    backends::on_every_backend,
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
    numbers: Vec<i16>,
    scales: Vec<f32>,
    /// Numbers that are taken away from the end.
    missing: usize,
    codes: Vec<u16>,
    left: Vec<u32>,
    scores: Vec<f32>,
    offsets: Vec<f32>,
    /// The first of the rows are at the boundary.
    boundary_slots: Vec<u16>,
    scale: f32,
}

impl Case {
    /// `sizes` are rows, rows at the boundary, slots, and codes, which are in order if all have slots; `spread` is how far scores
    /// lie apart.
    fn new(
        noise: &mut Noise,
        (rows, boundary, slots, codes): (usize, usize, usize, usize),
        (group, head_dim, dtype): (usize, usize, Dtype),
        spread: f32,
    ) -> Self {
        let width = row_width(head_dim);
        let mut order: Vec<u16> = (0..codes as u16).collect();
        if slots < codes {
            noise.shuffle(&mut order);
            order.truncate(slots);
        }
        // Sums of up to 4, of many bits and of few.
        let shifts: Vec<u32> = (0..slots).map(|_| noise.below(9) as u32).collect();
        let mut numbers = vec![0; slots * width];
        for (numbers, shift) in numbers.chunks_exact_mut(width).zip(&shifts) {
            let values = noise.vector(head_dim, 32767.0);
            for (number, value) in numbers.iter_mut().zip(values) {
                *number = value as i16 >> shift;
            }
        }
        let scales = shifts.iter().map(|&shift| (1 << shift) as f32 / 8192.0).collect();
        let values = noise.vector(rows * head_dim, 1.0);
        Self {
            head_dim,
            group,
            dtype,
            queries: noise.vector(group * head_dim, 1.0),
            keys: rounded(dtype, &noise.vector(rows * head_dim, 1.0)),
            values: rounded(dtype, &values),
            numbers,
            scales,
            missing: 0,
            codes: order,
            left: (0..slots).map(|_| (noise.below(4) * noise.below(30)) as u32).collect(),
            scores: noise.vector(group * codes, spread),
            offsets: noise.vector(group, 2.0),
            boundary_slots: (0..boundary.min(rows) * usize::from(slots > 0))
                .map(|_| noise.below(slots) as u16)
                .collect(),
            scale: 0.5,
        }
    }

    /// The sums as f32, which they are without rounding.
    fn sums(&self) -> Vec<f32> {
        let of_slot = self.numbers.chunks_exact(row_width(self.head_dim)).zip(&self.scales);
        of_slot.flat_map(|(numbers, scale)| numbers.iter().map(move |&x| f32::from(x) * scale)).collect()
    }

    /// `[slots, width]` in strips, with room for some more slots.
    fn in_strips<T: Copy>(&self, rows: &[T], guard: T, offset: usize) -> Vec<T> {
        let (width, more) = (row_width(self.head_dim), [guard; 3 * STRIP]);
        let strip = |strip: usize| {
            let of_slots = rows.chunks(width).flat_map(move |row| &row[strip * STRIP..][..STRIP]);
            of_slots.chain(&more[..offset % 4 * STRIP]).copied().collect::<Vec<T>>()
        };
        let strips: Vec<T> = (0..width / STRIP).flat_map(strip).collect();
        between_guards(strips.into_iter(), guard, offset)
    }

    /// What the kernels make of it, and how many codes were read.
    fn run(&self, kernels: &dyn Kernels, offset: usize) -> Result<(Vec<f32>, usize), Error> {
        let whole = self.in_strips(&self.sums(), f32::NAN, offset);
        let numbers = self.in_strips(&self.numbers, i16::MIN, offset);
        let slots = self.codes.len() + offset % 4;
        let inside = offset..offset + slots * row_width(self.head_dim) - self.missing;
        let sums = if self.dtype == Dtype::F32 {
            Sums::F32(&whole[inside])
        } else {
            Sums::Quantized { numbers: &numbers[inside], scales: &self.scales }
        };
        let rows = Stored::rows(self.dtype, &self.keys, &self.values, self.head_dim, offset);
        let rows = a2ats_kernel::kv::Rows::new(rows.elements(), self.head_dim)?;
        let mut out = Partial::default();
        kernels.attend(rows, &Selection::Range(0..rows.len()), &self.queries, 1.0, &mut out)?;
        let boundary: Vec<u32> = (0..self.boundary_slots.len() as u32).collect();
        let rest = Rest {
            sums,
            codes: &self.codes,
            left: &self.left,
            scores: &self.scores,
            offsets: &self.offsets,
            scale: self.scale,
            rows,
            boundary: &boundary,
            boundary_slots: &self.boundary_slots,
        };
        let read = kernels.attend_rest(&rest, &mut out)?;
        let mut values = vec![f32::NAN; self.queries.len()];
        out.finish(&mut values)?;
        Ok((values, read))
    }

    /// Scores of the slots for a query head, −∞ where nothing is left.
    fn estimates(&self, head: usize) -> Vec<f64> {
        let codes = self.scores.len() / self.group;
        let estimate = |(&code, &left): (&u16, &u32)| {
            let score = self.scores[head * codes + usize::from(code)];
            // As the kernels round it: e to a number of a thousand would show more.
            let estimate = score * self.scale + self.offsets[head];
            if left > 0 { f64::from(estimate) } else { f64::NEG_INFINITY }
        };
        self.codes.iter().zip(&self.left).map(estimate).collect()
    }

    /// The formula, and the sizes of what is summed up.
    fn formula(&self) -> (Vec<f64>, Vec<f64>) {
        let (d, width) = (self.head_dim, row_width(self.head_dim));
        let (keys, values, sums) = (to_f64(&self.keys), to_f64(&self.values), to_f64(&self.sums()));
        let (mut out, mut sizes) = (Vec::new(), Vec::new());
        for (head, query) in to_f64(&self.queries).chunks_exact(d).enumerate() {
            let scores: Vec<f64> = keys.chunks_exact(d).map(|key| dot(query, key)).collect();
            let estimates = self.estimates(head);
            let largest = scores.iter().chain(&estimates).copied().fold(f64::NEG_INFINITY, f64::max);
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
            for ((estimate, left), sum) in estimates.iter().zip(&self.left).zip(sums.chunks_exact(width)) {
                total += weight(*estimate) * f64::from(*left);
                add(weight(*estimate), &sum[..d]);
            }
            for (slot, value) in self.boundary_slots.iter().zip(values.chunks_exact(d)) {
                add(-weight(estimates[usize::from(*slot)]), value);
            }
            out.extend(head_out.iter().map(|x| x / total));
            // What is left out may be as large as what a code or a row has at most.
            sizes.extend(head_sizes.iter().zip(&head_out).map(|(size, x)| (size + x.abs()) / total));
        }
        (out, sizes)
    }

    fn check(&self, kernels: &dyn Kernels, offset: usize) -> usize {
        let (values, read) = self.run(kernels, offset).unwrap();
        let (want, sizes) = self.formula();
        let tolerance = 16.0 * ROUNDING
            + query_precision(kernels, self.dtype) * 4.0
            + weight_precision(kernels, self.dtype);
        // A skipped code has no more of the denominator than its share; its sum is up to 4 for each token, and up to 40 rows are
        // taken out of it.
        let skipped = f64::from(NEGLIGIBLE) * 44.0;
        let magnitudes: Vec<f64> = sizes.iter().map(|size| size + skipped / tolerance).collect();
        assert_close(kernels.name(), &values, &want, &magnitudes, tolerance);
        read
    }
}

fn sizes() -> impl Strategy<Value = (usize, usize, usize, usize)> {
    let rows = prop_oneof![1_usize..=4, 1_usize..=100];
    let slots = prop_oneof![0_usize..=3, select(vec![31, 32, 33, 63, 64, 65]), 0_usize..=300];
    let more = prop_oneof![Just(0), 1_usize..=20];
    (rows, 0_usize..=40, slots, more)
        .prop_map(|(rows, boundary, slots, more)| (rows, boundary, slots, (slots + more).max(1)))
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
            case.left.fill(0);
            let (values, read) = case.run(kernels, 0).unwrap();
            let none = Case { codes: vec![], left: vec![], numbers: vec![], scales: vec![], boundary_slots: vec![], ..case };
            assert_eq!((values, read), none.run(kernels, 0).unwrap(), "{}", kernels.name());
        });
    }
}

/// However large its scores are, what is far below everything else is not read.
#[test]
fn what_does_not_matter_is_not_read() {
    for shift in [0.0, 1e4, -1e4] {
        on_every_backend(|kernels| {
            let mut case = Case::new(&mut Noise::new(4), (50, 0, 200, 200), (3, 64, Dtype::Bf16), 1.0);
            case.left.fill(1);
            case.offsets.fill(shift);
            for (slot, &code) in case.codes.iter().enumerate() {
                for head in 0..3 {
                    // Of the first hundred slots each head needs ten others.
                    let needed = slot < 100 && slot / 10 == head;
                    case.scores[head * 200 + usize::from(code)] = if needed { 4.0 } else { -80.0 };
                }
            }
            let read = case.check(kernels, 3);
            let expected = if shift < 0.0 { 0 } else { 30 };
            assert_eq!(read, expected, "{}: shifted by {shift}", kernels.name());
        });
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    on_every_backend(|kernels| {
        let case = || Case::new(&mut Noise::new(1), (5, 2, 6, 9), (2, 32, Dtype::F32), 1.0);
        assert!(case().run(kernels, 0).is_ok());
        let refused = |change: &dyn Fn(&mut Case)| {
            let mut case = case();
            change(&mut case);
            assert!(case.run(kernels, 0).is_err());
        };
        refused(&|case| case.left.truncate(5));
        refused(&|case| case.scores.truncate(17));
        refused(&|case| case.offsets.truncate(1));
        refused(&|case| case.missing = 1);
        refused(&|case| case.missing = 32);
        refused(&|case| (case.dtype, case.missing) = (Dtype::Bf16, 1));
        refused(&|case| (case.dtype, case.missing) = (Dtype::Bf16, 32));
        refused(&|case| {
            case.dtype = Dtype::F16;
            case.scales.push(1.0);
        });
        refused(&|case| case.codes[3] = 9);
        refused(&|case| case.boundary_slots[1] = 6);
        refused(&|case| case.boundary_slots = vec![0; 6]);
    });
}
