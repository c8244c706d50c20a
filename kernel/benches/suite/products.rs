//! Products of bf16 weights with one input and with many.

use super::{
    bench::{Bench, Work},
    check,
    results::Shape,
};
use a2ats_kernel::{
    Dtype, Elements, Kernels,
    linear::{Inputs, Matrix, Precision, Purpose, Vectors, rows_per_task},
};
use a2ats_tests::{
    inputs::{Noise, Stored, rounded},
    reference::{linear::matvec as reference, to_f64},
};
use rayon::prelude::*;

/// 14336 × 4096 from memory: four such matrices in turn.
pub fn matvec(bench: &mut Bench) {
    if bench.begins("matvec") {
        time(bench, "matvec", [14336, 4096, 1], 4, Precision::Full);
    }
}

/// 512 inputs through 4096 × 4096: rounded to bf16, as bf16 models are run elsewhere, and in full.
pub fn matmul(bench: &mut Bench) {
    if bench.begins("matmul") {
        time(bench, "matmul", [4096, 4096, 512], 1, Precision::Rounded);
        time(bench, "matmul", [4096, 4096, 512], 1, Precision::Full);
    }
}

fn time(
    bench: &mut Bench,
    operation: &str,
    [rows, cols, inputs]: [usize; 3],
    copies: usize,
    precision: Precision,
) {
    let mut noise = Noise::new(23);
    let pattern = noise.vector(1 << 16, 1.0);
    // Where a tensor begins in a file is a multiple of eight bytes, and no more.
    let offset = 4 * noise.below(512);
    let weights: Vec<f32> =
        (0..copies * rows).flat_map(|row| &pattern[row * 7 % 4096..][..cols]).copied().collect();
    let stored = Stored::new(Dtype::Bf16, &weights, offset);
    let x = noise.vector(inputs * cols, 1.0);
    let matrices: Vec<Matrix<'_>> = (0..copies)
        .filter_map(|copy| stored.elements().range(copy * rows * cols..(copy + 1) * rows * cols))
        .map(|elements: Elements<'_>| Matrix::new(elements, rows, cols).expect("the range is a matrix"))
        .collect();
    for &kernels in &bench.kernels.clone() {
        if !precisions(kernels).contains(&precision) {
            continue;
        }
        let mut out = vec![0.0; rows * inputs];
        product(kernels, matrices[0], &x, precision, &mut out);
        let sampled = 5 * cols;
        let want =
            reference(&to_f64(&rounded(Dtype::Bf16, &weights[..sampled])), 5, cols, &to_f64(&x[..cols]));
        let got: Vec<f32> = out.iter().step_by(inputs).take(5).copied().collect();
        check::close(&format!("{operation} on {}", kernels.name()), &got, &want, 1e-2);
        for pool in 0..bench.pools.len() {
            let pool = &bench.pools[pool];
            let timing = bench
                .budget
                .time_on(pool, |run| product(kernels, matrices[run % copies], &x, precision, &mut out));
            let work = if inputs == 1 {
                Work::Bytes(rows * cols * 2)
            } else {
                Work::Flops(2 * rows * cols * inputs)
            };
            let shape = Shape {
                dtype: Some("bf16"),
                rows: Some(rows),
                cols: Some(cols),
                inputs: Some(inputs),
                precision: (inputs > 1).then(|| precision_name(precision)),
                ..Shape::default()
            };
            bench.record(operation, kernels.name(), pool.current_num_threads(), shape, timing, work);
        }
    }
}

/// The precisions that make a difference to a backend: rounding is for what multiplies bf16.
pub fn precisions(kernels: &dyn Kernels) -> &'static [Precision] {
    if kernels.name().ends_with("bf16") { &[Precision::Rounded, Precision::Full] } else { &[Precision::Full] }
}

/// What reports call a precision.
pub fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::Full => "full",
        Precision::Rounded => "rounded",
    }
}

fn product(
    kernels: &dyn Kernels,
    weights: Matrix<'_>,
    inputs: &[f32],
    precision: Precision,
    out: &mut [f32],
) {
    let count = inputs.len() / weights.cols();
    let purpose = Purpose { precision, ..Purpose::new(&weights, count) };
    let vectors = Vectors::Rows(inputs);
    let mut inputs = Inputs::default();
    kernels.prepare(vectors, purpose, &mut inputs).expect("shapes fit together");
    let part = rows_per_task(weights.rows(), inputs.count(), rayon::current_num_threads());
    out.par_chunks_mut(part * inputs.count()).enumerate().for_each(|(number, out)| {
        let part = weights.row_range(number * part..(number + 1) * part);
        kernels.product(part, &inputs, out).expect("shapes fit together");
    });
}
