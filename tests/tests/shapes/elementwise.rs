//! The small operations between the products.

use crate::{
    Case,
    draw::{Draw, is_whole, numbers},
};
use a2ats_kernel::elementwise::Rotation;
use a2ats_tests::inputs::Guarded;

pub const CASES: &[Case] = &[
    ("Kernels::rms_norm", rms_norm),
    ("Kernels::rotate", rotate),
    ("Kernels::silu_mul", silu_mul),
    ("Kernels::softmax", softmax),
    ("Rotation::new", new),
    ("Rotation::averaged", averaged),
    ("Rotation::set_position", set),
    ("Rotation::set_average", set),
];

/// Vectors of `width` numbers.
fn vectors(draw: &mut Draw<'_>, width: usize) -> Vec<f32> {
    let good = (1 + draw.below(3)) * width;
    numbers(draw.len(good))
}

fn rms_norm(draw: &mut Draw<'_>) {
    let width = 1 + draw.below(40);
    let (x, weight) = (vectors(draw, width), numbers(draw.len(width)));
    let mut out = Guarded::new(&x, 3);
    let done = draw.kernels.rms_norm(&mut out, &weight, 1e-5);
    draw.hold(done, is_whole(x.len(), weight.len()), *out == x[..]);
}

fn rotate(draw: &mut Draw<'_>) {
    let pairs = 1 + draw.below(20);
    let rotation = Rotation::new(7, &vec![0.1; draw.len(pairs)]);
    let heads = vectors(draw, 2 * pairs);
    let mut out = Guarded::new(&heads, 3);
    let done = draw.kernels.rotate(&mut out, &rotation);
    draw.hold(done, is_whole(heads.len(), rotation.head_dim()), *out == heads[..]);
}

fn silu_mul(draw: &mut Draw<'_>) {
    let len = 1 + draw.below(40);
    let (gate, up) = (numbers(draw.len(len)), numbers(draw.len(len)));
    let mut out = Guarded::new(&gate, 3);
    let done = draw.kernels.silu_mul(&mut out, &up);
    draw.hold(done, gate.len() == up.len(), *out == gate[..]);
}

fn softmax(draw: &mut Draw<'_>) {
    let len = draw.below(40);
    draw.kernels.softmax(&mut Guarded::new(&numbers(draw.len(len)), 3));
}

fn new(draw: &mut Draw<'_>) {
    let pairs = draw.len(3);
    assert_eq!(Rotation::new(draw.number(5), &vec![0.1; pairs]).head_dim(), 2 * pairs);
}

fn averaged(draw: &mut Draw<'_>) {
    let pairs = draw.len(3);
    assert_eq!(Rotation::averaged(draw.range(9), &vec![0.1; pairs]).head_dim(), 2 * pairs);
}

fn set(draw: &mut Draw<'_>) {
    let pairs = draw.below(9);
    let frequencies = vec![0.1; draw.len(pairs)];
    let mut rotation = Rotation::new(3, &[0.2; 5]);
    rotation.set_position(draw.number(5), &frequencies);
    assert_eq!(rotation.head_dim(), 2 * frequencies.len());
    let range = draw.range(9);
    rotation.set_average(range.clone(), &frequencies);
    assert_eq!(rotation, Rotation::averaged(range, &frequencies));
}
