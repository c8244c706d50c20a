//! The best codeword so far.

use crate::simd::Simd;

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
        self.raise_one_by_one(first_code + whole, &products[whole..], &half_norms[whole..]);
    }

    #[inline(always)]
    fn raise_one_by_one(&mut self, first_code: usize, products: &[f32], half_norms: &[f32]) {
        for (c, (product, half_norm)) in products.iter().zip(half_norms).enumerate() {
            if product - half_norm > self.value {
                *self = Self { value: product - half_norm, code: first_code + c };
            }
        }
    }

    /// The code: the lowest of those that are equally good, if ranges came in ascending order; 0 if there is none.
    pub fn code(self) -> u16 {
        self.code as u16
    }
}
