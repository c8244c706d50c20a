//! The nearest of some centroids for each of some points: a matrix product that keeps only each point's maximum.
//!
//! A lane is a point (`microkernel/broadcast.rs`), so that nothing is added up across lanes, and what a tile of eight centroids by
//! forty-eight points gives is compared with the best so far a register at a time. That costs 3% of the product.

use crate::{
    error::{Error, Result, expect_len},
    memory::Aligned,
    microkernel::broadcast::{multiply_lanes, pack, panel_lanes, panels_len, store_tile},
    simd::Simd,
};

/// Centroids that are gone over with all panels of points before the next ones: with a head_dim of 128, 64 KiB beside
/// the 240 KiB of 480 points.
const CENTROIDS_AT_ONCE: usize = 128;

/// Centroids to compare points with.
#[derive(Debug, Clone, Copy)]
pub struct Candidates<'a> {
    /// `[n, dim]`
    pub centroids: &'a [f32],
    /// ½‖c‖² of each, `[n]`.
    pub half_norms: &'a [f32],
}

/// The best candidate of each point so far.
#[derive(Debug)]
pub struct Nearest<'a> {
    /// x·c − ½‖c‖², which is largest for the nearest centroid; −∞ for none yet.
    pub scores: &'a mut [f32],
    /// The number of the candidate; left alone where none is better than the score.
    pub numbers: &'a mut [u32],
}

/// Checks shapes; gives the dimension.
pub(crate) fn check(points: &[f32], candidates: &Candidates<'_>, best: &Nearest<'_>) -> Result<usize> {
    let count = best.scores.len();
    expect_len("numbers", best.numbers.len(), count)?;
    let dim = points.len().checked_div(count).unwrap_or(0);
    expect_len("points", points.len(), dim * count)?;
    expect_len("centroids", candidates.centroids.len(), candidates.half_norms.len() * dim)?;
    if u32::try_from(candidates.half_norms.len()).is_err() {
        let got = candidates.half_norms.len().to_string();
        return Err(Error::Unsupported { what: "centroids", got, supported: "up to 2^32 of them" });
    }
    Ok(dim)
}

/// `points` is `[n, dim]`; see [`Nearest`]. Of equally good candidates the first one counts.
#[inline(never)]
pub(crate) fn nearest<S: Simd>(
    s: S,
    points: &[f32],
    dim: usize,
    candidates: &Candidates<'_>,
    best: &mut Nearest<'_>,
) {
    s.vectorize(
        #[inline(always)]
        || nearest_here(s, points, dim, candidates, best),
    );
}

#[inline(always)]
fn nearest_here<S: Simd>(
    s: S,
    points: &[f32],
    dim: usize,
    candidates: &Candidates<'_>,
    best: &mut Nearest<'_>,
) {
    let count = best.scores.len();
    if count == 0 || dim == 0 {
        return;
    }
    let lanes = count.next_multiple_of(S::LANES);
    let mut packed = Aligned::zeros(panels_len::<S>(count, dim, STEPS));
    pack::<S, f32>(s, points, dim, STEPS, &mut packed);
    // What lies beyond the points is better than anything.
    let mut top = Aligned::zeros(lanes);
    top.fill(f32::INFINITY);
    top[..count].copy_from_slice(best.scores);
    let width = dim.div_ceil(2) * STEPS;
    for first in (0..candidates.half_norms.len()).step_by(CENTROIDS_AT_ONCE) {
        let end = candidates.half_norms.len().min(first + CENTROIDS_AT_ONCE);
        let block = Block {
            first,
            dim,
            centroids: &candidates.centroids[first * dim..end * dim],
            half_norms: &candidates.half_norms[first..end],
        };
        let panels = packed.chunks(width * panel_lanes::<S>()).zip(top.chunks_mut(panel_lanes::<S>()));
        for (panel, (values, top)) in panels.enumerate() {
            let numbers = &mut best.numbers[panel * panel_lanes::<S>()..];
            match (S::REGISTERS >= 32, top.len() / S::LANES) {
                (true, 1) => block.raise::<S, 8, 1>(s, values, top, numbers),
                (true, 2) => block.raise::<S, 8, 2>(s, values, top, numbers),
                (true, _) => block.raise::<S, 8, 3>(s, values, top, numbers),
                (false, 1) => block.raise::<S, 4, 1>(s, values, top, numbers),
                (false, _) => block.raise::<S, 4, 2>(s, values, top, numbers),
            }
        }
    }
    best.scores.copy_from_slice(&top[..count]);
}

/// Steps of a pair of f32, see `microkernel/broadcast.rs`.
const STEPS: usize = 2;

/// Some of the candidates.
struct Block<'a> {
    /// The number of the first one.
    first: usize,
    dim: usize,
    centroids: &'a [f32],
    half_norms: &'a [f32],
}

impl Block<'_> {
    /// Compares all of them with a panel of points, `C` registers of them.
    #[inline(always)]
    fn raise<S: Simd, const R: usize, const C: usize>(
        &self,
        s: S,
        panel: &[f32],
        top: &mut [f32],
        numbers: &mut [u32],
    ) {
        let count = self.half_norms.len();
        for first in (0..count).step_by(R) {
            // Where there are not so many left the last is repeated, which is no better than itself.
            let (mut rows, mut half_norms) = ([&[][..]; R], [0.0; R]);
            for (r, (row, half_norm)) in rows.iter_mut().zip(&mut half_norms).enumerate() {
                let at = (first + r).min(count - 1);
                *row = &self.centroids[at * self.dim..][..self.dim];
                *half_norm = self.half_norms[at];
            }
            let mut sums = [[s.splat(0.0); C]; R];
            multiply_lanes::<S, f32, R, C>(s, rows, panel, STEPS, &mut sums);
            for (sums, half_norm) in sums.iter_mut().zip(half_norms) {
                for sum in sums {
                    *sum = s.sub(*sum, s.splat(half_norm));
                }
            }
            let tile = store_tile(s, sums);
            for c in 0..C {
                let mut largest = s.load(&tile[0][c]);
                for row in &tile[1..] {
                    largest = s.max(largest, s.load(&row[c]));
                }
                let top = &mut top[c * S::LANES..(c + 1) * S::LANES];
                let mut better = s.at_least(largest, s.load(top));
                while better != 0 {
                    let lane = better.trailing_zeros() as usize;
                    better &= better - 1;
                    for (r, row) in tile.iter().enumerate() {
                        if row[c][lane] > top[lane] {
                            top[lane] = row[c][lane];
                            numbers[c * S::LANES + lane] = (self.first + (first + r).min(count - 1)) as u32;
                        }
                    }
                }
            }
        }
    }
}
