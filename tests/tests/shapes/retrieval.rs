//! The choice of tokens by code.

use crate::{
    Case,
    draw::{Draw, is_group, is_whole},
    stores,
};
use a2ats_kernel::retrieval::{Postings, Scratch, retrieve};

pub const CASES: &[Case] = &[("retrieval::retrieve", by_scores), ("Postings::position", position)];

fn by_scores(draw: &mut Draw<'_>) {
    let (mut store, group) = (stores::filled(draw), 1 + draw.below(16));
    let mut counts = Vec::new();
    store.counts(&mut counts).unwrap();
    let codes = counts.len();
    // Counts need not be of the store that is asked where the tokens are.
    counts.resize(draw.len(codes), 1);
    let count = draw.instead(1, &[0, u32::MAX]);
    counts.iter_mut().take(1).for_each(|first| *first = count);
    let tokens: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    // All of them tie.
    let scores = vec![0.5; draw.len(group * codes)];
    let good = draw.below(tokens.min(20) as usize + 1);
    let (take, mut prefixes) = (draw.number(good), vec![7; 3]);
    let done = retrieve(draw.kernels, &scores, &counts, take, &store, &mut Scratch::default(), &mut prefixes);
    let fits = is_group(scores.len().checked_div(counts.len()).unwrap_or(0))
        && is_whole(scores.len(), counts.len())
        && tokens <= u64::from(u32::MAX);
    draw.hold(done, fits, prefixes == [7; 3]);
}

fn position(draw: &mut Draw<'_>) {
    let mut store = stores::filled(draw);
    let mut counts = Vec::new();
    store.counts(&mut counts).unwrap();
    let code = draw.below(counts.len());
    let number = draw.below(counts[code] as usize + 1);
    let (code, number) = (draw.number(code), draw.number(number));
    let is_there = counts.get(code).is_some_and(|&count| number < count as usize);
    assert_eq!(store.position(code, number).is_some(), is_there);
}
