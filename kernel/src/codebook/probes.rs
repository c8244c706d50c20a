//! Queries and newest keys, packed for passes over codewords.

use super::{Codebook, probe::Probe};
use crate::{
    dtype::{Dtype, Elements},
    memory::Aligned,
    microkernel::panel::{pack_tile, tiles},
    simd::{Element, Simd},
};
use half::f16;

/// Queries and newest keys of some sequences that share a codebook, packed: made once, and used for every range of codes. To
/// be kept between steps.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    backend: &'static str,
    dtype: Option<Dtype>,
    /// The codebook that keys are packed for, see [`Codebook`].
    book: u64,
    queries: usize,
    keys: usize,
    head_dim: usize,
    /// `[queries + keys, head_dim]`
    vectors: Vec<f32>,
    /// The same in tiles.
    packed: Aligned,
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

    /// Whether they were made by this backend for a codebook of this kind, or for this one if there are keys.
    pub(super) fn fit(&self, backend: &str, book: &Codebook) -> bool {
        (self.backend, self.dtype, self.head_dim) == (backend, Some(book.dtype()), book.head_dim)
            && (self.keys == 0 || self.book == book.identity)
    }

    /// Tiles of the vectors: (first, how many, packed).
    #[inline(always)]
    pub(super) fn tiles<S: Simd>(&self) -> impl Iterator<Item = (usize, usize, &[f32])> {
        tiles::<S>(self.queries + self.keys).map(
            #[inline(always)]
            |(first, count)| (first, count, &self.packed[first * self.head_dim..][..count * self.head_dim]),
        )
    }
}

/// Packs queries and keys.
#[inline(always)]
pub(crate) fn prepare<S: Simd>(s: S, book: &Codebook, queries: &[f32], keys: &[f32], probes: &mut Probes) {
    let d = book.head_dim;
    (probes.dtype, probes.book, probes.head_dim) = (Some(book.dtype()), book.identity, d);
    (probes.queries, probes.keys) = (queries.len() / d, keys.len() / d);
    let vectors = &mut probes.vectors;
    vectors.clear();
    vectors.extend_from_slice(queries);
    vectors.resize(queries.len() + keys.len(), 0.0);
    let mut probe = Probe::default();
    for (key, to) in keys.chunks_exact(d).zip(vectors[queries.len()..].chunks_exact_mut(d)) {
        probe.of_key(s, book, key, to);
    }
    match book.table() {
        Elements::F32(_) => pack::<S::Plain, f32>(s.plain(), probes),
        Elements::F16(_) => pack::<S::Plain, f16>(s.plain(), probes),
        Elements::Bf16(_) => pack::<S, S::Bf16>(s, probes),
    }
    probes.backend = S::NAME;
}

#[inline(always)]
fn pack<S: Simd, T: Element<S>>(s: S, probes: &mut Probes) {
    let d = probes.head_dim;
    probes.packed.resize(probes.vectors.len());
    for (first, count) in tiles::<S>(probes.queries + probes.keys) {
        let of_tile = first * d..(first + count) * d;
        pack_tile::<S, T>(s, &probes.vectors[of_tile.clone()], d, &mut probes.packed[of_tile]);
    }
}
