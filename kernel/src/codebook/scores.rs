//! One pass over the codewords: the group's scores and the newest key's code.

use super::{
    Codebook,
    encode::{Best, Probe},
};
use crate::{
    ahead::Onward,
    beside::ask_for_whole,
    dtype::{Element, Elements},
    kv::row_width,
    linear::Precision,
    memory::Aligned,
    rows::{BLOCK, Block, RowSet, block_products},
    simd::Simd,
    tile::{operand_len, prepare_queries, query_tiles},
};

/// Codewords lie one behind the other; the system's own prefetching needs no more than a hint. (16 KiB ahead took as
/// long as 8.)
const AHEAD: Onward = Onward { near: 1 << 10, far: 8 << 10 };

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
            let half_norms = book.table.half_norms();
            // On their way while the key's probe is computed.
            ask_for_whole(s, &set, 0);
            ask_for_whole(s, &set, BLOCK);
            let mut operands = Aligned::zeros(count * stride);
            let mut probe = Probe::new(book);
            let probe = newest.map(
                #[inline(always)]
                |key| probe.of_key(s, book, key),
            );
            let all: Vec<&[f32]> = queries.chunks_exact(book.head_dim).chain(probe).collect();
            prepare_queries::<S, T>(s, all.into_iter(), 1.0, &mut operands);
            let (mut products, mut before) = (Aligned::zeros(BLOCK * count), Aligned::zeros(BLOCK * count));
            // Half norms are read before a block's products, during which they come. Asking for them ahead is not enough:
            // 24 ns a codeword from memory instead of 17.5 on a Granite Rapids core.
            let (mut norms, mut norms_before) = (Aligned::zeros(BLOCK), Aligned::zeros(BLOCK));
            let mut best = Best::default();
            // What a block gives is looked at after the next one: see `attend_rows`.
            for start in (0..book.codes + BLOCK).step_by(BLOCK) {
                let block = Block::new(&set, start);
                norms[..block.len].copy_from_slice(&half_norms[start.min(book.codes)..][..block.len]);
                for (first, tile) in query_tiles(count, S::TILE_QUERIES) {
                    let products = &mut products[first * BLOCK..(first + tile) * BLOCK];
                    let operands = &operands[first * stride..];
                    block_products(s, &block, &mut { AHEAD }, operands, width, Precision::Full, products);
                }
                if start > 0 {
                    let codes = start - BLOCK..book.codes.min(start);
                    let (of_queries, of_probe) = before.split_at(group * BLOCK);
                    for (scores, products) in
                        scores.chunks_exact_mut(book.codes).zip(of_queries.chunks_exact(BLOCK))
                    {
                        scores[codes.clone()].copy_from_slice(&products[..codes.len()]);
                    }
                    best.raise(s, codes.start, of_probe, &norms_before[..codes.len()]);
                }
                std::mem::swap(&mut products, &mut before);
                std::mem::swap(&mut norms, &mut norms_before);
            }
            newest.map(|_| best.code())
        },
    )
}
