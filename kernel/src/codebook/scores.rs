//! One pass over a range of codewords: the scores of queries, and the best codewords of the newest keys.
//!
//! ```text
//! for each block of 32 codewords:
//!     products[n][32] = vectors · codewords        (microkernel/rows.rs)
//!     of the block before it:
//!         scores = products of the queries
//!         best[key] = max(best, products of the key's probe − half norms)
//! ```

use super::{
    Codebook,
    encode::{BestCode, Probe},
};
use crate::{
    dtype::{Dtype, Element, Elements},
    memory::Aligned,
    microkernel::{
        block::{BLOCK, Block, Cursor, RowSet},
        dot::{operand_len, prepare_queries, query_tiles},
        prefetch::{Stream, prefetch_block, prefetch_bytes},
        rows::block_products,
    },
    precision::Precision,
    rows::Run,
    shape::row_width,
    simd::Simd,
};
use half::{bf16, f16};
use std::ops::Range;

/// Codewords lie one behind the other; the system's own prefetching needs no more than a hint. (16 KiB ahead took as
/// long as 8.)
const AHEAD: Stream = Stream { near: 1 << 10, far: 8 << 10 };

/// Queries and newest keys of some sequences that share a codebook, in the form in which they meet codewords: made once, and used
/// for every range of codes. To be kept between steps.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    backend: &'static str,
    dtype: Option<Dtype>,
    queries: usize,
    keys: usize,
    head_dim: usize,
    /// `[queries + keys, head_dim]`
    vectors: Vec<f32>,
    operands: Aligned,
}

impl Probes {
    /// How many queries there are.
    pub const fn queries(&self) -> usize {
        self.queries
    }

    /// How many keys there are.
    pub const fn keys(&self) -> usize {
        self.keys
    }

    /// Whether they were made for a codebook of this kind by this backend.
    pub(super) fn fit(&self, backend: &str, book: &Codebook) -> bool {
        self.backend == backend && self.dtype == Some(book.dtype()) && self.head_dim == book.head_dim
    }
}

/// Working memory of a pass, to be kept between calls: one for each task that runs at a time.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    /// Of two blocks, `[n, BLOCK]`.
    products: [Aligned; 2],
}

/// Brings queries and keys into operand form.
#[inline(always)]
pub(crate) fn prepare<S: Simd>(s: S, book: &Codebook, queries: &[f32], keys: &[f32], probes: &mut Probes) {
    let d = book.head_dim;
    let (of_queries, of_keys) = (queries.len() / d, keys.len() / d);
    (probes.backend, probes.dtype, probes.head_dim) = (S::NAME, Some(book.dtype()), d);
    (probes.queries, probes.keys) = (of_queries, of_keys);
    let vectors = &mut probes.vectors;
    vectors.clear();
    vectors.extend_from_slice(queries);
    vectors.resize(queries.len() + keys.len(), 0.0);
    let mut probe = Probe::default();
    for (key, to) in keys.chunks_exact(d).zip(vectors[queries.len()..].chunks_exact_mut(d)) {
        probe.of_key(s, book, key, to);
    }
    let operands = &mut probes.operands;
    operands.resize((of_queries + of_keys) * operand_len::<S>(row_width(d)));
    match book.table() {
        Elements::F32(_) => {
            prepare_queries::<S::Plain, f32>(s.plain(), vectors.chunks_exact(d), 1.0, operands)
        }
        Elements::F16(_) => {
            prepare_queries::<S::Plain, f16>(s.plain(), vectors.chunks_exact(d), 1.0, operands)
        }
        Elements::Bf16(_) => prepare_queries::<S, bf16>(s, vectors.chunks_exact(d), 1.0, operands),
    }
}

/// Scores of the queries with some codewords, `[queries, codes.len()]`; raises the best code of each key.
#[inline(always)]
pub(crate) fn scores<S: Simd>(
    s: S,
    book: &Codebook,
    probes: &Probes,
    codes: Range<usize>,
    scores: &mut [f32],
    best: &mut [BestCode],
    scratch: &mut Scratch,
) {
    if codes.is_empty() {
        return;
    }
    match book.table() {
        Elements::F32(table) => scores_typed(s.plain(), book, table, probes, codes, scores, best, scratch),
        Elements::F16(table) => scores_typed(s.plain(), book, table, probes, codes, scores, best, scratch),
        Elements::Bf16(table) => scores_typed(s, book, table, probes, codes, scores, best, scratch),
    }
}

#[expect(clippy::too_many_arguments, reason = "the arguments of `scores`, and the typed table")]
#[inline(never)]
fn scores_typed<S: Simd, T: Element>(
    s: S,
    book: &Codebook,
    table: &[T],
    probes: &Probes,
    codes: Range<usize>,
    scores: &mut [f32],
    best: &mut [BestCode],
    scratch: &mut Scratch,
) {
    s.vectorize(
        #[inline(always)]
        || {
            let width = row_width(book.head_dim);
            let count = probes.queries + probes.keys;
            let run = Run::new(0, 0..book.codes);
            let set = RowSet::of_area(table, width, &run);
            let (mut blocks, mut block) = (Cursor::new(&set, codes.clone()), Block::default());
            let half_norms = &book.table.half_norms()[codes.clone()];
            let [products, before] = &mut scratch.products;
            products.resize(BLOCK * count);
            before.resize(BLOCK * count);
            // Half norms are read before a block's products, during which they come. Prefetching them is not enough:
            // 24 ns a codeword from memory instead of 17.5 on a Granite Rapids core.
            let (mut norms, mut norms_before) = ([0.0; BLOCK], [0.0; BLOCK]);
            prefetch_bytes(s, half_norms.as_ptr().cast(), size_of_val(half_norms));
            // What a block gives is looked at after the next one: see `attend_rows`.
            for start in (0..codes.len() + BLOCK).step_by(BLOCK) {
                blocks.fill(&mut block);
                if start == 0 {
                    prefetch_block(s, &block, set.row_bytes());
                }
                norms[..block.len].copy_from_slice(&half_norms[start.min(codes.len())..][..block.len]);
                for (first, tile) in query_tiles(count, S::TILE_QUERIES) {
                    let products = &mut products[first * BLOCK..(first + tile) * BLOCK];
                    let operands = &probes.operands[first * width..];
                    block_products(
                        s,
                        &block,
                        &mut { AHEAD },
                        operands,
                        width,
                        Precision::Full,
                        products,
                        tile,
                    );
                }
                if start > 0 {
                    let of_block = start - BLOCK..codes.len().min(start);
                    let (of_queries, of_keys) = before.split_at(probes.queries * BLOCK);
                    for (scores, products) in
                        scores.chunks_exact_mut(codes.len()).zip(of_queries.chunks_exact(BLOCK))
                    {
                        scores[of_block.clone()].copy_from_slice(&products[..of_block.len()]);
                    }
                    for (best, products) in best.iter_mut().zip(of_keys.chunks_exact(BLOCK)) {
                        best.raise(
                            s,
                            codes.start + of_block.start,
                            products,
                            &norms_before[..of_block.len()],
                        );
                    }
                }
                std::mem::swap(products, before);
                std::mem::swap(&mut norms, &mut norms_before);
            }
        },
    );
}
