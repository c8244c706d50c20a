//! Products of weight matrices.

use crate::{
    Case,
    draw::{Draw, is_whole, numbers},
};
use a2ats_kernel::{
    Dtype, Elements, available,
    linear::{Matrix, Precision, rows_per_task},
};
use a2ats_tests::inputs::{Guarded, Stored};

pub const CASES: &[Case] = &[
    ("Matrix::new", new),
    ("Matrix::row_range", row_range),
    ("Kernels::prepare", prepare),
    ("Kernels::product", product),
    ("linear::rows_per_task", rows),
];

fn new(draw: &mut Draw<'_>) {
    let (rows, cols) = (1 + draw.below(4), 1 + draw.below(4));
    let elements = numbers(draw.len(rows * cols));
    let (rows, cols) = (draw.number(rows), draw.number(cols));
    let done = Matrix::new(Elements::F32(&elements), rows, cols);
    draw.hold(done, rows.checked_mul(cols) == Some(elements.len()), true);
}

fn row_range(draw: &mut Draw<'_>) {
    let (rows, cols) = (draw.below(5), draw.below(4));
    let elements = numbers(rows * cols);
    let range = draw.range(rows);
    let part = Matrix::new(Elements::F32(&elements), rows, cols).unwrap().row_range(range.clone());
    let inside = range.start.min(rows)..range.end.min(rows);
    assert_eq!((part.rows(), part.cols(), part.elements().len()), (inside.len(), cols, inside.len() * cols));
}

fn prepare(draw: &mut Draw<'_>) {
    let (cols, count, dtype) = (1 + draw.below(40), draw.below(8), draw.dtype());
    let (inputs, cols) = (numbers(draw.len(count * cols)), draw.number(cols));
    let precision = draw.one_of(&[Precision::Full, Precision::Rounded]);
    let done = draw.kernels.prepare(&inputs, cols, dtype, precision);
    assert!(
        done.as_ref()
            .map_or(true, |made| made.cols() == cols && (cols == 0 || made.count() == inputs.len() / cols))
    );
    draw.hold(done, is_whole(inputs.len(), cols), true);
}

/// The instruction set that inputs beside a storage type are made for.
fn made_for(name: &str, dtype: Dtype) -> &str {
    if dtype == Dtype::Bf16 { name } else { name.trim_end_matches("bf16") }
}

fn product(draw: &mut Draw<'_>) {
    let (dtype, rows, cols, count) = (draw.dtype(), draw.below(9), draw.below(40), draw.below(8));
    let of_inputs = draw.instead(dtype, &[Dtype::F32, Dtype::F16, Dtype::Bf16]);
    let by = draw.instead(draw.kernels, &available());
    let cols_of_inputs = draw.len(cols);
    let inputs =
        by.prepare(&numbers(count * cols_of_inputs), cols_of_inputs, of_inputs, Precision::Full).unwrap();
    let weights = Stored::new(dtype, &numbers(rows * cols), 3);
    let rows = if cols == 0 { draw.number(rows) } else { rows };
    let weights = Matrix::new(weights.elements(), rows, cols).unwrap();
    let good = if cols == 0 || cols_of_inputs == 0 { 0 } else { rows * count };
    let mut out = Guarded::new(&vec![-1.0; draw.len(good)], 3);
    let done = draw.kernels.product(weights, &inputs, &mut out);
    let is_made_for_it =
        (made_for(by.name(), of_inputs), of_inputs) == (made_for(draw.kernels.name(), dtype), dtype);
    let fits = is_made_for_it && cols_of_inputs == cols && out.len() == good;
    draw.hold(done, fits, out.iter().all(|&x| x == -1.0));
}

fn rows(draw: &mut Draw<'_>) {
    let (rows, inputs, threads) = (draw.number(1000), draw.number(100), draw.number(4));
    let part = rows_per_task(rows, inputs, threads);
    assert!(part > 0 && part.is_multiple_of(64), "{part}");
}
