//! Sums of the values of each code's tokens, kept as tokens leave the window.
//!
//! Beside f32 rows a sum is a f32. Beside bf16 and f16 rows its numbers are quantized: integers of 16 bits, which times a scale that they
//! share, a power of two, are the sum. When one no longer fits, the scale doubles, and all of them are halved. So
//! estimates read two bytes a number, and the numbers have up to eight bits more than bf16 would have.
//!
//! Adding a million small numbers to a larger one loses what lies below its last bit each time, and always in the same direction
//! if they are alike: a million times 0.1 is 100,958 in f32. So before each sum is rounded a fraction of its last bit is added
//! to it, from −½ to ½, by turns that are spread evenly (multiples of the golden ratio): on average nothing is lost. Of
//! quantized numbers, n additions to a code leave an error of some √(n/6) steps, one of which is at most 2⁻¹⁴ of the largest
//! number that the code's sum ever had, and less once values are smaller than a step. Relative to the largest sum of sizes: 2e-4
//! after a thousand additions, 7e-4 after a million to the same code. (bf16 loses 2e-3 by being rounded once.) Of f32 it is 1e-6.

use super::{STRIP, Sums, strips::place};
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
    /// The code of each slot: in the order in which codes appeared, and once there is room for all, all in their order, so that
    /// nothing has to be looked up by them.
    codes: Vec<u16>,
    /// How many tokens each slot has.
    tokens: Vec<u32>,
    /// `[slots]`, where numbers are quantized.
    scales: Vec<f32>,
    is_quantized: bool,
    /// `[width / STRIP, room, STRIP]`
    numbers: Table,
    /// Slots that there is room for.
    room: usize,
}

impl ValueSums {
    /// No sums yet, of values in rows like these.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new(codes: usize, rows: Rows<'_>) -> Result<Self> {
        Ok(Self {
            head_dim: rows.head_dim(),
            slots: vec![NONE; codes],
            codes: Vec::new(),
            tokens: Vec::new(),
            scales: Vec::new(),
            is_quantized: rows.elements().dtype() != Dtype::F32,
            numbers: Table::zeros(0)?,
            room: 0,
        })
    }

    /// Checks codes and rows of tokens from position `first` on.
    pub(crate) fn check(&self, codes: &[u16], rows: &Rows<'_>, first: usize) -> Result<()> {
        expect_len("head_dim of the rows", rows.head_dim(), self.head_dim)?;
        if self.is_quantized == (rows.elements().dtype() == Dtype::F32) {
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
        let value = (2 * position + 1) * width;
        let value = value..value + self.head_dim;
        match rows.elements() {
            Elements::F32(all) => self.add_f32(slot, &all[value]),
            Elements::F16(all) => self.add_quantized(slot, &all[value], f16::to_f32),
            Elements::Bf16(all) => {
                // Compilers make vectors of it, which they don't of what minds NaN.
                let widen = |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16);
                self.add_quantized(slot, &all[value], widen);
            }
        }
        self.tokens[slot] += 1;
        Ok(())
    }

    #[inline(always)]
    fn add_f32(&mut self, slot: usize, values: &[f32]) {
        let (room, turn) = (self.room, turn(self.tokens[slot]));
        let sums: &mut [f32] = bytemuck::cast_slice_mut(self.numbers.bytes_mut());
        for (strip, values) in values.chunks(STRIP).enumerate() {
            for (sum, &value) in sums[place(strip, room, slot)..].iter_mut().zip(values) {
                *sum = add_evenly(*sum, value, turn);
            }
        }
    }

    /// Adds values to a slot's quantized numbers.
    #[inline(always)]
    fn add_quantized<T: Copy>(&mut self, slot: usize, values: &[T], widen: impl Fn(T) -> f32 + Copy) {
        let (room, turn) = (self.room, turn(self.tokens[slot]));
        let numbers: &mut [i16] = bytemuck::cast_slice_mut(self.numbers.bytes_mut());
        let factor = 1.0 / self.scales[slot];
        let mut sums = [0_i32; MOST_VALUES];
        let mut largest = 0;
        for ((strip, values), sums) in values.chunks(STRIP).enumerate().zip(sums.chunks_mut(STRIP)) {
            let numbers = &numbers[place(strip, room, slot)..][..STRIP];
            for ((sum, &number), &value) in sums.iter_mut().zip(numbers).zip(values) {
                *sum = i32::from(number) + nearest(widen(value) * factor + turn);
                largest = sum.abs().max(largest);
            }
        }
        if largest > i32::from(i16::MAX) {
            return add_rescaled(
                numbers,
                &mut self.scales[slot],
                |strip| place(strip, room, slot),
                turn,
                values,
                widen,
            );
        }
        for (strip, sums) in sums[..values.len()].chunks(STRIP).enumerate() {
            for (number, &sum) in numbers[place(strip, room, slot)..].iter_mut().zip(sums) {
                *number = sum as i16;
            }
        }
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
        if slot == self.room {
            // Twice as much; or all of it, if that is more than half.
            let (wanted, all) = ((2 * self.room).max(FIRST_ROOM), self.slots.len());
            if 2 * wanted > all {
                self.make_room_for_all()?;
                return Ok(usize::from(code));
            }
            self.numbers = self.moved(wanted, |slot| slot)?;
            self.room = wanted;
        }
        self.slots[usize::from(code)] = slot as u32;
        self.codes.push(code);
        self.tokens.push(0);
        if self.is_quantized {
            self.scales.push(f32::MIN_POSITIVE);
        }
        Ok(slot)
    }

    /// Gives all codes slots, in their order.
    #[inline(never)]
    fn make_room_for_all(&mut self) -> Result<()> {
        let all = self.slots.len();
        self.numbers = self.moved(all, |slot| usize::from(self.codes[slot]))?;
        self.room = all;
        let mut tokens = vec![0; all];
        let mut scales = vec![f32::MIN_POSITIVE; if self.is_quantized { all } else { 0 }];
        for (slot, &code) in self.codes.iter().enumerate() {
            tokens[usize::from(code)] = self.tokens[slot];
            if self.is_quantized {
                scales[usize::from(code)] = self.scales[slot];
            }
        }
        (self.tokens, self.scales) = (tokens, scales);
        self.codes = (0..all).map(|code| code as u16).collect();
        self.slots = (0..all as u32).collect();
        Ok(())
    }

    /// The numbers in a table with another room, each slot's in a new place.
    fn moved(&self, room: usize, new_place: impl Fn(usize) -> usize) -> Result<Table> {
        let mut numbers = Table::zeros(room * self.slot_bytes())?;
        let number = self.slot_bytes() / row_width(self.head_dim);
        for strip in 0..row_width(self.head_dim) / STRIP {
            for slot in 0..self.codes.len() {
                let from = &self.numbers.bytes()[place(strip, self.room, slot) * number..][..STRIP * number];
                let to = place(strip, room, new_place(slot)) * number;
                numbers.bytes_mut()[to..to + from.len()].copy_from_slice(from);
            }
        }
        Ok(numbers)
    }

    /// The code of each slot.
    pub fn codes(&self) -> &[u16] {
        &self.codes
    }

    /// How many tokens each slot has.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The sums themselves.
    pub fn sums(&self) -> Sums<'_> {
        if self.is_quantized {
            Sums::Quantized { numbers: bytemuck::cast_slice(self.numbers.bytes()), scales: &self.scales }
        } else {
            Sums::F32(bytemuck::cast_slice(self.numbers.bytes()))
        }
    }

    /// Bytes of a slot that one pass of the estimate reads.
    pub const fn slot_bytes(&self) -> usize {
        row_width(self.head_dim) * if self.is_quantized { size_of::<i16>() } else { size_of::<f32>() }
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        let of_codes = size_of_val(&self.slots[..])
            + size_of_val(&self.codes[..])
            + size_of_val(&self.tokens[..])
            + size_of_val(&self.scales[..]);
        self.numbers.bytes().len() + of_codes
    }
}

/// Slots of the first room.
const FIRST_ROOM: usize = 64;

/// The largest head_dim.
const MOST_VALUES: usize = 256;

/// A fraction of a last bit for the next of `tokens` additions, from −½ to ½, spread evenly over them.
fn turn(tokens: u32) -> f32 {
    (tokens.wrapping_mul(GOLDEN) as i32) as f32 * (1.0 / 4_294_967_296.0)
}

/// `sum + value`, rounded up or down so that errors even out over evenly spread `turn`s from −½ to ½.
#[inline(always)]
fn add_evenly(sum: f32, value: f32, turn: f32) -> f32 {
    // 2⁻²³ of the power of two below the sum.
    let last_bit = f32::from_bits(sum.to_bits() & 0x7f80_0000) * f32::EPSILON;
    sum + (value + turn * last_bit)
}

/// The nearest integer; beyond ±2²⁰ one of those, and some integer for NaN.
#[inline(always)]
fn nearest(x: f32) -> i32 {
    /// Has integers in its last bits.
    const INTEGERS: f32 = (3 << 22) as f32;
    const MOST: f32 = (1 << 20) as f32;
    (x.clamp(-MOST, MOST) + INTEGERS).to_bits().wrapping_sub(INTEGERS.to_bits()) as i32
}

/// Adds values with a scale that fits the result; `place` is where each strip of the numbers begins.
#[cold]
#[inline(never)]
fn add_rescaled<T: Copy>(
    numbers: &mut [i16],
    scale: &mut f32,
    place: impl Fn(usize) -> usize,
    turn: f32,
    values: &[T],
    widen: impl Fn(T) -> f32,
) {
    let before = *scale;
    let at = |i: usize| place(i / STRIP) + i % STRIP;
    let sums = values.iter().enumerate().map(|(i, &x)| f32::from(numbers[at(i)]) * before + widen(x));
    // NaN is passed over; what is infinite becomes the largest number there is.
    let largest = sums.fold(0.0, |most: f32, sum| most.max(sum.abs())).min(f32::MAX);
    // The power of two that leaves 15 bits of it; 14, where rounding might need the 16th. The scale never falls: a number that was
    // large once may be so again, and each change costs a rounding.
    let power = f32::from_bits(largest.to_bits() & 0x7f80_0000) / (1 << 14) as f32;
    let fits = largest < f32::from(i16::MAX) * power;
    *scale = before.max(if fits { power } else { 2.0 * power });
    let (keep, factor) = (before / *scale, 1.0 / *scale);
    for (i, &value) in values.iter().enumerate() {
        let number = &mut numbers[at(i)];
        let rounded = nearest(f32::from(*number) * keep + (widen(value) * factor + turn));
        *number = rounded.clamp(-i32::from(i16::MAX), i32::from(i16::MAX)) as i16;
    }
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

    /// `[slots, HEAD_DIM]`
    fn to_f32(sums: &ValueSums) -> Vec<f32> {
        let number = |slot: usize, i: usize| {
            let at = place(i / STRIP, sums.room, slot) + i % STRIP;
            match sums.sums() {
                Sums::F32(numbers) => numbers[at],
                Sums::Quantized { numbers, scales } => f32::from(numbers[at]) * scales[slot],
            }
        };
        (0..sums.codes().len()).flat_map(|slot| (0..HEAD_DIM).map(move |i| number(slot, i))).collect()
    }

    /// The largest error of many additions to one sum, relative to the largest sum of sizes; `value` is by element and number.
    fn error_of(additions: u32, dtype: Dtype, value: impl Fn(usize, usize) -> f32) -> f64 {
        const KINDS: usize = 1000;
        let mut rows = KvRows::new(dtype, HEAD_DIM, KINDS).unwrap();
        for number in 0..KINDS {
            let values: Vec<f32> = (0..HEAD_DIM).map(|i| value(i, number)).collect();
            rows.append(&[0.0; HEAD_DIM], &values).unwrap();
        }
        let row = 2 * row_width(HEAD_DIM);
        let stored = rows.rows().elements().to_f32();
        let mut sums = ValueSums::new(1000, rows.rows()).unwrap();
        let (mut exact, mut sizes) = ([0.0; HEAD_DIM], [0.0; HEAD_DIM]);
        for number in 0..additions {
            let position = number as usize % KINDS;
            sums.add(2, rows.rows(), position).unwrap();
            let value = &stored[position * row + row / 2..][..HEAD_DIM];
            for ((exact, size), &x) in exact.iter_mut().zip(&mut sizes).zip(value) {
                *exact += f64::from(x);
                *size += f64::from(x.abs());
            }
        }
        assert_eq!((sums.codes(), sums.tokens()), (&[2][..], &[additions][..]));
        let got = to_f32(&sums);
        let errors = got.iter().zip(exact).map(|(sum, exact)| (f64::from(*sum) - exact).abs());
        errors.fold(0.0, f64::max) / sizes.into_iter().fold(0.0, f64::max)
    }

    #[test]
    fn additions_keep_their_digits() {
        for (additions, dtype, allowed) in [
            (1000, Dtype::F32, 1e-6),
            (1_000_000, Dtype::F32, 1e-6),
            (1000, Dtype::F16, 3e-4),
            (1000, Dtype::Bf16, 3e-4),
            (1_000_000, Dtype::F16, 1e-3),
            (1_000_000, Dtype::Bf16, 1e-3),
        ] {
            let alike = error_of(additions, dtype, |i, _| 0.1 + i as f32);
            let alike_but_for_noise = error_of(additions, dtype, |i, number| 3.0 + noise(i + 32 * number));
            let around_zero = error_of(additions, dtype, |i, number| noise(i + 32 * number));
            let alternating =
                error_of(additions, dtype, |i, number| if number % 2 == 0 { 1e3 + i as f32 } else { -1e3 });
            println!(
                "{additions} {dtype}: {alike:.1e} {alike_but_for_noise:.1e} {around_zero:.1e} {alternating:.1e}"
            );
            for error in [alike, alike_but_for_noise, around_zero, alternating] {
                assert!(error <= allowed, "{additions} {dtype}: {error:.1e}");
            }
        }
    }

    #[test]
    fn what_is_no_number_spoils_only_the_sum_of_its_code() {
        for dtype in [Dtype::F16, Dtype::Bf16] {
            let odd = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0, 1e-40, 0.0];
            let values: Vec<f32> = odd.iter().copied().cycle().take(HEAD_DIM).collect();
            let mut rows = KvRows::new(dtype, HEAD_DIM, 2).unwrap();
            rows.append(&[0.0; 2 * HEAD_DIM], &[&values[..], &[1.0; HEAD_DIM]].concat()).unwrap();
            let mut sums = ValueSums::new(1000, rows.rows()).unwrap();
            for position in [0, 0, 1, 0, 1] {
                sums.add(0, rows.rows(), position).unwrap();
                sums.add(1, rows.rows(), 1).unwrap();
            }
            assert_eq!(to_f32(&sums)[HEAD_DIM..], [5.0; HEAD_DIM], "{dtype}");
        }
    }

    #[test]
    fn sums_move_to_larger_rooms_whole() {
        for (dtype, codes, are_in_order) in
            [(Dtype::F32, 700, true), (Dtype::Bf16, 700, true), (Dtype::Bf16, 9000, false)]
        {
            let mut rows = KvRows::new(dtype, HEAD_DIM, 700).unwrap();
            let mut sums = ValueSums::new(codes, rows.rows()).unwrap();
            let code_of = |position: usize| (position * 3 % 700) as u16;
            for position in 0..690 {
                rows.append(&[0.0; HEAD_DIM], &[position as f32 + 0.5; HEAD_DIM]).unwrap();
                sums.add(code_of(position), rows.rows(), position).unwrap();
                sums.add(code_of(position), rows.rows(), position).unwrap();
            }
            let stored = rows.rows().elements().to_f32();
            let mut want = vec![0.0; codes];
            for position in 0..690 {
                // Twice a number of bf16 is one.
                want[usize::from(code_of(position))] = 2.0 * stored[(2 * position + 1) * HEAD_DIM];
            }
            let got = to_f32(&sums);
            assert_eq!(sums.codes().len(), if are_in_order { codes } else { 690 });
            for (slot, &code) in sums.codes().iter().enumerate() {
                assert!(!are_in_order || usize::from(code) == slot);
                assert_eq!(got[slot * HEAD_DIM], want[usize::from(code)], "{dtype}: {code}");
                assert_eq!(sums.tokens()[slot], if got[slot * HEAD_DIM] > 0.0 { 2 } else { 0 });
            }
            assert!(
                sums.bytes() < sums.codes().len() * (4 * HEAD_DIM + 20) + 1024 * 2 * HEAD_DIM + 4 * codes
            );
        }
    }

    #[test]
    fn codes_get_slots_as_they_appear() {
        let mut rows = KvRows::new(Dtype::Bf16, HEAD_DIM, 4).unwrap();
        rows.append(&[0.0; 2 * HEAD_DIM], &[[1.0; HEAD_DIM], [2.5; HEAD_DIM]].concat()).unwrap();
        let mut sums = ValueSums::new(1000, rows.rows()).unwrap();
        for (code, position) in [(7, 0), (3, 1), (7, 1)] {
            sums.add(code, rows.rows(), position).unwrap();
        }
        assert_eq!((sums.codes(), sums.tokens()), (&[7, 3][..], &[2, 1][..]));
        assert_eq!(to_f32(&sums), [[3.5; HEAD_DIM], [2.5; HEAD_DIM]].concat());
    }
}
