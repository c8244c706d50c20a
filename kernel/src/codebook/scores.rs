//! One pass over a range of codewords: the scores of queries, and the best codewords of the newest keys.
//!
//! ```text
//! for each group of panels of codewords:
//!     for each tile of vectors:
//!         products = vectors · codewords        (microkernel/panel.rs)
//!         scores = products of the queries
//!         best[key] = max(best, products of the key's probe − half norms)
//! ```

use super::{BestCode, Codebook, Probes};
use crate::{
    dtype::Elements,
    microkernel::{
        dot::with_tile_width,
        panel::{Distances, GROUP, MOST_PANELS, PANEL, WIDE, most_vectors, tile_products},
        prefetch::prefetch_bytes,
    },
    simd::{Element, Simd, Stored},
};
use std::ops::Range;

/// How far ahead codewords are prefetched into L1, in bytes; into L2 a group of panels ahead, and at least `FAR`.
const NEAR: usize = 512;
const FAR: usize = 8 << 10;

/// Scores of the queries with some codewords, `[queries, codes.len()]`; raises the best code of each key.
#[inline(always)]
pub(crate) fn scores<S: Simd>(
    s: S,
    book: &Codebook,
    probes: &Probes,
    codes: Range<usize>,
    scores: &mut [f32],
    best: &mut [BestCode],
) {
    let to = Results { codes, queries: probes.queries(), scores, best };
    match book.table() {
        Elements::F32(table) => scores_typed(s.plain(), book, table, probes, to),
        Elements::F16(table) => scores_typed(s.plain(), book, table, probes, to),
        table @ Elements::Bf16(_) => scores_typed(s, book, S::Bf16::of(table), probes, to),
    }
}

/// Where products go.
struct Results<'a> {
    codes: Range<usize>,
    queries: usize,
    /// `[queries, codes.len()]`
    scores: &'a mut [f32],
    best: &'a mut [BestCode],
}

impl Results<'_> {
    /// Takes the products of a vector with some codes, mostly all of a group of `G` panels; `half_norms` are theirs.
    #[inline(always)]
    fn take<S: Simd, const G: usize>(
        &mut self,
        s: S,
        vector: usize,
        codes: &Range<usize>,
        products: &[f32],
        half_norms: &[f32],
    ) {
        if vector < self.queries {
            let at = vector * self.codes.len() + codes.start - self.codes.start;
            let scores = &mut self.scores[at..at + codes.len()];
            // Of a length that is known they are copied in registers.
            match (scores.split_at_mut_checked(G * PANEL), products.split_at_checked(G * PANEL)) {
                (Some((scores, _)), Some((products, _))) => scores.copy_from_slice(products),
                _ => scores.copy_from_slice(products),
            }
        } else {
            self.best[vector - self.queries].raise(s, codes.start, products, half_norms);
        }
    }
}

#[inline(never)]
fn scores_typed<S: Simd, T: Element<S>>(
    s: S,
    book: &Codebook,
    table: &[T],
    probes: &Probes,
    to: Results<'_>,
) {
    s.vectorize(
        #[inline(always)]
        || {
            if S::LANES == PANEL {
                pass::<S, T, MOST_PANELS, 1>(s, book, table, probes, to);
            } else if S::LANES * 2 == PANEL {
                pass::<S, T, 1, 2>(s, book, table, probes, to);
            } else {
                pass::<S, T, 1, 4>(s, book, table, probes, to);
            }
        },
    );
}

/// A pass over groups of `G` panels, of `V` registers each.
#[inline(always)]
fn pass<S: Simd, T: Element<S>, const G: usize, const V: usize>(
    s: S,
    book: &Codebook,
    table: &[T],
    probes: &Probes,
    mut to: Results<'_>,
) {
    debug_assert!(V * S::LANES == PANEL);
    let panel_len = PANEL * book.head_dim;
    let ahead = Distances { near: NEAR, far: (G * panel_len * size_of::<T>()).max(FAR) };
    let half_norms = &book.table.half_norms()[to.codes.clone()];
    prefetch_bytes(s, half_norms.as_ptr().cast(), size_of_val(half_norms));
    let (mut products, mut norms) = ([0.0; WIDE * GROUP], [0.0; GROUP]);
    let end = to.codes.end.div_ceil(PANEL);
    for first in (to.codes.start / PANEL..end).step_by(G) {
        // Where there are not so many left the last is repeated, and what comes of the repetitions is left out.
        let mut panels = [&table[(end - 1) * panel_len..][..panel_len]; G];
        for (to, panel) in
            panels.iter_mut().zip(table[first * panel_len..end * panel_len].chunks_exact(panel_len))
        {
            *to = panel;
        }
        let codes = to.codes.start.max(first * PANEL)..to.codes.end.min((first + G) * PANEL);
        let from = codes.start - first * PANEL;
        // Half norms are read before the products, during which they come. Prefetching them is not enough:
        // 24 ns a codeword from memory instead of 17.5 on a Granite Rapids core.
        let norms = &mut norms[..codes.len()];
        norms.copy_from_slice(&half_norms[codes.start - to.codes.start..][..codes.len()]);
        let mut ahead = ahead;
        for (first, count, vectors) in probes.tiles::<S>() {
            products_of::<S, T, G, V>(s, panels, (count, vectors), ahead, &mut products);
            for (vector, products) in (first..first + count).zip(products.chunks_exact(GROUP)) {
                to.take::<S, G>(s, vector, &codes, &products[from..from + codes.len()], norms);
            }
            // The other tiles find the codewords in L1 or L2.
            ahead = Distances { near: 0, far: 0 };
        }
    }
}

/// Products of a tile of vectors with a group of panels; a wide one takes the panels two by two.
#[inline(always)]
fn products_of<S: Simd, T: Element<S>, const G: usize, const V: usize>(
    s: S,
    panels: [&[T]; G],
    (count, vectors): (usize, &[f32]),
    ahead: Distances,
    products: &mut [f32],
) {
    if count == WIDE {
        debug_assert!(G == MOST_PANELS);
        for (half, panels) in panels.as_chunks().0.iter().enumerate() {
            let products = &mut products[half * 2 * PANEL..];
            tile_products::<S, T, 2, V, WIDE>(s, *panels, vectors, ahead, products);
        }
    } else {
        with_tile_width!(most_vectors::<S>(), count, H => {
            tile_products::<S, T, G, V, H>(s, panels, vectors, ahead, products);
        });
    }
}
