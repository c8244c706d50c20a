//! Codes of many keys: passes over all codewords that keep only each key's best one.

use super::{BestCode, Codebook, Probes, prepare, scores};
use crate::{microkernel::panel::TILE, simd::Simd};

/// Keys that share a pass: they stay in L1 or L2 while the codewords go by.
const KEYS: usize = 12 * TILE;

/// The code of each key; `keys` is `[codes.len(), head_dim]`, not rotated.
#[inline(always)]
pub(crate) fn encode<S: Simd>(s: S, book: &Codebook, keys: &[f32], codes: &mut [u16]) {
    let mut probes = Probes::default();
    for (keys, codes) in keys.chunks(KEYS * book.head_dim).zip(codes.chunks_mut(KEYS)) {
        prepare(s, book, &[], keys, &mut probes);
        let mut best = [BestCode::default(); KEYS];
        scores(s, book, &probes, 0..book.codes, &mut [], &mut best[..codes.len()]);
        for (code, best) in codes.iter_mut().zip(best) {
            *code = best.code();
        }
    }
}
