//! Sums of a block's values, weighted by the softmax terms of a tile of queries.

use crate::{
    ahead::{Ahead, Prefetch},
    dtype::Element,
    rows::{BLOCK, Block},
    simd::Simd,
    tile::with_tile_width,
};

/// Adds a block's weighted values to the sums of some queries: `weights` is `[count, BLOCK]` as
/// [`Element::put_weights`] leaves them, `sums` is `[count, width]`. Meanwhile memory is asked for what is `ahead`.
#[inline(always)]
pub(super) fn weigh_block<S: Simd, T: Element>(
    s: S,
    block: &Block<'_, T>,
    ahead: &Ahead<'_, '_, T>,
    weights: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    with_tile_width!(S, weights.len() / BLOCK, H => {
        // Two blocks of columns at once where registers hold the sums: a row's weights are then loaded half as often.
        let mut at = 0;
        if S::REGISTERS >= 32 {
            while at + 4 * S::LANES <= width {
                weigh_columns::<S, T, 2, H>(s, block, ahead, weights, width, at, sums);
                at += 4 * S::LANES;
            }
        }
        while at < width {
            weigh_columns::<S, T, 1, H>(s, block, ahead, weights, width, at, sums);
            at += 2 * S::LANES;
        }
    });
}

/// `C` blocks of 2·LANES value elements of all rows, for `H` queries, whose sums stay in registers meanwhile.
#[inline(always)]
fn weigh_columns<S: Simd, T: Element, const C: usize, const H: usize>(
    s: S,
    block: &Block<'_, T>,
    ahead: &Ahead<'_, '_, T>,
    weights: &[f32],
    width: usize,
    at: usize,
    sums: &mut [f32],
) {
    let step = 2 * S::LANES;
    // Loops over constant numbers of queries and columns only: any other would leave the sums in memory.
    let mut of_query = [&[][..]; H];
    for (of_query, weights) in of_query.iter_mut().zip(weights.chunks_exact(BLOCK)) {
        *of_query = weights;
    }
    let mut registers = [[[s.splat(0.0); 2]; C]; H];
    for h in 0..H {
        for c in 0..C {
            let (low, high) = sums[h * width + at + c * step..][..step].split_at(S::LANES);
            registers[h][c] = [s.load(low), s.load(high)];
        }
    }
    for pair in 0..block.len.div_ceil(2) {
        let [first, second] = *block.rows::<2>(2 * pair);
        let (first, second) = (&first[width + at..][..C * step], &second[width + at..][..C * step]);
        if ahead.asks(pair) {
            ahead.advance(s, 2 * pair, at, [first, second]);
        }
        if T::multiplies_pairs::<S>() {
            let mut values = [[s.splat(0.0); 2]; C];
            for c in 0..C {
                values[c] = T::interleave(s, &first[c * step..][..step], &second[c * step..][..step]);
            }
            for h in 0..H {
                let weight = s.splat(of_query[h][pair]);
                for c in 0..C {
                    registers[h][c][0] = s.multiply_bf16_pairs(registers[h][c][0], values[c][0], weight);
                    registers[h][c][1] = s.multiply_bf16_pairs(registers[h][c][1], values[c][1], weight);
                }
            }
        } else {
            weigh_row::<S, T, C, H>(s, first, of_query, 2 * pair, &mut registers);
            weigh_row::<S, T, C, H>(s, second, of_query, 2 * pair + 1, &mut registers);
        }
    }
    for h in 0..H {
        for c in 0..C {
            let (low, high) = sums[h * width + at + c * step..][..step].split_at_mut(S::LANES);
            s.store(registers[h][c][0], low);
            s.store(registers[h][c][1], high);
        }
    }
}

/// Adds some values of one row, times its weights, to the sums.
#[inline(always)]
fn weigh_row<S: Simd, T: Element, const C: usize, const H: usize>(
    s: S,
    values: &[T],
    weights: [&[f32]; H],
    row: usize,
    sums: &mut [[[S::F32; 2]; C]; H],
) {
    let mut wide = [[s.splat(0.0); 2]; C];
    for c in 0..C {
        wide[c] = T::load(s, &values[c * 2 * S::LANES..][..2 * S::LANES]);
    }
    for h in 0..H {
        let weight = s.splat(weights[h][row]);
        for c in 0..C {
            sums[h][c][0] = s.mul_add(wide[c][0], weight, sums[h][c][0]);
            sums[h][c][1] = s.mul_add(wide[c][1], weight, sums[h][c][1]);
        }
    }
}
