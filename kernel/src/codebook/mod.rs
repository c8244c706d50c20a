//! Key codewords of one kv head: scores of the group's queries, and the codes of keys.
//!
//! One table of codewords ĉ in key space serves two uses (paper, section 3.2; the factor L_H is the lower Cholesky
//! factor of the queries' second moment H):
//!
//! * `score_h(c) = q_h · ĉ_c` for the queries at the fixed relative position,
//! * `code(k) = argmax_c (k·H)·ĉ_c − ½‖ĉ_c·L_H‖²`, which is the nearest codeword of `k·L_H`, lowest code on ties.
//!
//! Both are G + 1 dot products with every codeword in one pass over the table, which is what a decode step pays for. The pass
//! splits over ranges of codes, best at multiples of 64, and sequences that share a codebook share it: a score has the same bits
//! alone and with others.
//!
//! | what | shape | dtype |
//! |---|---|---|
//! | codewords | `[codes, head_dim]`, 1..=65536 codes | f32 given; stored as f32, f16 or bf16 |
//! | queries at the relative position or averaged ones, of one sequence or of all that share the codebook | `[queries, head_dim]` | f32 |
//! | scores | `[queries, codes]` | f32 |
//! | keys, **not** rotated | `[n, head_dim]` | f32 |
//!
//! The table holds codewords less their mean μ. That shifts all scores of a query by the same q·μ and all candidates
//! for a key's code by the same amount, so no choice changes, and it takes the common part, which can be hundreds of
//! times larger than what tells codewords apart, out of every rounding. Scores are therefore **relative**: true
//! scores less q·μ, see [`Codebook::center`].
//!
//! How it is done: the table lies in panels of sixteen codewords, `[panels, head_dim, 16]`, so that a lane is a codeword and
//! nothing is added up across lanes (`microkernel/panel.rs`).
//!
//! Tolerance: scores within 1e-5 of ‖q‖·‖ĉ − μ‖ (1e-4 with BF16 instructions); codes differ from an f64 evaluation
//! only where the two distances differ by less than rounding.

mod best;
mod encode;
mod probe;
mod probes;
mod scores;
mod table;

pub use best::BestCode;
pub(crate) use encode::encode;
pub use probes::Probes;
pub(crate) use probes::prepare;
pub(crate) use scores::scores;
use table::PackedTable;

use crate::{
    dtype::{Dtype, Elements},
    error::{Error, Result, expect_len},
    shape::{check_codes, check_head_dim},
    simd::MAX_LANES,
};
use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

/// The codewords of one kv head of one layer, with what it takes to find the code of a key.
#[derive(Debug, Clone)]
pub struct Codebook {
    /// Tells it and its clones from others: keys are packed for one codebook.
    identity: u64,
    head_dim: usize,
    codes: usize,
    /// The factor's rows as [`Self::factor_rows`] finds them; ½‖(ĉ − μ)·L_H‖² of each codeword as stored, `[codes]`; the
    /// codewords in panels, less the mean.
    table: PackedTable,
    /// `[head_dim]`: the mean of the codewords.
    center: Vec<f32>,
}

impl Codebook {
    /// Takes `codewords` in key space, `[codes, head_dim]`, and the lower triangular factor `cholesky`,
    /// `[head_dim, head_dim]`; stores the table in `dtype`.
    ///
    /// # Errors
    /// For shapes that do not fit, more than 65536 codewords, numbers that are not finite, and if memory runs out.
    pub fn new(codewords: &[f32], cholesky: &[f32], head_dim: usize, dtype: Dtype) -> Result<Self> {
        check_head_dim(head_dim)?;
        let codes = codewords.len() / head_dim;
        check_codes(codes)?;
        expect_len("codewords", codewords.len(), codes * head_dim)?;
        expect_len("cholesky factor", cholesky.len(), head_dim * head_dim)?;
        if let Some(bad) = codewords.iter().chain(cholesky).find(|x| !x.is_finite()) {
            let got = bad.to_string();
            return Err(Error::Unsupported {
                what: "a number of the codebook",
                got,
                supported: "finite numbers",
            });
        }
        let above_diagonal = |(i, row): (usize, &[f32])| row[i + 1..].iter().any(|&x| x != 0.0);
        if cholesky.chunks_exact(head_dim).enumerate().any(above_diagonal) {
            let got = "not lower triangular".to_owned();
            let supported = "lower triangular factors L with H = L·Lᵀ";
            return Err(Error::Unsupported { what: "the cholesky factor", got, supported });
        }
        let center = mean(codewords, head_dim);
        let centered: Vec<f32> =
            codewords.iter().zip(center.iter().cycle()).map(|(x, mean)| x - mean).collect();
        let rows = cholesky.chunks_exact(head_dim).enumerate();
        let factor: Vec<f32> =
            rows.flat_map(|(i, row)| &row[..factor_row_len(i, head_dim)]).copied().collect();
        let norms = |rounded: &[f32]| half_norms(rounded, cholesky, head_dim);
        let table = PackedTable::new(dtype, &factor, &centered, head_dim, norms)?;
        let within = |x: &f32| x.abs() <= dtype.largest();
        if let Some(bad) = table.half_norms().iter().find(|x| !x.is_finite()) {
            let (what, got) = ("a codeword's norm in the metric of the factor", bad.to_string());
            return Err(Error::Unsupported { what, got, supported: "finite numbers" });
        }
        if !centered.iter().all(within) {
            let got = format!("too large for {dtype}");
            let supported =
                "numbers within the range of the storage type; f32 and bf16 reach further than f16";
            return Err(Error::Unsupported { what: "a codeword", got, supported });
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let identity = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { identity, head_dim, codes, table, center })
    }

    /// Moves the tables of some codebooks into one piece of memory, which lies on huge pages where the system has them: a
    /// codebook of its own is too small for one, and with small pages scores took a fifth longer on a virtual machine. For
    /// the kv heads of a layer, say.
    ///
    /// # Errors
    /// [`Error::Memory`] if memory runs out; the codebooks are as before then.
    pub fn gather<'b>(books: impl IntoIterator<Item = &'b mut Self>) -> Result<()> {
        PackedTable::gather(&mut books.into_iter().map(|book| &mut book.table).collect::<Vec<_>>())
    }

    /// How many codewords there are.
    pub const fn codes(&self) -> usize {
        self.codes
    }

    /// Dimension of a codeword.
    pub const fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Storage type of the table.
    pub fn dtype(&self) -> Dtype {
        self.table().dtype()
    }

    /// Bytes that one pass of scores reads.
    pub fn table_bytes(&self) -> usize {
        self.table().len() * self.dtype().size()
    }

    /// The mean μ of the codewords, `[head_dim]`: a score from here plus q·μ is the true score.
    pub fn center(&self) -> &[f32] {
        &self.center
    }

    /// The codewords, in panels.
    pub(crate) fn table(&self) -> Elements<'_> {
        self.table.codewords()
    }

    /// The rows of the factor as far as they are kept: each a whole number of registers of any instruction set, or all of head_dim.
    #[inline(always)]
    fn factor_rows(&self) -> impl Iterator<Item = &[f32]> {
        let mut rest = self.table.factor();
        (0..self.head_dim).map(
            #[inline(always)]
            move |i| {
                let (row, others) = rest.split_at(factor_row_len(i, self.head_dim));
                rest = others;
                row
            },
        )
    }

    /// Checks queries and keys of a pass.
    pub(crate) fn check_prepare(&self, queries: &[f32], keys: &[f32]) -> Result<()> {
        let d = self.head_dim;
        expect_len("queries", queries.len(), queries.len() / d * d)?;
        expect_len("newest keys", keys.len(), keys.len() / d * d)
    }

    /// Checks a pass over some codes.
    pub(crate) fn check_scores(
        &self,
        backend: &str,
        probes: &Probes,
        codes: &Range<usize>,
        scores: &[f32],
        best: &[BestCode],
    ) -> Result<()> {
        if !probes.fit(backend, self) {
            let (what, got) = ("probes", "made by another backend or for another codebook".to_owned());
            return Err(Error::Unsupported {
                what,
                got,
                supported: "those made by the same backend for this codebook",
            });
        }
        if codes.start > codes.end || codes.end > self.codes {
            let need = format!("{codes:?} is no range of the {} codes", self.codes);
            return Err(Error::Position { position: codes.end, need });
        }
        expect_len("scores", scores.len(), probes.queries() * codes.len())?;
        expect_len("best codes", best.len(), probes.keys())
    }

    pub(crate) fn check_encode(&self, keys: &[f32], codes: &[u16]) -> Result<()> {
        expect_len("keys", keys.len(), codes.len() * self.head_dim)
    }
}

/// How much of row `i` of the triangle is kept: what lies above the diagonal is zero.
#[inline(always)]
fn factor_row_len(i: usize, head_dim: usize) -> usize {
    (i + 1).next_multiple_of(MAX_LANES).min(head_dim)
}

fn mean(codewords: &[f32], head_dim: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f64; head_dim];
    for codeword in codewords.chunks_exact(head_dim) {
        for (sum, &x) in sum.iter_mut().zip(codeword) {
            *sum += f64::from(x);
        }
    }
    let codes = (codewords.len() / head_dim) as f64;
    sum.into_iter().map(|sum| (sum / codes) as f32).collect()
}

/// ½‖ĉ·L‖² of each codeword, in f64.
fn half_norms(codewords: &[f32], cholesky: &[f32], head_dim: usize) -> Vec<f32> {
    let mut image = vec![0.0_f64; head_dim];
    let half_norm = |codeword: &[f32]| {
        image.fill(0.0);
        for (i, (&x, row)) in codeword.iter().zip(cholesky.chunks_exact(head_dim)).enumerate() {
            for (image, &l) in image.iter_mut().zip(&row[..=i]) {
                *image += f64::from(x) * f64::from(l);
            }
        }
        (0.5 * image.iter().map(|x| x * x).sum::<f64>()) as f32
    };
    codewords.chunks_exact(head_dim).map(half_norm).collect()
}
