//! Contexts to decode in: stores, codes and codebooks that look like a model's where it matters for speed.

use a2ats_kernel::{Codebook, Dtype, available, decode::Sparsity, store::Store};
use a2ats_tests::inputs::{Noise, unit_matrix};
use rayon::prelude::*;

/// Tokens whose rows are made one by one; longer contexts repeat them, shifted.
const DISTINCT: usize = 4096;

/// Codewords of a kv head.
pub const CODEWORDS: usize = 4096;

/// The tokens of some heads, `tokens` each, in order of position: without codes, for dense attention.
pub fn dense(dtype: Dtype, head_dim: usize, tokens: usize, heads: usize) -> Vec<Store> {
    (0..heads).into_par_iter().map(|head| filled(dtype, head_dim, &vec![0; tokens], head, 0)).collect()
}

/// The same laid out by code, with room for a few steps.
pub fn sorted(dtype: Dtype, head_dim: usize, codes: &[Vec<u16>]) -> Vec<Store> {
    let kernels = available()[0];
    let store = |(head, codes): (usize, &Vec<u16>)| {
        let mut store = filled(dtype, head_dim, codes, head, CODEWORDS);
        store.sort(kernels).expect("memory for the rows laid out by code");
        store
    };
    // One at a time: each has its rows twice while it is laid out.
    codes.iter().enumerate().map(store).collect()
}

fn filled(dtype: Dtype, head_dim: usize, codes: &[u16], head: usize, codewords: usize) -> Store {
    let tokens = codes.len();
    let numbers = Noise::new(1).vector(2 * DISTINCT * head_dim, 1.0);
    let layout = Sparsity::default().layout(dtype, head_dim, codewords);
    let mut store = Store::new(layout, tokens + 4096 + if codewords > 0 { 60 << 10 } else { 0 })
        .expect("address space for the rows");
    for start in (0..tokens).step_by(DISTINCT) {
        let len = DISTINCT.min(tokens - start);
        let shift = (head * 131 + start / DISTINCT * 17) % DISTINCT;
        let (keys, values) = (&numbers[shift * head_dim..], &numbers[(DISTINCT - shift) * head_dim..]);
        let codes = if codewords > 0 { &codes[start..start + len] } else { &[] };
        store
            .append(&keys[..len * head_dim], &values[..len * head_dim], codes)
            .expect("the machine has room for the rows");
    }
    store
}

/// Codes of a context as text gives them: a few are frequent, and a token often shares the code of one shortly before.
pub fn codes(noise: &mut Noise, codewords: usize, tokens: usize) -> Vec<u16> {
    let mut codes: Vec<u16> = Vec::with_capacity(tokens);
    for position in 0..tokens {
        let code = if position > 0 && noise.below(2) == 0 {
            codes[position - 1 - noise.below(position.min(8))]
        } else {
            // The smaller of two draws: the lowest codes are several times as frequent as the average.
            noise.below(codewords).min(noise.below(codewords)) as u16
        };
        codes.push(code);
    }
    codes
}

/// A codebook of random codewords.
pub fn codebook(noise: &mut Noise, codewords: usize, head_dim: usize, dtype: Dtype) -> Codebook {
    let table = noise.vector(codewords * head_dim, 1.0);
    Codebook::new(&table, &unit_matrix(head_dim), head_dim, dtype).expect("random numbers make a codebook")
}

/// A group's queries, so alike that what the heads of a group of four retrieve, 3% each, unites to some 6%.
pub fn queries(noise: &mut Noise, group: usize, head_dim: usize) -> Vec<f32> {
    let common = noise.vector(head_dim, 1.0);
    let mut queries = noise.vector(group * head_dim, 0.45);
    for query in queries.chunks_exact_mut(head_dim) {
        query.iter_mut().zip(&common).for_each(|(x, common)| *x += common);
    }
    queries
}
