//! The kernels called with fresh working memory, for tests that look at results alone.

use a2ats_kernel::{
    Codebook, Kernels, Result,
    attention::{self, Partial},
    codebook::{BestCode, Probes},
    rows::{Rows, Run, Runs},
};

/// Scores of all codewords, `[queries, codes]`, and the codes of some newest keys.
///
/// # Errors
/// As the kernels.
pub fn scores(
    kernels: &dyn Kernels,
    book: &Codebook,
    queries: &[f32],
    keys: &[f32],
) -> Result<(Vec<f32>, Vec<u16>)> {
    let mut scores = vec![f32::NAN; queries.len() / book.head_dim() * book.codes()];
    let codes = scores_into(kernels, book, queries, keys, &mut scores)?;
    Ok((scores, codes))
}

/// The same into memory of the caller's.
///
/// # Errors
/// As the kernels.
pub fn scores_into(
    kernels: &dyn Kernels,
    book: &Codebook,
    queries: &[f32],
    keys: &[f32],
    scores: &mut [f32],
) -> Result<Vec<u16>> {
    let mut probes = Probes::default();
    let mut best = vec![BestCode::default(); keys.len() / book.head_dim()];
    kernels.prepare_probes(book, queries, keys, &mut probes)?;
    kernels.codeword_scores(book, &probes, 0..book.codes(), scores, &mut best)?;
    Ok(best.into_iter().map(BestCode::code).collect())
}

/// Attention over some rows of an area.
///
/// # Errors
/// As the kernels.
pub fn attend(
    kernels: &dyn Kernels,
    rows: Rows<'_>,
    runs: &[Run],
    queries: &[f32],
    scale: f32,
) -> Result<Partial> {
    let (areas, mut out) = ([rows], Partial::default());
    let runs = Runs::new(&areas, runs)?;
    kernels.attend(&runs, 0..runs.len(), queries, scale, &mut attention::Scratch::default(), &mut out)?;
    Ok(out)
}

/// Single rows as runs, in the order given; neighbours become one.
pub fn runs_of(rows: &[u32]) -> Vec<Run> {
    let pieces = rows.chunk_by(|a, b| a + 1 == *b);
    pieces.map(|piece| Run::new(0, piece[0] as usize..piece[0] as usize + piece.len())).collect()
}
