//! Products of weight matrices.

use crate::{
    Case,
    draw::{Draw, is_whole, numbers},
};
use a2ats_kernel::{
    Dtype, Elements, available,
    linear::{Inputs, Matrix, Method, Precision, Purpose, Vectors, rows_per_task},
};
use a2ats_tests::inputs::{Guarded, Stored};

pub const CASES: &[Case] = &[
    ("Matrix::new", new),
    ("Matrix::row_range", row_range),
    ("Kernels::prepare", prepare),
    ("Kernels::lay_out", lay_out),
    ("Kernels::pack", pack),
    ("Kernels::product", product),
    ("linear::rows_per_task", rows),
    ("Method::for_inputs", method),
    ("Purpose::new", new_purpose),
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

const METHODS: [Method; 2] = [Method::Few, Method::Many];

/// Vectors as rows or as columns, of about the right size, and whether they are whole.
fn vectors<'a>(draw: &mut Draw<'_>, numbers: &'a [f32], cols: usize, count: usize) -> (Vectors<'a>, bool) {
    if draw.below(2) == 0 {
        return (Vectors::Rows(numbers), is_whole(numbers.len(), cols));
    }
    let (stride, first, count) = (draw.number(count), draw.number(0), draw.number(count));
    let whole = cols.checked_mul(stride) == Some(numbers.len());
    let inside = first.checked_add(count).is_some_and(|end| end <= stride);
    (Vectors::Columns { values: numbers, stride, first, count }, whole && inside)
}

fn count_of(vectors: &Vectors<'_>, cols: usize) -> usize {
    match *vectors {
        Vectors::Rows(numbers) => numbers.len().checked_div(cols).unwrap_or(0),
        Vectors::Columns { count, .. } => count,
    }
}

fn purpose(draw: &mut Draw<'_>, cols: usize) -> Purpose {
    let precision = draw.one_of(&[Precision::Full, Precision::Rounded]);
    Purpose { dtype: draw.dtype(), cols, precision, method: draw.one_of(&METHODS) }
}

fn prepare(draw: &mut Draw<'_>) {
    let (cols, count) = (1 + draw.below(40), draw.below(8));
    let (numbers, cols) = (numbers(draw.len(count * cols)), draw.number(cols));
    let (vectors, fits) = vectors(draw, &numbers, cols, count);
    let purpose = purpose(draw, cols);
    let mut inputs = Inputs::default();
    let done = draw.kernels.prepare(vectors, purpose, &mut inputs);
    let is_as_before = inputs.layout().is_none();
    assert!(done.is_err() || inputs.count() == count_of(&vectors, cols));
    // Columns without rows are as many as anybody says: of some numbers there is no room for them.
    if !(fits && cols == 0) {
        draw.hold(done, fits, is_as_before);
    }
}

fn lay_out(draw: &mut Draw<'_>) {
    let (count, cols) = (draw.number(8), draw.number(40));
    let purpose = purpose(draw, cols);
    let mut inputs = Inputs::default();
    match draw.kernels.lay_out(count, purpose, &mut inputs) {
        Ok(layout) => {
            assert_eq!((inputs.layout(), inputs.count()), (Some(&layout), count));
            let parts = inputs.values_mut().chunks_mut(layout.part_len()).len();
            assert!(inputs.values_mut().is_empty() || parts == count.div_ceil(layout.part_vectors()));
        }
        Err(_) => assert!(inputs.layout().is_none() && (count > 16 || cols > 80)),
    }
}

fn pack(draw: &mut Draw<'_>) {
    let (cols, count) = (1 + draw.below(40), draw.below(120));
    let by = draw.instead(draw.kernels, &available());
    let purpose = purpose(draw, cols);
    let layout = by.lay_out(count, purpose, &mut Inputs::default()).unwrap();
    let (parts, of_part) = (count.div_ceil(layout.part_vectors()), layout.part_vectors());
    let good = if parts == 0 { 0 } else { draw.below(parts) };
    let number = draw.number(good);
    let given = of_part.min(count.saturating_sub(good * of_part));
    let mut laid = Inputs::default();
    by.lay_out(count, purpose, &mut laid).unwrap();
    let of_good = laid.values_mut().chunks(layout.part_len()).nth(good).map_or(0, <[f32]>::len);
    let numbers = numbers(draw.len(given * cols));
    let (vectors, whole) = vectors(draw, &numbers, cols, given);
    let mut part = vec![-1.0; draw.len(of_good)];
    let done = draw.kernels.pack(&layout, number, vectors, &mut part);
    let want = of_part.min(count.saturating_sub(number.saturating_mul(of_part)));
    let want_len = laid.values_mut().chunks(layout.part_len()).nth(number).map_or(0, <[f32]>::len);
    let is_made_by = made_for(by.name(), purpose.dtype) == made_for(draw.kernels.name(), purpose.dtype);
    let fits = is_made_by && whole && count_of(&vectors, cols) == want && part.len() == want_len;
    draw.hold(done, fits, part.iter().all(|&x| x == -1.0));
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
    let method = draw.one_of(&METHODS);
    let purpose = Purpose { dtype: of_inputs, cols: cols_of_inputs, precision: Precision::Full, method };
    let mut inputs = Inputs::default();
    by.prepare(Vectors::Rows(&numbers(count * cols_of_inputs)), purpose, &mut inputs).unwrap();
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

fn method(draw: &mut Draw<'_>) {
    let count = draw.number(8);
    assert_eq!(Method::for_inputs(count) == Method::Many, count > 8);
}

fn new_purpose(draw: &mut Draw<'_>) {
    let (dtype, cols, count) = (draw.dtype(), draw.below(4), draw.number(5));
    let weights = Stored::new(dtype, &numbers(cols), 0);
    let purpose = Purpose::new(&Matrix::new(weights.elements(), 1, cols).unwrap(), count);
    assert_eq!((purpose.dtype, purpose.cols, purpose.precision), (dtype, cols, Precision::Full));
}
