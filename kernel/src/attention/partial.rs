//! What is left of attention over a part of the rows, and how parts become a whole.

use crate::error::{Result, expect_len};

/// Attention of some queries over some of the rows, not yet divided by the softmax's denominator.
///
/// Per query: the largest score, the sum of e^(score − largest), and the sum of values with those weights. Partials
/// over disjoint parts of the rows merge to the partial over all of them; f32 rounding depends on how the rows were
/// divided, not on who computed the parts or when, as long as they are merged in the same order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Partial {
    pub(crate) head_dim: usize,
    /// `[queries]`; −inf where no row was attended.
    pub(crate) largest: Vec<f32>,
    /// `[queries]`
    pub(crate) sum: Vec<f32>,
    /// `[queries, head_dim]`
    pub(crate) values: Vec<f32>,
}

impl Partial {
    /// Empties it for `queries` vectors of `head_dim`, keeping its memory.
    pub(crate) fn reset(&mut self, queries: usize, head_dim: usize) {
        self.head_dim = head_dim;
        self.largest.clear();
        self.largest.resize(queries, f32::NEG_INFINITY);
        self.sum.clear();
        self.sum.resize(queries, 0.0);
        self.values.clear();
        self.values.resize(queries * head_dim, 0.0);
    }

    /// Takes in the attention of the same queries over other rows.
    ///
    /// # Errors
    /// If the two are not about the same number of queries of the same dimension.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        expect_len("partial", other.largest.len(), self.largest.len())?;
        expect_len("partial's values", other.values.len(), self.values.len())?;
        self.merge_same(other);
        Ok(())
    }

    /// Merges partials that are known to be about the same queries.
    pub(crate) fn merge_same(&mut self, other: &Self) {
        for query in 0..self.largest.len() {
            let (mine, theirs) = (self.largest[query], other.largest[query]);
            if theirs == f32::NEG_INFINITY {
                continue;
            }
            let largest = mine.max(theirs);
            let (keep, take) = ((mine - largest).exp(), (theirs - largest).exp());
            self.largest[query] = largest;
            self.sum[query] = self.sum[query] * keep + other.sum[query] * take;
            let range = query * self.head_dim..(query + 1) * self.head_dim;
            for (to, from) in self.values[range.clone()].iter_mut().zip(&other.values[range]) {
                *to = *to * keep + from * take;
            }
        }
    }

    /// The attention output, `[queries, head_dim]`; zeros for a query that attended to nothing.
    ///
    /// # Errors
    /// If `out` has another length.
    pub fn finish(&self, out: &mut [f32]) -> Result<()> {
        expect_len("attention output", out.len(), self.values.len())?;
        self.write_output(out);
        Ok(())
    }

    pub(crate) fn write_output(&self, out: &mut [f32]) {
        if self.head_dim == 0 {
            return;
        }
        let queries = out.chunks_exact_mut(self.head_dim).zip(self.values.chunks_exact(self.head_dim));
        for ((out, values), &sum) in queries.zip(&self.sum) {
            let factor = if sum > 0.0 { 1.0 / sum } else { 0.0 };
            for (to, from) in out.iter_mut().zip(values) {
                *to = from * factor;
            }
        }
    }
}
