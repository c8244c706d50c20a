//! KV rows, runs of them, and attention over them.

use crate::{
    Case,
    draw::{Draw, is_group, is_head_dim, is_inside, is_whole, numbers},
};
use a2ats_kernel::{
    Dtype,
    attention::{Causal, Partial, Scratch, segment_rows},
    linear::Precision,
    rows::{MAX_AREAS, Rows, Run, Runs, row_bytes, row_width},
};
use a2ats_tests::{
    calls,
    inputs::{Guarded, Stored},
};

pub const CASES: &[Case] = &[
    ("shape::row_width", width),
    ("rows::row_bytes", bytes),
    ("Rows::new", rows),
    ("Run::new", run),
    ("Runs::new", runs),
    ("Kernels::attend", attend),
    ("Kernels::attend_causal", attend_causal),
    ("attention::segment_rows", segments),
    ("Partial::merge", merge),
    ("Partial::finish", finish),
];

fn segments(draw: &mut Draw<'_>) {
    let rows = draw.number(5000);
    let segment = segment_rows(rows);
    assert!(segment.is_multiple_of(32) && rows.div_ceil(segment) <= 16, "{segment}");
}

/// So many rows.
pub fn stored(count: usize, head_dim: usize, dtype: Dtype) -> Stored {
    Stored::rows(dtype, &numbers(count * head_dim), &numbers(count * head_dim), head_dim, 3)
}

/// Attention of so many queries over a few rows.
pub fn partial(draw: &Draw<'_>, queries: usize, head_dim: usize) -> Partial {
    let stored = stored(3, head_dim, Dtype::F32);
    let rows = Rows::new(stored.elements(), head_dim).unwrap();
    calls::attend(draw.kernels, rows, &[Run::new(0, 0..3)], &numbers(queries * head_dim), 1.0).unwrap()
}

fn width(draw: &mut Draw<'_>) {
    let head_dim = draw.number(16);
    assert!(row_width(head_dim) >= head_dim - head_dim % 32);
}

fn bytes(draw: &mut Draw<'_>) {
    let (dtype, head_dim) = (draw.dtype(), draw.number(16));
    assert!(row_bytes(dtype, head_dim) >= row_width(head_dim));
}

fn rows(draw: &mut Draw<'_>) {
    let (count, head_dim, dtype) = (draw.below(4), draw.head_dim(), draw.dtype());
    let elements = Stored::new(dtype, &numbers(draw.len(count * 2 * row_width(head_dim))), 3);
    let head_dim = draw.number(head_dim);
    let done = Rows::new(elements.elements(), head_dim);
    let fits = is_head_dim(head_dim) && is_whole(elements.elements().len(), 2 * row_width(head_dim));
    draw.hold(done, fits, true);
}

fn run(draw: &mut Draw<'_>) {
    let (area, rows) = (draw.number(2), draw.range(9));
    let run = Run::new(area, rows.clone());
    assert!(run.rows().len() <= rows.len());
}

fn runs(draw: &mut Draw<'_>) {
    let (count, head_dim, dtype) = (1 + draw.below(9), draw.head_dim(), draw.dtype());
    // As wide, but not the same; and another storage type.
    let other = draw.instead(
        (head_dim, dtype),
        &[(head_dim - 2, dtype), (head_dim, Dtype::F16), (head_dim, Dtype::Bf16)],
    );
    let other_fits = other == (head_dim, dtype);
    let other = (if is_head_dim(other.0) { other.0 } else { 34 }, other.1);
    let (first, last) = (stored(count, head_dim, dtype), stored(count, other.0, other.1));
    let good = 1 + draw.below(MAX_AREAS);
    let mut areas = vec![Rows::new(first.elements(), head_dim).unwrap(); draw.len(good)];
    areas.iter_mut().skip(1).take(1).for_each(|area| *area = Rows::new(last.elements(), other.0).unwrap());
    let all = [drawn_run(draw, good, count), drawn_run(draw, good, count)];
    let done = Runs::new(&areas, &all);
    let are_inside = all.iter().all(|run| (run.area as usize) < areas.len() && run.rows().end <= count);
    let fits = (1..=MAX_AREAS).contains(&areas.len()) && (other_fits || areas.len() < 2) && are_inside;
    assert!(done.as_ref().map_or(true, |runs| runs.len() == all[0].rows().len() + all[1].rows().len()));
    draw.hold(done, fits, true);
}

/// A run of one of `areas` areas of `count` rows.
pub fn drawn_run(draw: &mut Draw<'_>, areas: usize, count: usize) -> Run {
    let (area, start) = (draw.below(areas), draw.below(count + 1));
    let len = draw.below(count - start + 1);
    Run { area: draw.narrow(area), start: draw.narrow(start), len: draw.narrow(len) }
}

fn attend(draw: &mut Draw<'_>) {
    let (count, head_dim, dtype, group) = (draw.below(70), draw.head_dim(), draw.dtype(), 1 + draw.below(16));
    let stored = stored(count, head_dim, dtype);
    let (areas, all) = ([Rows::new(stored.elements(), head_dim).unwrap()], [Run::new(0, 0..count)]);
    let rows = Runs::new(&areas, &all).unwrap();
    let (part, queries) = (draw.range(count), numbers(draw.len(group * head_dim)));
    let mut out = partial(draw, 2, 20);
    let before = out.clone();
    let done = draw.kernels.attend(&rows, part.clone(), &queries, 0.5, &mut Scratch::default(), &mut out);
    let fits =
        is_inside(&part, count) && is_whole(queries.len(), head_dim) && is_group(queries.len() / head_dim);
    draw.hold(done, fits, out == before);
}

fn attend_causal(draw: &mut Draw<'_>) {
    let (count, head_dim, group) = (draw.below(9), draw.head_dim(), 1 + draw.below(16));
    let (stored, dtype) = (stored(count, head_dim, draw.dtype()), draw.dtype());
    let of_past = draw.instead(head_dim, &[20, 34, 64]);
    let past = self::stored(2, of_past, dtype);
    let (areas, all) = ([Rows::new(past.elements(), of_past).unwrap()], [Run::new(0, 0..2)]);
    let positions = draw.below(count + 1);
    let len = positions * group * head_dim;
    let (queries, outputs) = (numbers(draw.len(len)), draw.len(len));
    let request = Causal {
        past: Some(Runs::new(&areas, &all).unwrap()).filter(|_| draw.below(4) < 3),
        rows: Rows::new(stored.elements(), head_dim).unwrap(),
        first: draw.number(count - positions),
        group: draw.number(group),
        queries: &queries,
        scale: 0.5,
        precision: Precision::Rounded,
    };
    let mut out = Guarded::new(&vec![-1.0; outputs], 3);
    let done = draw.kernels.attend_causal(&request, &mut Scratch::default(), &mut out);
    let fits = is_group(request.group)
        && is_whole(queries.len(), request.group * head_dim)
        && outputs == queries.len()
        && (request.past.is_none() || of_past == head_dim)
        && request.first.saturating_add(queries.len() / (request.group * head_dim)) <= count;
    draw.hold(done, fits, out.iter().all(|&x| x == -1.0));
}

fn merge(draw: &mut Draw<'_>) {
    let shape = (1 + draw.below(16), draw.head_dim());
    let other = draw.instead(shape, &[(shape.0 % 16 + 1, shape.1), (shape.0, 34), (16, 256), (1, 20)]);
    let (mut into, from) = (partial(draw, shape.0, shape.1), partial(draw, other.0, other.1));
    let (nothing, fits) = (draw.instead(false, &[true]), shape == other);
    let from = if nothing { Partial::default() } else { from };
    let before = into.clone();
    let done = into.merge(&from);
    draw.hold(done, fits && !nothing, into == before);
}

fn finish(draw: &mut Draw<'_>) {
    let (queries, head_dim) = (1 + draw.below(16), draw.head_dim());
    let nothing = draw.instead(false, &[true]);
    let whole = if nothing { Partial::default() } else { partial(draw, queries, head_dim) };
    let mut out = Guarded::new(&vec![-1.0; draw.len(queries * head_dim)], 3);
    let done = whole.finish(&mut out);
    let need = if nothing { 0 } else { queries * head_dim };
    draw.hold(done, out.len() == need, out.iter().all(|&x| x == -1.0));
}
