//! Rounding to fewer digits.

/// How a value between two others is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    Nearest,
    Zero,
    Down,
    Up,
}

impl Round {
    /// The mode of a suffix, less what says that the result is whole.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "rn" => Self::Nearest,
            "rz" => Self::Zero,
            "rm" => Self::Down,
            "rp" => Self::Up,
            _ => return None,
        })
    }

    /// The mode of a number that [`Round::number`] gave.
    pub(super) fn of(number: u64) -> Self {
        [Self::Nearest, Self::Zero, Self::Down, Self::Up][number as usize & 3]
    }

    /// The number of the mode.
    pub(super) fn number(self) -> u64 {
        self as u64
    }

    /// Rounds to a whole number.
    pub(super) fn whole(self, x: f64) -> f64 {
        match self {
            Self::Nearest => x.round_ties_even(),
            Self::Zero => x.trunc(),
            Self::Down => x.floor(),
            Self::Up => x.ceil(),
        }
    }
}

/// Floats of some size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// Digits with the leading one.
    digits: i32,
    /// Exponent of the smallest normal value; that of the largest is one less than its opposite.
    least: i32,
}

pub(super) const SINGLE: Format = Format { digits: 24, least: -126 };
pub(super) const HALF: Format = Format { digits: 11, least: -14 };
pub(super) const BRAIN: Format = Format { digits: 8, least: -126 };

impl Format {
    /// The nearest value of the format, as the mode says.
    pub(super) fn round(self, x: f64, mode: Round) -> f64 {
        if x == 0.0 || !x.is_finite() {
            return x;
        }
        let unit = exponent(x).max(self.least) - (self.digits - 1);
        let rounded = mode.whole(x * power(-unit)) * power(unit);
        let largest = (power(self.digits) - 1.0) * power(2 - self.least - self.digits);
        if rounded.abs() <= largest {
            return rounded;
        }
        let stays = match mode {
            Round::Nearest => false,
            Round::Zero => true,
            Round::Down => x > 0.0,
            Round::Up => x < 0.0,
        };
        if stays { largest.copysign(x) } else { f64::INFINITY.copysign(x) }
    }

    /// The exponent's bits, all set.
    fn ones(self) -> u64 {
        (3 - 2 * self.least) as u64
    }

    /// The bits of a value of the format; NaN has all ones but the sign.
    pub(super) fn encode(self, x: f64) -> u64 {
        let fraction = self.digits - 1;
        let ones = self.ones();
        let sign_at = fraction + 64 - ones.leading_zeros() as i32;
        let sign = u64::from(x.is_sign_negative()) << sign_at;
        if x.is_nan() {
            return (1 << sign_at) - 1;
        }
        if x.is_infinite() {
            return sign | ones << fraction;
        }
        if x.abs() < power(self.least) {
            return sign | (x.abs() * power(fraction - self.least)) as u64;
        }
        let exponent = exponent(x);
        let digits = (x.abs() * power(fraction - exponent)) as u64 - (1 << fraction);
        sign | ((exponent - self.least + 1) as u64) << fraction | digits
    }

    /// The value of bits of the format.
    pub(super) fn decode(self, bits: u64) -> f64 {
        let fraction = self.digits - 1;
        let ones = self.ones();
        let sign_at = fraction + 64 - ones.leading_zeros() as i32;
        let digits = (bits & ((1 << fraction) - 1)) as f64;
        let exponent = bits >> fraction & ones;
        let size = match exponent {
            0 => digits * power(self.least - fraction),
            _ if exponent == ones && digits == 0.0 => f64::INFINITY,
            _ if exponent == ones => f64::NAN,
            _ => (digits + power(fraction)) * power(exponent as i32 - 1 + self.least - fraction),
        };
        if bits >> sign_at & 1 == 1 { -size } else { size }
    }
}

/// The exponent of a value that is neither zero nor infinite.
fn exponent(x: f64) -> i32 {
    let bits = (x.to_bits() >> 52 & 0x7FF) as i32;
    if bits == 0 { exponent(x * power(64)) - 64 } else { bits - 1023 }
}

/// A power of two.
fn power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// Of the two neighbours of an inexact result the odd one, which rounds to fewer digits as the exact result would.
///
/// `error` has the sign of the exact result less `nearest`.
pub(super) fn odd(nearest: f64, error: f64) -> f64 {
    if error == 0.0 || !nearest.is_finite() || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    if error > 0.0 { nearest.next_up() } else { nearest.next_down() }
}

/// An integer as a float that rounds to fewer digits as the integer would.
pub(super) fn odd_of(whole: i128) -> f64 {
    let nearest = whole as f64;
    odd(nearest, (whole - nearest as i128) as f64)
}

/// Rounds to a 32-bit float toward zero.
pub(crate) fn toward_zero(x: f64) -> f32 {
    SINGLE.round(x, Round::Zero) as f32
}
