//! Codes of many keys: a matrix product of the keys' probes with the codewords that keeps only each row's maximum.

use super::Codebook;
use crate::{
    dtype::{Element, Elements},
    memory::Aligned,
    microkernel::{
        block::{BLOCK, Block, Cursor, RowSet},
        dot::{MAX_TILE_QUERIES, operand_len, prepare_queries, query_tiles},
        prefetch::NoPrefetch,
        rows::block_products,
    },
    precision::Precision,
    rows::Run,
    shape::row_width,
    simd::{MAX_LANES, Simd},
};

/// Keys whose probes stay in L1 while a block of codewords goes by.
const KEYS: usize = 12 * MAX_TILE_QUERIES;

/// Finds the vector u whose dot product with a codeword, less the codeword's half norm, is largest for the code of a key.
#[derive(Debug)]
pub(super) struct Probe {
    image: [f32; MAX_HEAD_DIM],
}

/// The largest head_dim.
const MAX_HEAD_DIM: usize = 256;

impl Default for Probe {
    fn default() -> Self {
        Self { image: [0.0; MAX_HEAD_DIM] }
    }
}

impl Probe {
    /// u = (k − μ)·L·Lᵀ, not (k − μ)·H: where H is nearly singular the image (k − μ)·L is small and exact, whereas
    /// products with H cancel. (The demo model's layer 0 has codes 4e-3 apart beside keys of size 10.)
    #[inline(always)]
    pub(super) fn of_key<S: Simd>(&mut self, s: S, book: &Codebook, key: &[f32], probe: &mut [f32]) {
        let image = &mut self.image[..book.head_dim.next_multiple_of(MAX_LANES)];
        image.fill(0.0);
        for (row, (key, center)) in book.factor_rows().zip(key.iter().zip(&book.center)) {
            add_scaled(s, &mut image[..row.len()], row, key - center);
        }
        for (row, probe) in book.factor_rows().zip(probe) {
            *probe = dot(s, &image[..row.len()], row);
        }
    }
}

/// to += from · factor
#[inline(always)]
fn add_scaled<S: Simd>(s: S, to: &mut [f32], from: &[f32], factor: f32) {
    let whole = to.len() / S::LANES * S::LANES;
    let (to, to_rest) = to.split_at_mut(whole);
    let (from, from_rest) = from.split_at(whole);
    let factors = s.splat(factor);
    for (to, from) in to.chunks_exact_mut(S::LANES).zip(from.chunks_exact(S::LANES)) {
        s.store(s.mul_add(s.load(from), factors, s.load(to)), to);
    }
    for (to, from) in to_rest.iter_mut().zip(from_rest) {
        *to += from * factor;
    }
}

#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.split_at(a.len() / S::LANES * S::LANES);
    let (b, b_rest) = b.split_at(a.len());
    let mut sum = s.splat(0.0);
    for (a, b) in a.chunks_exact(S::LANES).zip(b.chunks_exact(S::LANES)) {
        sum = s.mul_add(s.load(a), s.load(b), sum);
    }
    s.reduce_add(sum) + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// The code of each key; `keys` is `[codes.len(), head_dim]`, not rotated.
#[inline(always)]
pub(crate) fn encode<S: Simd>(s: S, book: &Codebook, keys: &[f32], codes: &mut [u16]) {
    match book.table() {
        Elements::F32(table) => encode_typed(s.plain(), book, table, keys, codes),
        Elements::F16(table) => encode_typed(s.plain(), book, table, keys, codes),
        Elements::Bf16(table) => encode_typed(s, book, table, keys, codes),
    }
}

#[inline(never)]
fn encode_typed<S: Simd, T: Element>(s: S, book: &Codebook, table: &[T], keys: &[f32], codes: &mut [u16]) {
    s.vectorize(
        #[inline(always)]
        || {
            let width = row_width(book.head_dim);
            let stride = operand_len::<S>(width);
            let mut probe = Probe::default();
            let mut probes = vec![0.0; KEYS.min(codes.len()) * book.head_dim];
            let mut operands = Aligned::zeros(KEYS.min(codes.len()) * stride);
            let mut products = [0.0; BLOCK * MAX_TILE_QUERIES];
            let run = Run::new(0, 0..book.codes);
            let set = RowSet::of_area(table, width, &run);
            let half_norms = book.table.half_norms();
            for (keys, codes) in keys.chunks(KEYS * book.head_dim).zip(codes.chunks_mut(KEYS)) {
                let probes = &mut probes[..keys.len()];
                for (key, to) in keys.chunks_exact(book.head_dim).zip(probes.chunks_exact_mut(book.head_dim))
                {
                    probe.of_key(s, book, key, to);
                }
                let operands = &mut operands[..codes.len() * stride];
                prepare_queries::<S, T>(s, probes.chunks_exact(book.head_dim), 1.0, operands);
                let mut best = [BestCode::default(); KEYS];
                let (mut blocks, mut block) = (Cursor::new(&set, 0..book.codes), Block::default());
                for start in (0..book.codes).step_by(BLOCK) {
                    blocks.fill(&mut block);
                    for (first, tile) in query_tiles(codes.len(), S::TILE_QUERIES) {
                        let products = &mut products[..tile * BLOCK];
                        block_products(
                            s,
                            &block,
                            &mut NoPrefetch,
                            &operands[first * stride..],
                            width,
                            Precision::Full,
                            products,
                            tile,
                        );
                        for (best, products) in best[first..].iter_mut().zip(products.chunks_exact(BLOCK)) {
                            best.raise(s, start, products, &half_norms[start..start + block.len]);
                        }
                    }
                }
                for (code, best) in codes.iter_mut().zip(best) {
                    *code = best.code();
                }
            }
        },
    );
}

/// The best codeword of a key among those of a range; ranges merge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BestCode {
    /// The key's probe times the codeword, less the codeword's half norm.
    value: f32,
    code: usize,
}

impl Default for BestCode {
    fn default() -> Self {
        Self { value: f32::NEG_INFINITY, code: 0 }
    }
}

impl BestCode {
    /// Takes in the best codeword of a range of higher codes.
    pub fn merge(&mut self, higher: &Self) {
        if higher.value > self.value {
            *self = *higher;
        }
    }

    /// Takes a block of codewords into account, of which the first is `first_code`.
    #[inline(always)]
    pub(super) fn raise<S: Simd>(&mut self, s: S, first_code: usize, products: &[f32], half_norms: &[f32]) {
        // First whether there is a better one at all, a register at a time: mostly there is none.
        let best = s.splat(self.value);
        let whole = half_norms.len() / S::LANES * S::LANES;
        let candidates = products.chunks_exact(S::LANES).zip(half_norms.chunks_exact(S::LANES));
        for (i, (products, half_norms)) in candidates.enumerate() {
            if s.at_least(s.sub(s.load(products), s.load(half_norms)), best) != 0 {
                self.raise_one_by_one(first_code + i * S::LANES, products, half_norms);
            }
        }
        self.raise_one_by_one(
            first_code + whole,
            &products[whole.min(products.len())..],
            &half_norms[whole..],
        );
    }

    #[inline(always)]
    fn raise_one_by_one(&mut self, first_code: usize, products: &[f32], half_norms: &[f32]) {
        for (c, (product, half_norm)) in products.iter().zip(half_norms).enumerate() {
            if product - half_norm > self.value {
                *self = Self { value: product - half_norm, code: first_code + c };
            }
        }
    }

    /// The code: the lowest of those that are equally good; 0 if there is none.
    pub fn code(self) -> u16 {
        self.code as u16
    }
}
