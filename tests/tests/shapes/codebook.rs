//! Scores of codewords and codes of keys.

use crate::{
    Case,
    draw::{Draw, is_head_dim, is_inside, is_whole, numbers},
};
use a2ats_kernel::{
    Codebook, Dtype, available,
    codebook::{BestCode, Probes},
};
use a2ats_tests::inputs::{Guarded, unit_matrix};

pub const CASES: &[Case] = &[
    ("Codebook::new", new),
    ("Codebook::gather", gather),
    ("BestCode::merge", merge),
    ("Kernels::prepare_probes", prepare_probes),
    ("Kernels::codeword_scores", codeword_scores),
    ("Kernels::encode", encode),
];

/// A codebook of so many codewords.
pub fn book(codes: usize, head_dim: usize, dtype: Dtype) -> Codebook {
    Codebook::new(&numbers(codes * head_dim), &unit_matrix(head_dim), head_dim, dtype).unwrap()
}

fn drawn(draw: &mut Draw<'_>) -> Codebook {
    let (codes, head_dim, dtype) = (1 + draw.below(40), draw.head_dim(), draw.dtype());
    book(codes, head_dim, dtype)
}

fn new(draw: &mut Draw<'_>) {
    let (codes, head_dim, dtype) = (1 + draw.below(40), draw.head_dim(), draw.dtype());
    // Zeros are lower triangular, whatever the dimension is said to be.
    let (mut codewords, cholesky) =
        (numbers(draw.len(codes * head_dim)), vec![0.0; draw.len(head_dim * head_dim)]);
    let head_dim = draw.number(head_dim);
    let bad = draw.instead(0.5, &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
    codewords.iter_mut().take(1).for_each(|x| *x = bad);
    let done = Codebook::new(&codewords, &cholesky, head_dim, dtype);
    let fits = is_head_dim(head_dim)
        && !codewords.is_empty()
        && is_whole(codewords.len(), head_dim)
        && cholesky.len() == head_dim * head_dim
        && bad.is_finite();
    draw.hold(done, fits, true);
}

fn gather(draw: &mut Draw<'_>) {
    let mut books: Vec<Codebook> = (0..draw.below(4)).map(|_| drawn(draw)).collect();
    Codebook::gather(&mut books).unwrap();
}

fn merge(_: &mut Draw<'_>) {
    let mut best = BestCode::default();
    best.merge(&BestCode::default());
    assert_eq!(best.code(), 0);
}

fn prepare_probes(draw: &mut Draw<'_>) {
    let (book, other) = (drawn(draw), drawn(draw));
    let (queries, keys) = (draw.below(5) * book.head_dim(), draw.below(3) * book.head_dim());
    let (queries, keys) = (numbers(draw.len(queries)), numbers(draw.len(keys)));
    let mut probes = Probes::default();
    draw.kernels.prepare_probes(&other, &numbers(2 * other.head_dim()), &[], &mut probes).unwrap();
    let before = format!("{probes:?}");
    let done = draw.kernels.prepare_probes(&book, &queries, &keys, &mut probes);
    let fits = is_whole(queries.len(), book.head_dim()) && is_whole(keys.len(), book.head_dim());
    draw.hold(done, fits, format!("{probes:?}") == before);
}

/// Probes that were made for `book`, or for a codebook of another kind, or by another backend, or never; and whether they fit.
fn probes(draw: &mut Draw<'_>, book: &Codebook, queries: usize, keys: usize) -> (Probes, bool) {
    let (codes, head_dim, dtype) = (book.codes(), book.head_dim(), book.dtype());
    let other = draw.instead(
        (codes, head_dim, dtype),
        &[
            (codes + 1, head_dim, dtype),
            (codes, head_dim + 2, dtype),
            (codes, head_dim, Dtype::F32),
            (codes, head_dim, Dtype::F16),
            (codes, head_dim, Dtype::Bf16),
        ],
    );
    let by = draw.instead(draw.kernels, &available());
    let mut probes = Probes::default();
    if draw.instead(false, &[true]) {
        return (probes, false);
    }
    let (queries, keys) = (numbers(queries * other.1), numbers(keys * other.1));
    let is_same = other == (codes, head_dim, dtype);
    let other = if is_same { book.clone() } else { self::book(other.0, other.1, other.2) };
    by.prepare_probes(&other, &queries, &keys, &mut probes).unwrap();
    let is_alike = (other.head_dim(), other.dtype()) == (head_dim, dtype);
    (probes, by.name() == draw.kernels.name() && (is_same || (keys.is_empty() && is_alike)))
}

fn codeword_scores(draw: &mut Draw<'_>) {
    let book = drawn(draw);
    let (queries, keys) = (draw.below(5), draw.below(3));
    let (probes, are_made_for_it) = probes(draw, &book, queries, keys);
    let codes = draw.range(book.codes());
    let good = queries * codes.len().min(book.codes());
    let (scores, best) = (draw.len(good), draw.len(keys));
    let (mut scores, mut best) = (Guarded::new(&vec![-1.0; scores], 3), vec![BestCode::default(); best]);
    let done = draw.kernels.codeword_scores(&book, &probes, codes.clone(), &mut scores, &mut best);
    let fits =
        are_made_for_it && is_inside(&codes, book.codes()) && scores.len() == good && best.len() == keys;
    let is_unchanged =
        scores.iter().all(|&x| x == -1.0) && best.iter().all(|best| *best == BestCode::default());
    draw.hold(done, fits, is_unchanged);
}

fn encode(draw: &mut Draw<'_>) {
    let (book, tokens) = (drawn(draw), draw.below(4));
    let (keys, mut codes) = (numbers(draw.len(tokens * book.head_dim())), vec![u16::MAX; draw.len(tokens)]);
    let done = draw.kernels.encode(&book, &keys, &mut codes);
    let fits = keys.len() == codes.len() * book.head_dim();
    draw.hold(done, fits, codes.iter().all(|&code| code == u16::MAX));
}
