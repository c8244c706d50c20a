//! Weight products against the reference.

use a2ats_kernel::{
    Dtype, Kernels, Result,
    linear::{Inputs, Matrix, Method, Precision, Purpose, Vectors, rows_per_task},
};
use a2ats_tests::{
    backends::on_every_backend,
    inputs::{
        Guarded, Noise, ROUNDING, Stored, assert_close, config, dtypes, fitting, input_rounding, lengths,
        magnitudes, offsets, query_precision, rounded, row_counts,
    },
    reference::{linear::matmul, to_f64},
};
use proptest::{prelude::*, sample::select};

/// Of Σ|w·x|: f32 sums, whose errors are random and so grow with the root of their number (the more, the fewer chains a
/// sum is split into: with many inputs it is one of 512 terms), and how the backend sees x.
fn tolerance(kernels: &dyn Kernels, dtype: Dtype, cols: usize) -> f64 {
    ROUNDING * (3.0 + 0.4 * (cols as f64).sqrt()) + query_precision(kernels, dtype)
}

/// `[n, rows]` as the reference has it to `[rows, n]` as the kernels do.
fn transposed(x: &[f64], rows: usize, n: usize) -> Vec<f64> {
    (0..rows * n).map(|i| x[i % n * rows + i / n]).collect()
}

fn absolute(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x.abs()).collect()
}

const METHODS: [Method; 2] = [Method::Few, Method::Many];

fn purpose(weights: &Matrix<'_>, precision: Precision, method: Method) -> Purpose {
    Purpose { dtype: weights.elements().dtype(), cols: weights.cols(), precision, method }
}

/// Numbers that are in memory before others come.
fn noise_of(len: usize) -> Vec<f32> {
    Noise::new(1).vector(len, 1e30)
}

/// Prepares inputs, `[n, cols]`, and multiplies, as callers do.
fn product(
    kernels: &dyn Kernels,
    weights: Matrix<'_>,
    inputs: &[f32],
    (precision, method): (Precision, Method),
    out: &mut [f32],
) -> Result<()> {
    let mut prepared = Inputs::default();
    kernels.prepare(Vectors::Rows(inputs), purpose(&weights, precision, method), &mut prepared)?;
    kernels.product(weights, &prepared, out)
}

fn check_product(dtype: Dtype, rows: usize, cols: usize, weights: &[f32], inputs: &[f32], offset: usize) {
    let n = inputs.len() / cols;
    let (w, x) = (to_f64(&rounded(dtype, weights)), to_f64(inputs));
    let want = transposed(&matmul(&w, rows, cols, &x, n), rows, n);
    let magnitudes = transposed(&matmul(&absolute(&w), rows, cols, &absolute(&x), n), rows, n);
    let stored = Stored::new(dtype, weights, offset);
    let matrix = Matrix::new(stored.elements(), rows, cols).unwrap();
    on_every_backend(|kernels| {
        for (precision, method) in [Precision::Full, Precision::Rounded]
            .into_iter()
            .flat_map(|precision| METHODS.map(|method| (precision, method)))
        {
            let mut got = Guarded::new(&vec![f32::NAN; rows * n], offset);
            product(kernels, matrix, &Guarded::new(inputs, 15 - offset), (precision, method), &mut got)
                .unwrap();
            let what =
                format!("{} {dtype} [{rows}, {cols}] x {n}, {precision:?}, {method:?}", kernels.name());
            let rounded = if precision == Precision::Rounded { input_rounding(kernels, dtype) } else { 0.0 };
            assert_close(&what, &got, &want, &magnitudes, tolerance(kernels, dtype, cols) + rounded);
        }
    });
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn products_are_close_to_the_reference(
        (rows, cols, n) in (row_counts(), prop_oneof![1 => 1_usize..=3, 4 => lengths()], prop_oneof![2 => 1_usize..=13, 1 => 1_usize..=110]),
        (dtype, offset) in (dtypes(), offsets()),
        (magnitude, input_magnitude) in (magnitudes(), magnitudes()),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise::new(seed);
        let weights = noise.vector(rows * cols, fitting(dtype, magnitude));
        let inputs = noise.vector(n * cols, input_magnitude);
        check_product(dtype, rows, cols, &weights, &inputs, offset);
    }

    #[test]
    fn products_of_long_rows_are_close_to_the_reference(
        (rows, cols) in (1_usize..=9, select(vec![1023_usize, 1024, 1025, 1055, 2047, 2048, 2050, 3100])),
        (dtype, offset, n) in (dtypes(), offsets(), 1_usize..=11),
        (one_sign, seed) in (any::<bool>(), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let (mut weights, mut inputs) = (noise.vector(rows * cols, 0.1), noise.vector(n * cols, 1.0));
        if one_sign {
            weights.iter_mut().chain(&mut inputs).for_each(|x| *x = x.abs());
        }
        check_product(dtype, rows, cols, &weights, &inputs, offset);
    }

    #[test]
    fn products_of_whole_numbers_are_exact(
        (rows, cols, n) in (1_usize..=70, lengths(), 1_usize..=7),
        (dtype, seed) in (dtypes(), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let (weights, inputs) = (noise.whole_numbers(rows * cols, 8), noise.whole_numbers(n * cols, 300));
        let want = transposed(&matmul(&to_f64(&weights), rows, cols, &to_f64(&inputs), n), rows, n);
        let stored = Stored::new(dtype, &weights, 1);
        on_every_backend(|kernels| {
            let matrix = Matrix::new(stored.elements(), rows, cols).unwrap();
            for method in METHODS {
                let mut got = vec![0.0; rows * n];
                product(kernels, matrix, &inputs, (Precision::Full, method), &mut got).unwrap();
                assert_eq!(to_f64(&got), want, "{} {method:?}", kernels.name());
            }
        });
    }

    #[test]
    fn panels_of_64_rows_give_the_bits_of_the_whole(
        (rows, cols, n) in (row_counts(), lengths(), 1_usize..=9),
        (dtype, method, seed) in (dtypes(), select(METHODS.to_vec()), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let stored = Stored::new(dtype, &noise.vector(rows * cols, 1.0), 0);
        let inputs = noise.vector(n * cols, 1.0);
        let matrix = Matrix::new(stored.elements(), rows, cols).unwrap();
        let cut = 64 * noise.below(rows.div_ceil(64) + 1);
        on_every_backend(|kernels| {
            let (mut whole, mut parts) = (vec![0.0; rows * n], vec![0.0; rows * n]);
            product(kernels, matrix, &inputs, (Precision::Full, method), &mut whole).unwrap();
            let (head, tail) = parts.split_at_mut(cut.min(rows) * n);
            product(kernels, matrix.row_range(0..cut), &inputs, (Precision::Full, method), head).unwrap();
            product(kernels, matrix.row_range(cut..usize::MAX), &inputs, (Precision::Full, method), tail).unwrap();
            assert_eq!(whole, parts, "{}", kernels.name());
        });
    }

    #[test]
    fn an_input_gives_the_same_bits_alone_and_among_others(
        (rows, cols, n) in (row_counts(), lengths(), 1_usize..=60),
        (dtype, method, seed) in (dtypes(), select(METHODS.to_vec()), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let stored = Stored::new(dtype, &noise.vector(rows * cols, 1.0), 0);
        let inputs = noise.vector(n * cols, 1.0);
        let matrix = Matrix::new(stored.elements(), rows, cols).unwrap();
        let chosen = noise.below(n);
        on_every_backend(|kernels| {
            let (mut all, mut alone) = (vec![0.0; rows * n], vec![0.0; rows]);
            product(kernels, matrix, &inputs, (Precision::Full, method), &mut all).unwrap();
            let input = &inputs[chosen * cols..(chosen + 1) * cols];
            product(kernels, matrix, input, (Precision::Full, method), &mut alone).unwrap();
            let among: Vec<f32> = all.iter().skip(chosen).step_by(n).copied().collect();
            assert_eq!(among, alone, "{}", kernels.name());
        });
    }

    /// From rows at once, from columns at once, and part by part into memory that has been used before.
    #[test]
    fn inputs_are_the_same_however_they_are_packed(
        (rows, cols, n) in (row_counts(), lengths(), 1_usize..=120),
        (dtype, method, seed) in (dtypes(), select(METHODS.to_vec()), any::<u64>()),
    ) {
        let mut noise = Noise::new(seed);
        let stored = Stored::new(dtype, &noise.vector(rows * cols, 1.0), 0);
        let matrix = Matrix::new(stored.elements(), rows, cols).unwrap();
        let inputs = noise.vector(n * cols, 1.0);
        let (first, stride) = (noise.below(5), n + noise.below(9) + 4);
        let mut columns = noise.vector(cols * stride, 1.0);
        for (i, &x) in inputs.iter().enumerate() {
            columns[i % cols * stride + first + i / cols] = x;
        }
        on_every_backend(|kernels| {
            let mut whole = vec![0.0; rows * n];
            product(kernels, matrix, &inputs, (Precision::Full, method), &mut whole).unwrap();
            let purpose = purpose(&matrix, Precision::Full, method);
            let mut prepared = Inputs::default();
            for from_rows in [true, false] {
                let other = noise_of(n * cols + 7 * cols);
                kernels.prepare(Vectors::Rows(&other), purpose, &mut prepared).unwrap();
                let layout = kernels.lay_out(n, purpose, &mut prepared).unwrap();
                let of_part = layout.part_vectors();
                for (number, part) in prepared.values_mut().chunks_mut(layout.part_len()).enumerate() {
                    let start = number * of_part;
                    let count = of_part.min(n - start);
                    let vectors = if from_rows {
                        Vectors::Rows(&inputs[start * cols..(start + count) * cols])
                    } else {
                        Vectors::Columns { values: &columns, stride, first: first + start, count }
                    };
                    kernels.pack(&layout, number, vectors, part).unwrap();
                }
                let mut got = vec![0.0; rows * n];
                kernels.product(matrix, &prepared, &mut got).unwrap();
                assert_eq!(got, whole, "{} from rows: {from_rows}", kernels.name());
            }
            let vectors = Vectors::Columns { values: &columns, stride, first, count: n };
            kernels.prepare(vectors, purpose, &mut prepared).unwrap();
            let mut got = vec![0.0; rows * n];
            kernels.product(matrix, &prepared, &mut got).unwrap();
            assert_eq!(got, whole, "{} from columns", kernels.name());
        });
    }

    /// What the bits of a product do not depend on.
    #[test]
    fn tasks_are_panels_of_64_rows(rows in 0_usize..=20_000, inputs in 0_usize..=200, threads in 0_usize..=70) {
        let of_task = rows_per_task(rows, inputs, threads);
        prop_assert!(of_task > 0 && of_task.is_multiple_of(64), "{}", of_task);
    }

    #[test]
    fn row_ranges_are_the_rows_inside(rows in 0_usize..=9, start in 0_usize..=11, end in 0_usize..=11) {
        let cols = 3;
        let elements: Vec<f32> = (0..rows * cols).map(|x| x as f32).collect();
        let stored = Stored::new(Dtype::F32, &elements, 0);
        let part = Matrix::new(stored.elements(), rows, cols).unwrap().row_range(start..end);
        let (start, end) = (start.min(end).min(rows), end.min(rows));
        prop_assert_eq!((part.rows(), part.cols()), (end.saturating_sub(start), cols));
        prop_assert_eq!(part.elements().to_f32(), &elements[start * cols..end.max(start) * cols]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_errors_and_change_nothing(
        (rows, cols, n) in (0_usize..6, 0_usize..6, 0_usize..4),
        (elements, inputs, outputs) in (0_usize..6, 0_usize..6, 0_usize..6),
        right in any::<[bool; 3]>(),
    ) {
        let given = |right: bool, needed: usize, other: usize| if right { needed } else { other };
        let weights = Stored::new(Dtype::F32, &vec![1.0; given(right[0], rows * cols, elements)], 0);
        let matrix = Matrix::new(weights.elements(), rows, cols);
        prop_assert_eq!(matrix.is_ok(), weights.elements().len() == rows * cols);
        let Ok(matrix) = matrix else { return Ok(()) };
        let inputs = vec![1.0; given(right[1], n * cols, inputs)];
        let n = inputs.len().checked_div(cols).unwrap_or(0);
        let outputs = given(right[2], n * rows, outputs);
        on_every_backend(|kernels| {
            let mut out = Guarded::new(&vec![-1.0; outputs], 2);
            let done = product(kernels, matrix, &inputs, (Precision::Full, Method::for_inputs(n)), &mut out);
            assert_eq!(done.is_ok(), inputs.len() == n * cols && outputs == n * rows, "{done:?}");
            assert!(out.iter().all(|&x| x == if done.is_ok() { cols as f32 } else { -1.0 }));
        });
    }
}

/// Pieces of 256 rows and of 512 columns meet.
#[test]
fn products_of_several_pieces_are_close_to_the_reference() {
    let mut noise = Noise::new(61);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        for (rows, cols, n) in [(300, 1100, 20), (513, 515, 51), (257, 1024, 6)] {
            let weights = noise.vector(rows * cols, 1.0);
            let inputs = noise.vector(n * cols, 1.0);
            check_product(dtype, rows, cols, &weights, &inputs, 3);
        }
    }
}
