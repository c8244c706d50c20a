//! The estimate of what is not attended.

use crate::{
    Case,
    attention::{partial, stored},
    draw::{Draw, is_group, is_inside, is_whole, numbers},
};
use a2ats_kernel::{
    Dtype,
    estimate::{Part, Scratch, Sums, Table, Unattended},
    rows::{Rows, Run, Runs, row_width},
};

pub const CASES: &[Case] = &[("Kernels::estimate", estimate), ("Sums::slot_bytes", slot_bytes)];

/// What a table of sums borrows.
struct Parts {
    floats: Option<Vec<f32>>,
    numbers: Vec<i8>,
    scales: Vec<f32>,
    codes: Vec<u16>,
    counts: Vec<u32>,
}

impl Parts {
    fn new(draw: &mut Draw<'_>, codes: usize, width: usize) -> Self {
        let slots = draw.below(codes + 1);
        let are_floats = draw.below(2) == 0;
        let (len, scales, counts) = (draw.len(slots * width), draw.len(slots), draw.len(slots));
        let mut numbered: Vec<u16> = (0..slots as u16).collect();
        let last = numbered.last().copied().unwrap_or(0);
        let changed = draw.instead(last, &[codes as u16 - 1, codes as u16, u16::MAX]);
        numbered.iter_mut().next_back().into_iter().for_each(|code| *code = changed);
        Self {
            floats: are_floats.then(|| numbers(len)),
            numbers: vec![1; len],
            scales: numbers(scales),
            codes: numbered,
            counts: vec![1; counts],
        }
    }

    fn table(&self) -> Table<'_> {
        let Self { floats, numbers, scales, codes, counts } = self;
        let sums = floats.as_ref().map_or(Sums::Int8 { numbers, scales }, |floats| Sums::F32(floats));
        Table { sums, codes, counts }
    }

    fn fit(&self, width: usize) -> bool {
        let slots = self.codes.len();
        self.numbers.len() == slots * width
            && (self.floats.is_some() || self.scales.len() == slots)
            && self.counts.len() == slots
    }
}

fn estimate(draw: &mut Draw<'_>) {
    let (codes, head_dim, dtype, group) =
        (1 + draw.below(40), draw.head_dim(), draw.dtype(), 1 + draw.below(16));
    let parts: Vec<Parts> =
        (0..draw.below(3)).map(|_| Parts::new(draw, codes, row_width(head_dim))).collect();
    let tables: Vec<Table<'_>> = parts.iter().map(Parts::table).collect();
    let count = draw.below(40);
    let stored = stored(count, head_dim, dtype);
    let (areas, all) = ([Rows::new(stored.elements(), head_dim).unwrap()], [Run::new(0, 0..count)]);
    let code = draw.instead(0, &[codes as u16 - 1, codes as u16, u16::MAX]);
    let (row_codes, shares) = (vec![code; draw.len(count)], numbers(draw.len(codes)));
    let (scores, offsets) = (numbers(draw.len(group * codes)), numbers(draw.len(group)));
    let what = Unattended {
        tables: &tables,
        rows: Runs::new(&areas, &all).unwrap(),
        row_codes: &row_codes,
        shares: &shares,
        scores: &scores,
        offsets: &offsets,
        scale: 0.5,
    };
    let part = Part { slots: draw.range(what.slots()), rows: draw.below(4) > 0 };
    let mut out = partial(draw, 2, 20);
    let before = out.clone();
    let done = draw.kernels.estimate(&what, &part, &mut Scratch::default(), &mut out);
    let codes_of_scores = scores.len().checked_div(offsets.len()).unwrap_or(0);
    let fits = is_group(offsets.len())
        && is_whole(scores.len(), offsets.len())
        && parts.iter().all(|parts| parts.fit(row_width(head_dim)))
        && row_codes.len() == count
        && shares.len() == codes_of_scores
        && parts
            .iter()
            .flat_map(|parts| &parts.codes)
            .chain(&row_codes)
            .all(|&code| usize::from(code) < codes_of_scores)
        && is_inside(&part.slots, what.slots());
    draw.hold(done, fits, out == before);
}

fn slot_bytes(draw: &mut Draw<'_>) {
    let width = draw.number(32);
    for sums in [Sums::F32(&[]), Sums::Int8 { numbers: &[], scales: &[] }] {
        assert!(sums.slot_bytes(width) >= width);
    }
    let layout = crate::stores::layout(Dtype::F32, width, 3);
    assert!(layout.sum_bytes() >= layout.width() && layout.row_bytes() >= layout.width());
}
