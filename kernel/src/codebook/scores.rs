//! One pass over the codewords: the group's scores and the newest key's code.

use super::{
    Codebook,
    encode::{Best, Probe},
};
use crate::{
    beside::{Along, Later, ask_for_whole},
    dtype::{Element, Elements},
    kv::row_width,
    linear::Precision,
    rows::{BLOCK, Block, RowSet, block_products},
    simd::Simd,
    tile::{operand_len, prepare_queries, sharing_tiles},
};

/// Bytes ahead that the first cache is asked for; the second is asked for two blocks ahead.
const NEAR: usize = 4 << 10;

/// Scores `[group, codes]` of the queries, and the code of the newest key if there is one.
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

#[inline(never)]
fn scores_typed<S: Simd, T: Element>(
    s: S,
    book: &Codebook,
    table: &[T],
    queries: &[f32],
    newest: Option<&[f32]>,
    scores: &mut [f32],
) -> Option<u16> {
    s.vectorize(
        #[inline(always)]
        || {
            let width = row_width(book.head_dim);
            let stride = operand_len::<S>(width);
            let group = queries.len() / book.head_dim;
            let count = group + usize::from(newest.is_some());
            let set = RowSet::new(table, width, None);
            // On their way while the key's probe is computed.
            ask_for_whole(s, &set, 0);
            ask_for_whole(s, &set, BLOCK);
            let mut operands = vec![0.0; count * stride];
            let mut probe = Probe::new(book);
            let probe = newest.map(
                #[inline(always)]
                |key| probe.of_key(s, book, key),
            );
            let all: Vec<&[f32]> = queries.chunks_exact(book.head_dim).chain(probe).collect();
            prepare_queries::<S, T>(s, all.into_iter(), 1.0, &mut operands);
            let mut products = vec![0.0; BLOCK * count];
            let mut best = Best::default();
            let tiles = sharing_tiles::<S>(count);
            for start in (0..book.codes).step_by(BLOCK) {
                let block = Block::new(&set, start);
                let later = Later::new(&set, start + 2 * BLOCK);
                let mut lines = later.lines();
                for &(first, tile, share) in &tiles {
                    let products = &mut products[first * BLOCK..(first + tile) * BLOCK];
                    block_products(
                        s,
                        &block,
                        &mut Along::new(&mut lines, share, NEAR),
                        &operands[first * stride..],
                        width,
                        Precision::Full,
                        products,
                    );
                }
                let (of_queries, of_probe) = products.split_at(group * BLOCK);
                for (scores, products) in
                    scores.chunks_exact_mut(book.codes).zip(of_queries.chunks_exact(BLOCK))
                {
                    scores[start..start + block.len].copy_from_slice(&products[..block.len]);
                }
                best.raise(s, start, of_probe, &book.half_norms[start..start + block.len]);
            }
            newest.map(|_| best.code())
        },
    )
}
