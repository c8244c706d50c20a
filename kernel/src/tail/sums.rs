//! Sums of the values of each code's tokens, kept as tokens leave the window.
//!
//! A sum is a f32. Beside bf16 and f16 rows it is stored as two halves: its upper half, rounded, is a bf16, and all that the estimate
//! reads; the lower half is what rounding left. Adding a million small numbers to a f32 loses what lies below its last bit each
//! time, and always in the same direction if they are alike: a million times 0.1 is 100,958. So before each sum is
//! rounded a fraction of that last bit is added to it, from −½ to ½, by turns that are spread evenly (multiples of
//! the golden ratio): on average nothing is lost. Random numbers would leave an error of √n last bits, these leave some log n.

use crate::{
    dtype::{Dtype, Elements},
    error::{Error, Result, expect_len},
    kv::{Rows, row_width},
    memory::Table,
};
use half::{bf16, f16};

/// Marks a code without a slot.
const NONE: u32 = u32::MAX;

/// The golden ratio's fractional part, of 2³².
const GOLDEN: u32 = 0x9e37_79b9;

/// The sums of one kv head's values.
#[derive(Debug, Clone)]
pub struct ValueSums {
    head_dim: usize,
    /// `[codes]`
    slots: Vec<u32>,
    /// The code of each slot, in the order in which codes appeared.
    codes: Vec<u16>,
    /// How many tokens each slot has.
    tokens: Vec<u32>,
    sums: Sums,
}

/// The numbers, for as many slots as there is room for: whole sums, or all upper halves and then what is to be added to get the
/// whole sums' bits.
#[derive(Debug, Clone)]
struct Sums {
    table: Table,
    /// Numbers there is room for.
    room: usize,
    are_halves: bool,
}

impl ValueSums {
    /// No sums yet, of values in rows like these.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new(codes: usize, rows: Rows<'_>) -> Result<Self> {
        let are_halves = rows.elements().dtype() != Dtype::F32;
        let sums = Sums { table: Table::zeros(0)?, room: 0, are_halves };
        let (codes, slots) = (Vec::new(), vec![NONE; codes]);
        Ok(Self { head_dim: rows.head_dim(), slots, codes, tokens: Vec::new(), sums })
    }

    /// Checks codes and rows of tokens from position `first` on.
    pub(crate) fn check(&self, codes: &[u16], rows: &Rows<'_>, first: usize) -> Result<()> {
        expect_len("head_dim of the rows", rows.head_dim(), self.head_dim)?;
        if self.sums.are_halves == (rows.elements().dtype() == Dtype::F32) {
            let (got, supported) =
                (rows.elements().dtype().to_string(), "the type of rows that there were before");
            return Err(Error::Unsupported { what: "type of the rows", got, supported });
        }
        if first.saturating_add(codes.len()) > rows.len() {
            let need = format!("the cache has {} rows", rows.len());
            return Err(Error::Position { position: first.saturating_add(codes.len()) - 1, need });
        }
        match codes.iter().find(|code| usize::from(**code) >= self.slots.len()) {
            Some(bad) => {
                let supported = "codes below the number of codewords";
                Err(Error::Unsupported { what: "code", got: bad.to_string(), supported })
            }
            None => Ok(()),
        }
    }

    /// Adds the value of the row at `position` to the sum of its code.
    ///
    /// # Errors
    /// If memory runs out; nothing is added then.
    #[inline(always)]
    pub(crate) fn add(&mut self, code: u16, rows: Rows<'_>, position: usize) -> Result<()> {
        let width = row_width(self.head_dim);
        let slot = self.slot_or_new(code)?;
        // Spread evenly over the tokens of a code.
        let turn = (self.tokens[slot].wrapping_mul(GOLDEN) as i32) as f32 * (1.0 / 4_294_967_296.0);
        self.tokens[slot] += 1;
        let value = (2 * position + 1) * width;
        let value = value..value + self.head_dim;
        match rows.elements() {
            Elements::F32(all) => self.sums.add(slot * width, turn, &all[value], |x| x),
            Elements::F16(all) => self.sums.add(slot * width, turn, &all[value], f16::to_f32),
            Elements::Bf16(all) => {
                // Compilers make vectors of it, which they don't of what minds NaN.
                let widen = |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16);
                self.sums.add(slot * width, turn, &all[value], widen);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn slot_or_new(&mut self, code: u16) -> Result<usize> {
        match self.slots[usize::from(code)] {
            NONE => self.new_slot(code),
            slot => Ok(slot as usize),
        }
    }

    #[inline(never)]
    fn new_slot(&mut self, code: u16) -> Result<usize> {
        let slot = self.codes.len();
        self.sums.make_room(slot + 1, self.slots.len(), row_width(self.head_dim))?;
        self.slots[usize::from(code)] = slot as u32;
        self.codes.push(code);
        self.tokens.push(0);
        Ok(slot)
    }

    /// The code of each slot.
    pub fn codes(&self) -> &[u16] {
        &self.codes
    }

    /// How many tokens each slot has.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The sums, or their upper halves: `[slots, width]`.
    pub fn elements(&self) -> Elements<'_> {
        let len = self.codes.len() * row_width(self.head_dim);
        if self.sums.are_halves {
            Elements::Bf16(&bytemuck::cast_slice(self.sums.table.bytes())[..len])
        } else {
            Elements::F32(&bytemuck::cast_slice(self.sums.table.bytes())[..len])
        }
    }

    /// Bytes of a slot that one pass of the estimate reads.
    pub fn slot_bytes(&self) -> usize {
        row_width(self.head_dim) * self.elements().dtype().size()
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        let of_codes =
            size_of_val(&self.slots[..]) + size_of_val(&self.codes[..]) + size_of_val(&self.tokens[..]);
        self.sums.table.bytes().len() + of_codes
    }
}

/// Slots of the first room.
const FIRST_ROOM: usize = 64;

impl Sums {
    /// Makes room for `slots` slots, of `all`: twice as much as there was, and for all if that is more than half of them.
    fn make_room(&mut self, slots: usize, all: usize, width: usize) -> Result<()> {
        if slots * width <= self.room {
            return Ok(());
        }
        let wanted = slots.max(2 * self.room / width).max(FIRST_ROOM);
        let room = if 2 * wanted > all { all } else { wanted } * width;
        let mut table = Table::zeros(room * size_of::<f32>())?;
        if self.are_halves {
            let (upper, lower) = self.table.bytes().split_at(self.room * size_of::<bf16>());
            let (new_upper, new_lower) = table.bytes_mut().split_at_mut(room * size_of::<bf16>());
            new_upper[..upper.len()].copy_from_slice(upper);
            new_lower[..lower.len()].copy_from_slice(lower);
        } else {
            table.bytes_mut()[..self.table.bytes().len()].copy_from_slice(self.table.bytes());
        }
        (self.table, self.room) = (table, room);
        Ok(())
    }

    /// Adds values to the sums from `at` on; `turn` is the fraction of a last bit.
    #[inline(always)]
    fn add<T: Copy>(&mut self, at: usize, turn: f32, values: &[T], widen: impl Fn(T) -> f32) {
        if !self.are_halves {
            let sums: &mut [f32] = bytemuck::cast_slice_mut(self.table.bytes_mut());
            for (sum, &value) in sums[at..].iter_mut().zip(values) {
                *sum = add_evenly(*sum, widen(value), turn);
            }
            return;
        }
        let (upper, lower) = self.table.bytes_mut().split_at_mut(self.room * size_of::<bf16>());
        let (upper, lower): (&mut [bf16], &mut [i16]) =
            (bytemuck::cast_slice_mut(upper), bytemuck::cast_slice_mut(lower));
        for ((upper, lower), &value) in upper[at..].iter_mut().zip(&mut lower[at..]).zip(values) {
            let bits = add_evenly(join(*upper, *lower), widen(value), turn).to_bits();
            let rounded = bits.wrapping_add(0x8000) & 0xffff_0000;
            *upper = bf16::from_bits((rounded >> 16) as u16);
            *lower = bits.wrapping_sub(rounded) as i16;
        }
    }
}

/// The number that halves are of.
#[inline(always)]
fn join(upper: bf16, lower: i16) -> f32 {
    f32::from_bits((u32::from(upper.to_bits()) << 16).wrapping_add_signed(i32::from(lower)))
}

/// `sum + value`, rounded up or down so that errors even out over evenly spread `turn`s from −½ to ½.
#[inline(always)]
fn add_evenly(sum: f32, value: f32, turn: f32) -> f32 {
    // 2⁻²³ of the power of two below the sum.
    let last_bit = f32::from_bits(sum.to_bits() & 0x7f80_0000) * f32::EPSILON;
    sum + (value + turn * last_bit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KvRows;

    const HEAD_DIM: usize = 32;

    /// A number from −1 to 1.
    fn noise(number: usize) -> f32 {
        (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// The largest error of a million additions to one sum, relative to the sum of sizes; `value` is by element and number.
    fn error_of_a_million(dtype: Dtype, value: impl Fn(usize, usize) -> f32) -> f64 {
        const KINDS: usize = 1000;
        let mut rows = KvRows::new(dtype, HEAD_DIM, KINDS).unwrap();
        for number in 0..KINDS {
            let values: Vec<f32> = (0..HEAD_DIM).map(|i| value(i, number)).collect();
            rows.append(&[0.0; HEAD_DIM], &values).unwrap();
        }
        let row = 2 * row_width(HEAD_DIM);
        let stored = rows.rows().elements().to_f32();
        let mut sums = ValueSums::new(3, rows.rows()).unwrap();
        let (mut exact, mut sizes) = ([0.0; HEAD_DIM], [0.0; HEAD_DIM]);
        for number in 0..1_000_000 {
            let position = number % KINDS;
            sums.add(2, rows.rows(), position).unwrap();
            let value = &stored[position * row + row / 2..][..HEAD_DIM];
            for ((exact, size), &x) in exact.iter_mut().zip(&mut sizes).zip(value) {
                *exact += f64::from(x);
                *size += f64::from(x.abs());
            }
        }
        assert_eq!((sums.codes(), sums.tokens()), (&[2][..], &[1_000_000][..]));
        let bytes = sums.sums.table.bytes();
        let whole: Vec<f32> = if sums.sums.are_halves {
            let (upper, lower) = bytes.split_at(bytes.len() / 2);
            let (upper, lower): (&[bf16], &[i16]) =
                (bytemuck::cast_slice(upper), bytemuck::cast_slice(lower));
            upper[..HEAD_DIM].iter().zip(lower).map(|(&upper, &lower)| join(upper, lower)).collect()
        } else {
            bytemuck::cast_slice(bytes)[..HEAD_DIM].to_vec()
        };
        // The upper halves are the sums, rounded.
        for (whole, read) in whole.iter().zip(sums.elements().to_f32()) {
            assert!((whole - read).abs() <= whole.abs() / 256.0, "{read} for {whole}");
        }
        let errors = whole
            .iter()
            .zip(exact)
            .zip(sizes)
            .map(|((sum, exact), size)| (f64::from(*sum) - exact).abs() / size);
        errors.fold(0.0, f64::max)
    }

    #[test]
    fn a_million_additions_keep_five_digits() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let alike = error_of_a_million(dtype, |i, _| 0.1 + i as f32);
            let alike_but_for_noise = error_of_a_million(dtype, |i, number| 3.0 + noise(i + 32 * number));
            let around_zero = error_of_a_million(dtype, |i, number| noise(i + 32 * number));
            let alternating =
                error_of_a_million(dtype, |i, number| if number % 2 == 0 { 1e3 + i as f32 } else { -1e3 });
            println!("{dtype}: {alike:.1e} {alike_but_for_noise:.1e} {around_zero:.1e} {alternating:.1e}");
            for error in [alike, alike_but_for_noise, around_zero, alternating] {
                assert!(error <= 1e-5, "{dtype}: {error:.1e}");
            }
        }
    }

    #[test]
    fn sums_move_to_larger_rooms_whole() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let mut rows = KvRows::new(dtype, HEAD_DIM, 700).unwrap();
            let mut sums = ValueSums::new(700, rows.rows()).unwrap();
            for position in 0..700 {
                rows.append(&[0.0; HEAD_DIM], &[position as f32 + 0.5; HEAD_DIM]).unwrap();
                sums.add((position * 3 % 700) as u16, rows.rows(), position).unwrap();
                sums.add((position * 3 % 700) as u16, rows.rows(), position).unwrap();
            }
            let stored = rows.rows().elements().to_f32();
            for (position, sum) in sums.elements().to_f32().chunks_exact(HEAD_DIM).enumerate() {
                // Twice a number of bf16 is one.
                assert_eq!(sum[0], 2.0 * stored[(2 * position + 1) * HEAD_DIM], "{dtype}: {position}");
            }
            assert!(sums.bytes() < 700 * (4 * HEAD_DIM + 20));
        }
    }

    #[test]
    fn codes_get_slots_as_they_appear() {
        let mut rows = KvRows::new(Dtype::Bf16, HEAD_DIM, 4).unwrap();
        rows.append(&[0.0; 2 * HEAD_DIM], &[[1.0; HEAD_DIM], [2.5; HEAD_DIM]].concat()).unwrap();
        let mut sums = ValueSums::new(10, rows.rows()).unwrap();
        for (code, position) in [(7, 0), (3, 1), (7, 1)] {
            sums.add(code, rows.rows(), position).unwrap();
        }
        assert_eq!((sums.codes(), sums.tokens()), (&[7, 3][..], &[2, 1][..]));
        assert_eq!(sums.elements().to_f32(), [[3.5; HEAD_DIM], [2.5; HEAD_DIM]].concat());
    }
}
