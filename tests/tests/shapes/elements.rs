//! Storage types, borrowed elements, backends by name.

use crate::{
    Case,
    draw::{Draw, is_inside, numbers},
};
use a2ats_kernel::{Dtype, Elements, by_name};

pub const CASES: &[Case] = &[
    ("Elements::from_bytes", from_bytes),
    ("Elements::range", range),
    ("Elements::widen", widen),
    ("dispatch::by_name", name),
    ("Dtype::from_str", from_str),
];

fn from_bytes(draw: &mut Draw<'_>) {
    let (dtype, all) = (draw.dtype(), [0_u32; 40]);
    let start = 4 * draw.below(3);
    let start = draw.instead(start, &[1, 2, 3]);
    let len = dtype.size() * draw.below(9);
    let len = draw.len(len);
    // Bytes that begin where an f32 may.
    let bytes: Vec<u8> = all.iter().flat_map(|x| x.to_ne_bytes()).collect();
    let aligned = bytes.as_ptr().align_offset(4) + start;
    let seen = Elements::from_bytes(dtype, &bytes[aligned..][..len]);
    assert!(seen.is_none_or(|elements| elements.len() == len / dtype.size()));
    draw.hold(seen.ok_or(()), len.is_multiple_of(dtype.size()) && start.is_multiple_of(dtype.size()), true);
}

fn range(draw: &mut Draw<'_>) {
    let all = numbers(draw.below(9));
    let range = draw.range(all.len());
    let part = Elements::F32(&all).range(range.clone());
    draw.hold(part.ok_or(()), is_inside(&range, all.len()), true);
}

fn name(draw: &mut Draw<'_>) {
    let good = draw.kernels.name();
    let name = draw.instead(good, &["", "sse", "AVX2"]);
    draw.hold(by_name(name), name == good, true);
}

fn from_str(draw: &mut Draw<'_>) {
    let name = draw.instead("f16", &["", "f64", "F16"]);
    draw.hold(name.parse::<Dtype>(), name == "f16", true);
}

fn widen(draw: &mut Draw<'_>) {
    let elements = numbers(draw.below(9));
    let mut to = vec![-1.0; draw.len(elements.len())];
    Elements::F32(&elements).widen(&mut to);
    let both = to.len().min(elements.len());
    assert!(to[..both] == elements[..both] && to[both..].iter().all(|&x| x == -1.0));
}
