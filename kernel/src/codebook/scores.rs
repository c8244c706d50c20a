//! One pass over the codewords: the group's scores and the newest key's code.

use super::{
    Codebook,
    encode::{Best, Probe},
};
use crate::{
    ahead::{Ahead, Onward},
    dtype::{Element, Elements},
    kv::row_width,
    linear::Precision,
    rows::{BLOCK, Block, RowSet, block_products},
    simd::Simd,
    tile::{operand_len, prepare_query, query_tiles},
};

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
            let set = RowSet { elements: table, stride: width, positions: None };
            // On their way while the key's probe is computed.
            Ahead::whole(s, &Block::new(&set, 0));
            Ahead::whole(s, &Block::new(&set, BLOCK));
            let mut operands = vec![0.0; count * stride];
            for (query, operand) in queries.chunks_exact(book.head_dim).zip(operands.chunks_exact_mut(stride))
            {
                prepare_query::<S, T>(s, query, 1.0, operand);
            }
            if let Some(key) = newest {
                let mut probe = Probe::new(book);
                prepare_query::<S, T>(s, probe.of_key(s, book, key), 1.0, &mut operands[group * stride..]);
            }
            let mut products = vec![0.0; BLOCK * count];
            let mut best = Best::default();
            for start in (0..book.codes).step_by(BLOCK) {
                let block = Block::new(&set, start);
                let ahead = Onward { near: 4 << 10, far: 16 << 10 };
                for (first, tile) in query_tiles::<S>(count) {
                    let products = &mut products[first * BLOCK..(first + tile) * BLOCK];
                    block_products(
                        s,
                        &block,
                        (first == 0).then_some(&ahead),
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
