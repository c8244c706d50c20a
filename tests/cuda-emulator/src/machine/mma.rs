//! Products of matrices that lanes of a warp hold.

use super::LANES;
use crate::{alu::toward_zero, error::Wrong};

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
pub(super) fn multiply(fragments: &mut Fragments) -> Result<(), (usize, Box<Wrong>)> {
    let (mut a, mut b) = ([[0.0; 8]; 16], [[0.0; 8]; 8]);
    for lane in 0..LANES {
        let (group, member) = (lane / 4, lane % 4);
        for (number, values) in fragments.a.iter().enumerate() {
            a[group + 8 * (number & 1)][member + 4 * (number / 2)] = operand(values[lane], lane)?;
        }
        for (number, values) in fragments.b.iter().enumerate() {
            b[group][member + 4 * number] = operand(values[lane], lane)?;
        }
    }
    for lane in 0..LANES {
        let (group, member) = (lane / 4, lane % 4);
        for (number, values) in fragments.c.iter_mut().enumerate() {
            let (row, column) = (&a[group + 8 * (number / 2)], &b[2 * member + number % 2]);
            let products: f64 = row.iter().zip(column).map(|(a, b)| a * b).sum();
            let sum = f64::from(f32::from_bits(values[lane] as u32)) + products;
            values[lane] = u64::from(toward_zero(sum).to_bits());
        }
    }
    Ok(())
}

/// The value of an operand, whose digits have to be as few as the hardware takes.
fn operand(bits: u64, lane: usize) -> Result<f64, (usize, Box<Wrong>)> {
    if bits & UNUSED != 0 {
        let what = format!("operand {:#010x} of mma is no tf32: the low 13 bits are not zero", bits as u32);
        return Err((lane, Wrong::failed(what)));
    }
    Ok(f64::from(f32::from_bits(bits as u32)))
}
