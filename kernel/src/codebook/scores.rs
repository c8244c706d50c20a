//! One pass over the codewords: the group's scores and the newest key's code.

use super::{Codebook, encode::Probe};
use crate::{
    dots::{Products, RowSet, dots, operand_len, prepare_query, query_tiles},
    dtype::{Element, Elements},
    kv::row_width,
    simd::Simd,
};

/// Codewords whose products wait in L1 to be sorted into scores and candidates for the newest key's code.
const CODEWORDS: usize = 64;

/// Scores `[codes, group]` of the queries, and the code of the newest key if there is one.
#[inline(always)]
pub(crate) fn scores<S: Simd>(
    s: S,
    book: &Codebook,
    queries: &[f32],
    newest: Option<&[f32]>,
    scores: &mut [f32],
) -> Option<u16> {
    match book.table() {
        Elements::F32(table) => scores_typed(s, book, table, queries, newest, scores),
        Elements::F16(table) => scores_typed(s, book, table, queries, newest, scores),
        Elements::Bf16(table) => scores_typed(s, book, table, queries, newest, scores),
    }
}

#[inline(always)]
fn scores_typed<S: Simd, T: Element>(
    s: S,
    book: &Codebook,
    table: &[T],
    queries: &[f32],
    newest: Option<&[f32]>,
    scores: &mut [f32],
) -> Option<u16> {
    let width = row_width(book.head_dim);
    let stride = operand_len::<S>(width);
    let group = queries.len() / book.head_dim;
    let count = group + usize::from(newest.is_some());
    let mut operands = vec![0.0; count * stride];
    for (query, operand) in queries.chunks_exact(book.head_dim).zip(operands.chunks_exact_mut(stride)) {
        prepare_query::<S, T>(s, query, 1.0, operand);
    }
    if let Some(key) = newest {
        let mut probe = Probe::new(book);
        prepare_query::<S, T>(s, probe.of_key(s, book, key), 1.0, &mut operands[group * stride..]);
    }
    let rows = RowSet { elements: table, stride: width, positions: None };
    let mut products = vec![0.0; CODEWORDS * count];
    let mut best = (f32::NEG_INFINITY, 0);
    for start in (0..book.codes).step_by(CODEWORDS) {
        let block = start..book.codes.min(start + CODEWORDS);
        for (first, tile) in query_tiles(count) {
            let values = &mut products[first..];
            let out = Products { values, per_row: count, per_query: 1, accumulate: false };
            dots(s, &rows, block.clone(), 0..width, &operands[first * stride..], tile, false, out);
        }
        let scores = scores[start * group..block.end * group].chunks_exact_mut(group);
        for ((code, products), scores) in block.zip(products.chunks_exact(count)).zip(scores) {
            scores.copy_from_slice(&products[..group]);
            if let Some(product) = products.get(group)
                && product - book.half_norms[code] > best.0
            {
                best = (product - book.half_norms[code], code);
            }
        }
    }
    newest.map(|_| best.1 as u16)
}
