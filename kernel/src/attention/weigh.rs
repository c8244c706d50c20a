//! Sums of a block's values, weighted by the softmax terms of a tile of queries.

use crate::{
    microkernel::{
        block::{BLOCK, Block},
        dot::with_tile_width,
        prefetch::{Prefetch, prefetch_part},
    },
    simd::{Element, Simd},
};

/// Adds a block's weighted values, the second half of its rows, to the sums of some queries: `weights` is
/// `[count, BLOCK]` as [`Element::put_weights`] leaves them, `sums` is `[count, width]`.
#[inline(always)]
pub(crate) fn weigh_block<S: Simd, T: Element<S>, P: Prefetch>(
    s: S,
    block: &Block<'_, T>,
    ahead: &mut P,
    weights: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    with_tile_width!(S::TILE_QUERIES, weights.len() / BLOCK, H => {
        // Two blocks of columns at once where registers hold the sums: a row's weights are then loaded half as often.
        let mut at = 0;
        if S::REGISTERS >= 32 {
            while at + 4 * S::LANES <= width {
                weigh_columns::<S, T, P, 2, H>(s, block, ahead, weights, width, at, sums);
                at += 4 * S::LANES;
            }
        }
        while at < width {
            weigh_columns::<S, T, P, 1, H>(s, block, ahead, weights, width, at, sums);
            at += 2 * S::LANES;
        }
    });
}

/// `C` blocks of 2·LANES value elements of all rows, for `H` queries, whose sums stay in registers meanwhile.
#[inline(always)]
fn weigh_columns<S: Simd, T: Element<S>, P: Prefetch, const C: usize, const H: usize>(
    s: S,
    block: &Block<'_, T>,
    ahead: &mut P,
    weights: &[f32],
    width: usize,
    at: usize,
    sums: &mut [f32],
) {
    let step = 2 * S::LANES;
    // Loops over constant numbers of queries and columns only: any other would leave the sums in memory.
    let weights: &[[f32; BLOCK]; H] =
        weights.as_chunks().0.first_chunk().expect("a block of weights for each query");
    let mut registers = [[[s.splat(0.0); 2]; C]; H];
    for h in 0..H {
        for c in 0..C {
            let (low, high) = sums[h * width + at + c * step..][..step].split_at(S::LANES);
            registers[h][c] = [s.load(low), s.load(high)];
        }
    }
    let mut local = *ahead;
    let values = block.rows.columns(width + at..width + at + C * step);
    for pair in 0..BLOCK / 2 {
        if 2 * pair >= block.len {
            break;
        }
        let rows = [values.of_row(2 * pair), values.of_row(2 * pair + 1)];
        local.begin_tile::<S, 2>(2 * pair);
        // Row by row, or both rows at once where pairs are multiplied.
        let loads = if T::PAIRS { 1 } else { 2 };
        for load in 0..loads {
            let mut loaded = [[s.splat(0.0); 2]; C];
            for c in 0..C {
                let columns = [&rows[0][c * step..][..step], &rows[1][c * step..][..step]];
                loaded[c] = T::load_values(s, columns, load);
            }
            for h in 0..H {
                prefetch_part(s, &mut local, (2 * pair, at), rows, (load * H + h, loads * H));
                let weight = s.splat(weights[h][loads * pair + load]);
                for c in 0..C {
                    registers[h][c][0] = T::multiply_add(s, registers[h][c][0], loaded[c][0], weight);
                    registers[h][c][1] = T::multiply_add(s, registers[h][c][1], loaded[c][1], weight);
                }
            }
        }
    }
    *ahead = local;
    for h in 0..H {
        for c in 0..C {
            let (low, high) = sums[h * width + at + c * step..][..step].split_at_mut(S::LANES);
            s.store(registers[h][c][0], low);
            s.store(registers[h][c][1], high);
        }
    }
}
