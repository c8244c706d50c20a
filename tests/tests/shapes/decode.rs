//! A decode step, and its parts.

use crate::{
    Case,
    attention::partial,
    codebook::book,
    draw::{Draw, is_group, is_inside, is_whole, numbers},
    stores::{content, filled, layout, store},
};
use a2ats_kernel::{
    Codebook, Dtype,
    attention::{self, segment_rows},
    decode::{Amount, Choice, Estimate, Sparsity, StepInput, StepScratch, decode_step, rows_per_task},
    estimate::{self, Part},
    rows::Run,
    store::{Layout, Store},
};
use a2ats_tests::inputs::Guarded;

pub const CASES: &[Case] = &[
    ("decode::rows_per_task", rows),
    ("Sparsity::check", check),
    ("Sparsity::take", take),
    ("Sparsity::distances", distances),
    ("Sparsity::averaged_rotation", averaged_rotation),
    ("Sparsity::layout", layout_of),
    ("Choice::choose", choose),
    ("Choice::choose_all", choose_all),
    ("Choice::attend", attend),
    ("Choice::estimate_bytes", estimate_bytes),
    ("Choice::estimate", estimate_rest),
    ("decode::decode_step", step),
];

fn rows(draw: &mut Draw<'_>) {
    let rows = draw.number(5000);
    let part = rows_per_task(rows, draw.number(20), draw.number(100));
    assert!(
        part >= segment_rows(rows) && (part.is_multiple_of(segment_rows(rows)) || part == usize::MAX),
        "{part}"
    );
}

/// The sparsity of stores of a layout, of which the share, the window and the sinks are changed; whether it makes sense, and fits them.
fn sparsity(draw: &mut Draw<'_>, layout: &Layout, capacity: usize) -> (Sparsity, bool, bool) {
    let estimate = draw.one_of(&[Estimate::Fixed, Estimate::Averaged, Estimate::Off]);
    let retrieve = draw.one_of(&[0.1, 0.0, 0.5]);
    let retrieve = draw.instead(retrieve, &[f64::NAN, f64::INFINITY, -0.1, 1.5]);
    let sparsity =
        Sparsity { retrieve, window: draw.number(layout.window), sinks: draw.number(layout.sinks), estimate };
    let makes_sense = retrieve.is_finite() && retrieve >= 0.0 && sparsity.window > 0;
    let is_of_layout = sparsity.window == layout.window && sparsity.sinks.min(capacity) == layout.sinks;
    (sparsity, makes_sense, makes_sense && is_of_layout)
}

fn check(draw: &mut Draw<'_>) {
    let (sparsity, makes_sense, _) = sparsity(draw, &layout(Dtype::F32, 16, 3), 9);
    draw.hold(sparsity.check(), makes_sense, true);
}

fn take(draw: &mut Draw<'_>) {
    let (sparsity, ..) = sparsity(draw, &layout(Dtype::F32, 16, 3), 9);
    let tokens = draw.number(9);
    assert!(sparsity.take(tokens) <= tokens || sparsity.retrieve > 0.5);
}

fn distances(draw: &mut Draw<'_>) {
    let (sparsity, ..) = sparsity(draw, &layout(Dtype::F32, 16, 3), 9);
    let distances = sparsity.distances(draw.number(9));
    assert!(distances.start <= distances.end);
}

fn averaged_rotation(draw: &mut Draw<'_>) {
    let (sparsity, ..) = sparsity(draw, &layout(Dtype::F32, 16, 3), 9);
    let (tokens, pairs) = (draw.number(9), draw.len(3));
    let rotation = sparsity.averaged_rotation(tokens, &vec![0.1; pairs]);
    assert!(rotation.is_none_or(|rotation| rotation.head_dim() == 2 * pairs));
}

fn layout_of(draw: &mut Draw<'_>) {
    let (head_dim, codes) = (draw.number(16), draw.number(9));
    let layout = Sparsity::default().layout(Dtype::F16, head_dim, codes);
    assert_eq!((layout.head_dim, layout.codes), (head_dim, codes));
}

/// What there is to see of a choice.
fn chosen(choice: &Choice) -> (Amount, Vec<Run>, usize, bool) {
    (choice.amount(), choice.runs().to_vec(), choice.slots(), choice.leaves())
}

fn choose(draw: &mut Draw<'_>) {
    let mut store = filled(draw);
    let (group, codes) = (1 + draw.below(16), store.layout().codes);
    let (sparsity, _, fits) = sparsity(draw, &store.layout(), store.capacity());
    let (scores, mut choice) = (numbers(draw.len(group * codes)), Choice::default());
    choice.choose_all(&store);
    let before = (chosen(&choice), content(&store));
    let done = choice.choose(draw.kernels, &mut store, &sparsity, &scores);
    let fits = fits && is_whole(scores.len(), codes) && is_group(scores.len() / codes);
    draw.hold(done, fits, (chosen(&choice), content(&store)) == before);
}

fn choose_all(draw: &mut Draw<'_>) {
    let store = filled(draw);
    assert_eq!(Choice::default().choose_all(&store).attended, store.len());
}

/// A store, what few tokens were chosen of it, and what is retrieved by.
struct Chosen {
    store: Store,
    choice: Choice,
    group: usize,
    scores: Vec<f32>,
}

fn drawn(draw: &mut Draw<'_>) -> Chosen {
    let (mut store, group) = (filled(draw), 1 + draw.below(16));
    let Layout { codes, window, sinks, .. } = store.layout();
    let sparsity = Sparsity { retrieve: 0.2, window, sinks, estimate: Estimate::Fixed };
    let (mut choice, scores) = (Choice::default(), numbers(group * codes));
    choice.choose(draw.kernels, &mut store, &sparsity, &scores).unwrap();
    if !choice.leaves() {
        // All were retrieved. Where none is, something is left.
        let sparsity = Sparsity { retrieve: 0.0, ..sparsity };
        choice.choose(draw.kernels, &mut store, &sparsity, &scores).unwrap();
    }
    Chosen { store, choice, group, scores }
}

/// Another store than that which was chosen from, or none.
fn other(draw: &mut Draw<'_>, own: &Store) -> Option<Store> {
    let (layout, len) = (own.layout(), own.len());
    let (layout, sorted, tokens) = draw.instead(
        (layout, len, None),
        &[
            (layout, 0, Some(0)),
            (layout, 0, Some(len)),
            (layout, len + 20, Some(len + 20)),
            (layout, len / 2, Some(len)),
            (Layout { head_dim: layout.head_dim + 32, ..layout }, len, Some(len)),
            (Layout { codes: layout.codes + 1, ..layout }, len, Some(len)),
            (Layout { codes: 0, ..layout }, len, Some(len)),
        ],
    );
    Some(store(draw.kernels, layout, sorted, tokens?))
}

fn attend(draw: &mut Draw<'_>) {
    let Chosen { store: own, choice, group, .. } = drawn(draw);
    let (head_dim, other) = (own.layout().head_dim, other(draw, &own));
    let store = other.as_ref().unwrap_or(&own);
    let (part, queries) = (draw.range(choice.amount().attended), numbers(draw.len(group * head_dim)));
    let mut out = partial(draw, 2, 20);
    let before = out.clone();
    let mut scratch = attention::Scratch::default();
    let done = choice.attend(draw.kernels, store, part.clone(), &queries, 0.5, &mut scratch, &mut out);
    let head_dim = store.layout().head_dim;
    let fits = store.positions(choice.runs()).is_ok()
        && is_inside(&part, choice.amount().attended)
        && is_whole(queries.len(), head_dim)
        && is_group(queries.len() / head_dim);
    draw.hold(done, fits, out == before);
}

fn estimate_bytes(draw: &mut Draw<'_>) {
    let Chosen { store, choice, .. } = drawn(draw);
    let other = other(draw, &store);
    assert!(choice.leaves() || choice.estimate_bytes(other.as_ref().unwrap_or(&store)) == 0);
}

fn estimate_rest(draw: &mut Draw<'_>) {
    let Chosen { store: own, choice, group, scores } = drawn(draw);
    let (layout, other) = (own.layout(), other(draw, &own));
    let store = other.as_ref().unwrap_or(&own);
    let (codes, head_dim) = (
        draw.instead(layout.codes, &[layout.codes + 1]),
        draw.instead(layout.head_dim, &[layout.head_dim + 2]),
    );
    let of_book = book(codes, head_dim, layout.dtype);
    let queries = numbers(draw.len(group * layout.head_dim));
    let scores = numbers(draw.len(scores.len()));
    let part = Part { slots: draw.range(choice.slots()), rows: true };
    let mut out = partial(draw, 2, 20);
    let before = out.clone();
    let mut scratch = estimate::Scratch::default();
    let input = (&queries[..], &scores[..]);
    let done = choice.estimate(draw.kernels, store, &of_book, &part, input, 0.5, &mut scratch, &mut out);
    let slots: usize = store.bases().iter().map(|base| base.slots().len()).sum();
    let of_store = store.layout();
    let fits = (of_store.codes, of_store.head_dim) == (codes, head_dim)
        && choice.slots() == slots
        && is_whole(queries.len(), head_dim)
        && is_group(queries.len() / head_dim)
        && scores.len() == queries.len() / head_dim * codes
        && is_inside(&part.slots, slots);
    // Which rows are corrected is not to be seen: of another store they may be there.
    let fits = fits && (other.is_none() || done.is_ok());
    draw.hold(done, fits, out == before);
}

/// The arguments of a step, each by itself.
struct Step {
    book: Codebook,
    queries: [Vec<f32>; 3],
    key: [Vec<f32>; 3],
}

fn step(draw: &mut Draw<'_>) {
    let mut store = filled(draw);
    let (layout, group) = (store.layout(), 1 + draw.below(16));
    // A full store has no room for another token.
    let full = draw.instead(0, &[store.capacity() - store.len()]);
    store.append(&numbers(full * layout.head_dim), &numbers(full * layout.head_dim), &vec![0; full]).unwrap();
    let (sparsity, _, fits) = sparsity(draw, &layout, store.capacity());
    let (codes, head_dim) = (
        draw.instead(layout.codes, &[layout.codes + 1]),
        draw.instead(layout.head_dim, &[layout.head_dim + 2, 256]),
    );
    let averaged = if sparsity.estimate == Estimate::Averaged { group * layout.head_dim } else { 0 };
    let Step { book, queries, key } = Step {
        book: book(codes, head_dim, layout.dtype),
        queries: [group * layout.head_dim, group * layout.head_dim, averaged]
            .map(|len| numbers(draw.len(len))),
        key: [layout.head_dim; 3].map(|len| numbers(draw.len(len))),
    };
    let input = StepInput {
        queries: &queries[0],
        windowed_queries: &queries[1],
        averaged_queries: &queries[2],
        key: &key[0],
        rotated_key: &key[1],
        value: &key[2],
    };
    let mut out = Guarded::new(&vec![-1.0; draw.len(group * layout.head_dim)], 3);
    let (before, mut scratch) = (content(&store), StepScratch::default());
    let done = decode_step(draw.kernels, &book, &mut store, &sparsity, &input, 0.5, &mut scratch, &mut out);
    let len = queries[0].len();
    let fits = fits
        && full == 0
        && (codes, head_dim) == (layout.codes, layout.head_dim)
        && key.iter().all(|x| x.len() == head_dim)
        && is_whole(len, head_dim)
        && is_group(len / head_dim)
        && (queries[1].len(), out.len()) == (len, len)
        && queries[2].len() == if sparsity.estimate == Estimate::Averaged { len } else { 0 };
    assert!(!fits || store.len() == before.0 + 1);
    draw.hold(done, fits, content(&store) == before && out.iter().all(|&x| x == -1.0));
}
