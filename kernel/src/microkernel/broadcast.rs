//! Products with many vectors: a lane for each of them.
//!
//! Where a tile of `dot.rs` has the elements of a row in its lanes and adds them up in the end, a tile here has a
//! vector in each lane and takes the elements of rows one by one, the same for all lanes: nothing is added up across
//! lanes. Vectors are packed for it: panels of two or three registers of them, in which each pair of elements has two steps of
//! a register's width, first the first element of all vectors, then the second. Rows are f32, or bf16 where pairs of it
//! are multiplied; there the first step is the pair rounded to bf16, the second what the rounding left, or is left out.

use super::walk::LockStep;
use crate::simd::{MAX_LANES, Row, Simd};

/// Registers side by side in a panel: with eight rows three make 24 sums, with four rows two make eight. (With
/// twelve and ten on sixteen registers the compiler spilled, at half the speed.)
#[inline(always)]
pub(crate) const fn panel_registers<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 3 } else { 2 }
}

/// Vectors of a whole panel.
#[inline(always)]
pub(crate) fn panel_lanes<S: Simd>() -> usize {
    panel_registers::<S>() * S::LANES
}

/// How many numbers [`pack`] makes of `count` vectors of length `len`.
#[inline(always)]
pub(crate) fn panels_len<S: Simd>(count: usize, len: usize, steps: usize) -> usize {
    len.div_ceil(2) * steps * count.next_multiple_of(S::LANES)
}

/// Packs vectors, `[n, len]`, into [`panels_len`] numbers: panels of [`panel_lanes`] vectors, the last of them as many
/// registers as it needs. `steps` of each pair are kept, 1 or 2.
#[inline(always)]
pub(crate) fn pack<S: Simd, T: Row<S>>(s: S, vectors: &[f32], len: usize, steps: usize, packed: &mut [f32]) {
    let panels = packed.chunks_mut(len.div_ceil(2) * steps * panel_lanes::<S>());
    for (panel, vectors) in panels.zip(vectors.chunks(panel_lanes::<S>() * len)) {
        pack_panel::<S, T>(
            s,
            len,
            steps,
            panel,
            #[inline(always)]
            |element, first, to| {
                for (vector, to) in vectors.chunks_exact(len).skip(first).zip(to) {
                    *to = vector[element];
                }
            },
        );
    }
}

/// Packs one panel. `read` puts an element of the panel's vectors, from the given one on, into a slice, which has zeros where there
/// are no more.
#[inline(always)]
pub(crate) fn pack_panel<S: Simd, T: Row<S>>(
    s: S,
    len: usize,
    steps: usize,
    panel: &mut [f32],
    read: impl Fn(usize, usize, &mut [f32]),
) {
    let width = panel.len() / len.div_ceil(2).max(1);
    for register in 0..width / steps / S::LANES {
        let first = register * S::LANES;
        for (pair, to) in panel.chunks_exact_mut(width).enumerate() {
            let mut pairs = [[0.0; MAX_LANES]; 2];
            for (element, lanes) in (2 * pair..len).zip(&mut pairs) {
                read(element, first, &mut lanes[..S::LANES]);
            }
            let steps_of_pair = T::pack_query(s, [s.load(&pairs[0]), s.load(&pairs[1])]);
            for (to, step) in to.chunks_exact_mut(width / steps).zip(steps_of_pair) {
                s.store(step, &mut to[first..]);
            }
        }
    }
}

/// Products of some rows with the registers of a panel, in memory: what goes over them at places that are known at run time
/// only would keep the sums there from the beginning.
pub(crate) type Tile<const R: usize, const C: usize> = [[[f32; MAX_LANES]; C]; R];

/// Puts sums there.
#[inline(always)]
pub(crate) fn store_tile<S: Simd, const R: usize, const C: usize>(
    s: S,
    sums: [[S::F32; C]; R],
) -> Tile<R, C> {
    let mut tile = [[[0.0; MAX_LANES]; C]; R];
    for (tile, sums) in tile.iter_mut().zip(sums) {
        for (lanes, sum) in tile.iter_mut().zip(sums) {
            s.store(sum, lanes);
        }
    }
    tile
}

/// Adds the products of `R` rows with the `C` registers of a panel to their sums. Rows and panel have as many pairs.
#[inline(always)]
pub(crate) fn multiply_lanes<S: Simd, T: Row<S>, const R: usize, const C: usize>(
    s: S,
    rows: [&[T]; R],
    panel: &[f32],
    steps: usize,
    sums: &mut [[S::F32; C]; R],
) {
    let width = C * S::LANES;
    let len = rows[0].len();
    match (T::PAIRS, steps) {
        // One element after the other: of pairs, all the broadcasts would be hoisted, and spilled on sixteen registers.
        (false, _) => {
            for (rows, [panel]) in LockStep::new(rows, [panel], len, (1, width)) {
                multiply_step::<S, T, R, C>(s, rows, panel, sums);
            }
        }
        (true, 1) => {
            for (rows, [panel]) in LockStep::new(rows, [panel], len / 2, (2, width)) {
                multiply_step::<S, T, R, C>(s, rows, panel, sums);
            }
        }
        (true, _) => {
            for (rows, [panel]) in LockStep::new(rows, [panel], len / 2, (2, 2 * width)) {
                multiply_two_steps::<S, T, R, C>(s, rows, panel, sums);
            }
        }
    }
}

#[inline(always)]
fn multiply_step<S: Simd, T: Row<S>, const R: usize, const C: usize>(
    s: S,
    rows: [&[T]; R],
    panel: &[f32],
    sums: &mut [[S::F32; C]; R],
) {
    let mut lanes = [s.splat(0.0); C];
    for (c, lanes) in lanes.iter_mut().enumerate() {
        *lanes = s.load(&panel[c * S::LANES..]);
    }
    for (sums, row) in sums.iter_mut().zip(rows) {
        let broadcast = T::broadcast(s, row);
        for (sum, lanes) in sums.iter_mut().zip(lanes) {
            *sum = T::multiply_add(s, *sum, broadcast, lanes);
        }
    }
}

/// Both steps of a pair, row by row: one after the other, the broadcasts of all rows would stay in registers until the
/// second, which have no room for them beside the sums.
#[inline(always)]
fn multiply_two_steps<S: Simd, T: Row<S>, const R: usize, const C: usize>(
    s: S,
    rows: [&[T]; R],
    panel: &[f32],
    sums: &mut [[S::F32; C]; R],
) {
    let mut lanes = [[s.splat(0.0); 2]; C];
    for (c, lanes) in lanes.iter_mut().enumerate() {
        *lanes = [s.load(&panel[c * S::LANES..]), s.load(&panel[(C + c) * S::LANES..])];
    }
    for (sums, row) in sums.iter_mut().zip(rows) {
        let broadcast = T::broadcast(s, row);
        for (sum, [first, second]) in sums.iter_mut().zip(lanes) {
            *sum = T::multiply_add(s, *sum, broadcast, first);
            *sum = T::multiply_add(s, *sum, broadcast, second);
        }
    }
}
