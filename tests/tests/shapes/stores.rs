//! What a kv head keeps of its tokens.

use crate::{
    Case,
    attention::drawn_run,
    draw::{Draw, is_head_dim, numbers},
};
use a2ats_kernel::{
    Dtype, Kernels,
    rows::Run,
    store::{Layout, Store},
};

pub const CASES: &[Case] = &[
    ("Layout::check", check),
    ("Layout::window_start", window_start),
    ("Store::new", new),
    ("Store::append", append),
    ("Store::set_codes", set_codes),
    ("Store::check_room", check_room),
    ("Store::all_rows", all_rows),
    ("Store::rows_before", rows_before),
    ("Store::positions", positions),
    ("Store::truncate", truncate),
    ("Store::sort", sort),
    ("Store::sort_some", sort_some),
    ("Store::counts", counts),
];

pub fn layout(dtype: Dtype, head_dim: usize, codes: usize) -> Layout {
    Layout { dtype, head_dim, codes, window: 2, sinks: 1 }
}

/// A store of `tokens` tokens, of which so many are sorted, with room for five more.
pub fn store(kernels: &dyn Kernels, layout: Layout, sorted: usize, tokens: usize) -> Store {
    let mut store = Store::new(layout, tokens + 5).unwrap();
    for (count, sorts) in [(sorted, true), (tokens - sorted, false)] {
        let rows = numbers(count * layout.head_dim);
        let codes: Vec<u16> =
            (0..count).filter(|_| layout.codes > 0).map(|i| (i % layout.codes) as u16).collect();
        store.append(&rows, &rows, &codes).unwrap();
        if sorts {
            store.sort(kernels).unwrap();
        }
    }
    store
}

/// A store with codes, sorted or not.
pub fn filled(draw: &mut Draw<'_>) -> Store {
    let (dtype, head_dim, codes) = (draw.dtype(), draw.head_dim(), 1 + draw.below(9));
    let (sorted, more) = (draw.below(40), draw.below(20));
    let (window, sinks) = (draw.one_of(&[1, 2, 3, usize::MAX]), draw.one_of(&[0, 1, 3, usize::MAX]));
    let layout = Layout { window, sinks, ..layout(dtype, head_dim, codes) };
    store(draw.kernels, layout, sorted, sorted + more)
}

/// What there is to see of a store.
pub fn content(store: &Store) -> (usize, Vec<u16>, usize, Vec<Run>) {
    let mut runs = Vec::new();
    store.all_rows(&mut runs);
    (store.len(), store.codes(), store.bases().len(), runs)
}

fn drawn_layout(draw: &mut Draw<'_>) -> Layout {
    let (dtype, head_dim, codes) = (draw.dtype(), draw.head_dim(), draw.below(9));
    Layout {
        dtype,
        head_dim: draw.number(head_dim),
        codes: draw.number(codes),
        window: draw.number(3),
        sinks: draw.number(2),
    }
}

fn makes_sense(layout: &Layout) -> bool {
    is_head_dim(layout.head_dim) && layout.codes <= 1 << 16 && layout.window > 0
}

fn check(draw: &mut Draw<'_>) {
    let layout = drawn_layout(draw);
    draw.hold(layout.check(), makes_sense(&layout), true);
}

fn window_start(draw: &mut Draw<'_>) {
    let (layout, tokens) = (drawn_layout(draw), draw.number(9));
    assert!(layout.window_start(tokens) <= tokens);
}

fn new(draw: &mut Draw<'_>) {
    let (layout, capacity) = (drawn_layout(draw), draw.number(100));
    draw.hold(Store::new(layout, capacity), makes_sense(&layout) && capacity < 1 << 31, true);
}

fn append(draw: &mut Draw<'_>) {
    let mut store = filled(draw);
    let (layout, tokens) = (store.layout(), draw.below(6));
    let (keys, values) =
        (numbers(draw.len(tokens * layout.head_dim)), numbers(draw.len(tokens * layout.head_dim)));
    let code = draw.instead(0, &[layout.codes as u16 - 1, layout.codes as u16, u16::MAX]);
    let codes = vec![code; draw.len(tokens)];
    let before = content(&store);
    let done = store.append(&keys, &values, &codes);
    let fits = keys.len() == values.len()
        && keys.len() == codes.len() * layout.head_dim
        && codes.iter().all(|&code| usize::from(code) < layout.codes)
        && codes.len() <= store.capacity() - before.0;
    assert!(!fits || store.len() == before.0 + codes.len());
    draw.hold(done, fits, content(&store) == before);
}

fn check_room(draw: &mut Draw<'_>) {
    let mut store = filled(draw);
    let (tokens, before) = (draw.number(5), content(&store));
    let done = store.check_room(tokens);
    draw.hold(done, tokens <= store.capacity() - store.len(), content(&store) == before);
}

pub fn rows_of(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.len as usize).sum()
}

fn all_rows(draw: &mut Draw<'_>) {
    let store = filled(draw);
    assert_eq!(rows_of(&content(&store).3), store.len());
}

fn rows_before(draw: &mut Draw<'_>) {
    let store = filled(draw);
    let end = draw.below(store.len() + 1);
    let (end, mut runs) = (draw.number(end), Vec::new());
    store.rows_before(end, &mut runs);
    let sorted = store.bases().last().map_or(0, |base| base.positions().end);
    assert_eq!(rows_of(&runs), end.max(sorted).min(store.len()));
}

fn positions(draw: &mut Draw<'_>) {
    let store = filled(draw);
    let areas = store.areas();
    let area = draw.below(areas.len());
    let count = areas[area].len();
    let run = Run { area: area as u32, ..drawn_run(draw, 1, count) };
    let run = Run { area: draw.narrow(area), ..run };
    let fits = areas.get(run.area as usize).is_some_and(|area| run.rows().end <= area.len());
    let done = store.positions(&[run]);
    assert!(done.as_ref().map_or(true, |positions| positions.len() == run.len as usize));
    draw.hold(done, fits, true);
}

fn truncate(draw: &mut Draw<'_>) {
    let mut store = filled(draw);
    let (before, tokens) = (store.len(), draw.below(store.len() + 1));
    let tokens = draw.number(tokens);
    store.truncate(draw.kernels, tokens).unwrap();
    assert_eq!(store.len(), tokens.min(before));
    let (_, codes, _, runs) = content(&store);
    assert_eq!((codes.len(), rows_of(&runs)), (store.len(), store.len()));
}

fn sort(draw: &mut Draw<'_>) {
    let mut store = filled(draw);
    let before = store.codes();
    store.sort(draw.kernels).unwrap();
    assert_eq!(store.codes(), before);
}

fn sort_some(draw: &mut Draw<'_>) {
    let mut store = filled(draw);
    let (before, rows) = (store.codes(), draw.number(5));
    store.sort_some(draw.kernels, rows).unwrap();
    store.sort_some(draw.kernels, rows).unwrap();
    assert_eq!(store.codes(), before);
}

fn counts(draw: &mut Draw<'_>) {
    let mut store = filled(draw);
    let mut counts = vec![7; draw.len(3)];
    store.counts(&mut counts).unwrap();
    assert_eq!(counts.len(), store.layout().codes);
}

fn set_codes(draw: &mut Draw<'_>) {
    let mut store = filled(draw);
    let (layout, len, before) = (store.layout(), store.len(), content(&store));
    let start = layout.window_start(len);
    let newest = if start <= layout.sinks { len } else { len - start };
    let good = draw.below(newest + 1);
    let code = draw.number(layout.codes - 1).min(usize::from(u16::MAX)) as u16;
    let codes = vec![code; draw.len(good)];
    let fits = codes.len() <= newest && (codes.is_empty() || usize::from(code) < layout.codes);
    let done = store.set_codes(&codes);
    let unchanged = content(&store) == before;
    draw.hold(done, fits, unchanged);
}
