//! Contexts to decode in: KV rows, codes and codebooks that look like a model's where it matters for speed.

use a2ats_kernel::{
    Codebook, Dtype, Elements,
    decode::{HeadIndex, Sparsity, Tail},
    kv::{KvRows, Rows},
};
use a2ats_tests::inputs::{Noise, unit_matrix};
use rayon::prelude::*;

/// Tokens whose rows are made one by one; longer contexts repeat them, shifted.
const DISTINCT: usize = 4096;

/// The KV rows of some heads, `tokens` each, with room for a few steps.
pub fn kv_rows(dtype: Dtype, head_dim: usize, tokens: usize, heads: usize) -> Vec<KvRows> {
    let numbers = Noise::new(1).vector(2 * DISTINCT * head_dim, 1.0);
    (0..heads)
        .into_par_iter()
        .map(|head| {
            let mut rows =
                KvRows::new(dtype, head_dim, tokens + 4096).expect("the machine has room for the rows");
            for start in (0..tokens).step_by(DISTINCT) {
                let len = DISTINCT.min(tokens - start) * head_dim;
                let shift = (head * 131 + start / DISTINCT * 17) % DISTINCT;
                let (keys, values) =
                    (&numbers[shift * head_dim..], &numbers[(DISTINCT - shift) * head_dim..]);
                rows.append(&keys[..len], &values[..len]).expect("keys and values have the rows' shape");
            }
            rows
        })
        .collect()
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

/// An index of those codes.
pub fn index(codewords: usize, codes: &[u16]) -> HeadIndex {
    let mut index = HeadIndex::new(codewords, Sparsity { tail: Tail::Off, ..Sparsity::default() })
        .expect("the default shares are in range");
    index.append(codes);
    index
}

/// Retrieval without a tail does not look at rows.
pub fn no_rows() -> Rows<'static> {
    Rows::new(Elements::F32(&[]), 16).expect("no rows are whole rows")
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
