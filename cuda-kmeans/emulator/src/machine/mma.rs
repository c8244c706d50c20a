//! Products of matrices that lanes of a warp hold.

use super::LANES;
use crate::{alu::toward_zero, error::Wrong, program::Tiles};

/// Registers of all lanes.
pub(super) struct Fragments {
    pub(super) a: [[u64; LANES]; 4],
    pub(super) b: [[u64; LANES]; 2],
    pub(super) c: [[u64; LANES]; 4],
}

/// Bits that floats of 19 bits have not.
const UNUSED: u64 = 0x1FFF;

/// Sets `c` to the product of `a` and `b`, plus `c`.
///
/// Products are exact, and so is their sum, nearly. Its digits are cut off, as tensor cores do.
pub(super) fn multiply(kind: Tiles, fragments: &mut Fragments) -> Result<(), (usize, Box<Wrong>)> {
    let (mut a, mut b) = ([[0.0; 16]; 16], [[0.0; 16]; 8]);
    for lane in 0..LANES {
        let (group, member) = (lane / 4, lane % 4);
        for (number, values) in fragments.a.iter().enumerate() {
            let row = &mut a[group + 8 * (number & 1)];
            place(kind, row, member, number / 2, values[lane]).map_err(|wrong| (lane, wrong))?;
        }
        for (number, values) in fragments.b.iter().enumerate() {
            place(kind, &mut b[group], member, number, values[lane]).map_err(|wrong| (lane, wrong))?;
        }
    }
    let depth = match kind {
        Tiles::Tensor => 8,
        Tiles::Brain => 16,
    };
    for lane in 0..LANES {
        let (group, member) = (lane / 4, lane % 4);
        for (number, values) in fragments.c.iter_mut().enumerate() {
            let (row, column) = (&a[group + 8 * (number / 2)][..depth], &b[2 * member + number % 2][..depth]);
            let products: f64 = row.iter().zip(column).map(|(a, b)| a * b).sum();
            let sum = f64::from(f32::from_bits(values[lane] as u32)) + products;
            values[lane] = u64::from(toward_zero(sum).to_bits());
        }
    }
    Ok(())
}

/// Places the values of a register among those of a row: it has the first or the second half of the row's registers.
fn place(kind: Tiles, row: &mut [f64; 16], member: usize, half: usize, bits: u64) -> Result<(), Box<Wrong>> {
    match kind {
        Tiles::Tensor => {
            if bits & UNUSED != 0 {
                let what =
                    format!("operand {:#010x} of mma is no tf32: the low 13 bits are not zero", bits as u32);
                return Err(Wrong::failed(what));
            }
            row[member + 4 * half] = f64::from(f32::from_bits(bits as u32));
        }
        Tiles::Brain => {
            row[2 * member + 8 * half] = f64::from(f32::from_bits((bits as u32) << 16));
            row[2 * member + 8 * half + 1] = f64::from(f32::from_bits(bits as u32 & 0xFFFF_0000));
        }
    }
    Ok(())
}
