//! Arithmetic of floats with a rounding mode.
//!
//! The hardware at hand rounds to nearest. The sign of the error of that says on which side the exact result is.

use super::{
    Bits, Function,
    round::{Round, SINGLE, odd},
};

/// The function of an opcode. Its fourth operand is the number of the mode.
pub(super) fn directed(name: &str, double: bool) -> Option<Function> {
    Some(match (name, double) {
        ("add", false) => |a, b, _, mode| single(add(of(a), of(b)), mode),
        ("sub", false) => |a, b, _, mode| single(add(of(a), -of(b)), mode),
        ("mul", false) => |a, b, _, mode| single(mul(of(a), of(b)), mode),
        ("fma" | "mad", false) => |a, b, c, mode| single(add(of(a) * of(b), of(c)), mode),
        ("div", false) => |a, b, _, mode| single(div(of(a), of(b)), mode),
        ("rcp", false) => |a, _, _, mode| single(div(1.0, of(a)), mode),
        ("sqrt", false) => |a, _, _, mode| single(sqrt(of(a)), mode),
        ("add", true) => |a, b, _, mode| doubled(add(f64::of(a), f64::of(b)), mode),
        ("sub", true) => |a, b, _, mode| doubled(add(f64::of(a), -f64::of(b)), mode),
        ("mul", true) => |a, b, _, mode| doubled(mul(f64::of(a), f64::of(b)), mode),
        ("div", true) => |a, b, _, mode| doubled(div(f64::of(a), f64::of(b)), mode),
        ("rcp", true) => |a, _, _, mode| doubled(div(1.0, f64::of(a)), mode),
        ("sqrt", true) => |a, _, _, mode| doubled(sqrt(f64::of(a)), mode),
        _ => return None,
    })
}

/// A 32-bit float, in which sums, products, and quotients of two of them have room.
fn of(bits: u64) -> f64 {
    f64::from(f32::of(bits))
}

/// A result that is rounded to nearest, and what has the sign of the exact result less that.
type Inexact = (f64, f64);

fn add(a: f64, b: f64) -> Inexact {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

fn mul(a: f64, b: f64) -> Inexact {
    let product = a * b;
    (product, a.mul_add(b, -product))
}

fn div(a: f64, b: f64) -> Inexact {
    let quotient = a / b;
    (quotient, (-quotient).mul_add(b, a) * b.signum())
}

fn sqrt(a: f64) -> Inexact {
    let root = a.sqrt();
    (root, (-root).mul_add(root, a))
}

/// Rounds to 32 bits.
fn single((nearest, error): Inexact, mode: u64) -> u64 {
    (SINGLE.round(odd(nearest, error), Round::of(mode)) as f32).bits()
}

/// Rounds to 64 bits.
fn doubled((nearest, error): Inexact, mode: u64) -> u64 {
    let below = error < 0.0;
    let above = error > 0.0;
    let rounded = match Round::of(mode) {
        Round::Down if below => nearest.next_down(),
        Round::Up if above => nearest.next_up(),
        Round::Zero if below && nearest > 0.0 => nearest.next_down(),
        Round::Zero if above && nearest < 0.0 => nearest.next_up(),
        _ => nearest,
    };
    rounded.bits()
}
