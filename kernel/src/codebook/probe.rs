//! What finds the code of a key among codewords by dot products.

use super::Codebook;
use crate::{
    shape::MAX_HEAD_DIM,
    simd::{MAX_LANES, Simd},
};

/// Finds the vector u whose dot product with a codeword, less the codeword's half norm, is largest for the code of a key.
#[derive(Debug)]
pub(super) struct Probe {
    image: [f32; MAX_HEAD_DIM],
}

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
