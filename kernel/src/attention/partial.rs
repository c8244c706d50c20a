//! What is left of attention over a part of the rows, and how parts become a whole.

use crate::{
    error::{Result, expect_len},
    microkernel::block::BLOCK,
};

/// How many of `rows` rows a segment has. Attention keeps what it sums up over each segment apart until partials are merged, one segment
/// after the other: so rows are cut between any two segments for as many threads as there are, and the numbers are the same.
///
/// There are up to sixteen segments, of 1024 rows at least: eight kv heads are work for 64 threads from 8192 rows on. (Segments of 512 rows,
/// however many, took dense decode 10% longer.)
pub fn segment_rows(rows: usize) -> usize {
    let segments = (rows / 1024).clamp(1, 16);
    rows.div_ceil(segments).next_multiple_of(BLOCK).max(BLOCK)
}

/// Attention of some queries over some of the rows, not yet divided by the softmax's denominator.
///
/// Per query: the largest score, the sum of e^(score − largest), and the sum of values with those weights, of each segment of rows.
/// Partials over disjoint parts of the rows merge to the partial over all of them. Where the parts begin at multiples of [`segment_rows`]
/// and are merged in order, the bits are those of one partial over all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Partial {
    pub(crate) head_dim: usize,
    queries: usize,
    /// `[segments, queries]`; −inf where no row was attended.
    largest: Vec<f32>,
    /// `[segments, queries]`
    sum: Vec<f32>,
    /// `[segments, queries, head_dim]`
    values: Vec<f32>,
}

/// A segment of a partial.
pub(crate) struct Segment<'a> {
    /// `[queries]`
    pub(crate) largest: &'a mut [f32],
    /// `[queries]`
    pub(crate) sum: &'a mut [f32],
    /// `[queries, head_dim]`
    pub(crate) values: &'a mut [f32],
}

impl Partial {
    /// Empties it for `queries` vectors of `head_dim` and so many segments, one at least, keeping its memory.
    pub(crate) fn reset(&mut self, queries: usize, head_dim: usize, segments: usize) {
        (self.queries, self.head_dim) = (queries, head_dim);
        self.largest.clear();
        self.largest.resize(segments * queries, f32::NEG_INFINITY);
        self.sum.clear();
        self.sum.resize(segments * queries, 0.0);
        self.values.clear();
        self.values.resize(segments * queries * head_dim, 0.0);
    }

    /// Segment `number`.
    #[inline(always)]
    pub(crate) fn segment(&mut self, number: usize) -> Segment<'_> {
        let (n, of_values) = (self.queries, self.queries * self.head_dim);
        Segment {
            largest: &mut self.largest[number * n..][..n],
            sum: &mut self.sum[number * n..][..n],
            values: &mut self.values[number * of_values..][..of_values],
        }
    }

    /// Takes in the attention of the same queries over other rows.
    ///
    /// # Errors
    /// If the two are not about the same number of queries of the same dimension.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        expect_len("partial", other.queries, self.queries)?;
        expect_len("head_dim of the partial", other.head_dim, self.head_dim)?;
        self.merge_same(other);
        Ok(())
    }

    /// Merges partials that are known to be about the same queries.
    pub(crate) fn merge_same(&mut self, other: &Self) {
        self.merge_segments();
        if self.queries * self.head_dim > 0 {
            self.segment(0).merge_all(&other.largest, &other.sum, &other.values);
        }
    }

    /// Makes one segment of all.
    fn merge_segments(&mut self) {
        let (n, of_values) = (self.queries, self.queries * self.head_dim);
        if self.largest.len() == n || of_values == 0 {
            return;
        }
        let (largest, other_largest) = self.largest.split_at_mut(n);
        let (sum, other_sum) = self.sum.split_at_mut(n);
        let (values, other_values) = self.values.split_at_mut(of_values);
        Segment { largest, sum, values }.merge_all(other_largest, other_sum, other_values);
        self.largest.truncate(n);
        self.sum.truncate(n);
        self.values.truncate(of_values);
    }

    /// The attention output, `[queries, head_dim]`; zeros for a query that attended to nothing.
    ///
    /// # Errors
    /// If `out` has another length.
    pub fn finish(&self, out: &mut [f32]) -> Result<()> {
        expect_len("attention output", out.len(), self.queries * self.head_dim)?;
        self.write_output(out);
        Ok(())
    }

    pub(crate) fn write_output(&self, out: &mut [f32]) {
        if self.head_dim == 0 {
            return;
        }
        for (query, out) in out.chunks_exact_mut(self.head_dim).enumerate() {
            let (mut largest, mut sum) = (f32::NEG_INFINITY, 0.0);
            out.fill(0.0);
            for at in (query..self.largest.len()).step_by(self.queries) {
                let values = &self.values[at * self.head_dim..][..self.head_dim];
                merge_query((&mut largest, &mut sum, out), (self.largest[at], self.sum[at], values));
            }
            let factor = if sum > 0.0 { 1.0 / sum } else { 0.0 };
            out.iter_mut().for_each(|x| *x *= factor);
        }
    }
}

impl Segment<'_> {
    /// Takes in others of the same queries, one after the other.
    fn merge_all(self, largest: &[f32], sum: &[f32], values: &[f32]) {
        let Segment { largest: mine, sum: my_sum, values: my_values } = self;
        let (n, head_dim) = (mine.len(), my_values.len() / mine.len());
        let others = largest.iter().zip(sum).zip(values.chunks_exact(head_dim));
        for (at, ((&largest, &sum), values)) in others.enumerate() {
            let (query, to) = (at % n, &mut my_values[at % n * head_dim..][..head_dim]);
            merge_query((&mut mine[query], &mut my_sum[query], to), (largest, sum, values));
        }
    }
}

/// Takes a query's largest score, sum and values over some rows into those over others.
fn merge_query(
    (largest, sum, values): (&mut f32, &mut f32, &mut [f32]),
    (their_largest, their_sum, theirs): (f32, f32, &[f32]),
) {
    if their_largest == f32::NEG_INFINITY {
        return;
    }
    let both = largest.max(their_largest);
    let (keep, take) = ((*largest - both).exp(), (their_largest - both).exp());
    *largest = both;
    *sum = *sum * keep + their_sum * take;
    for (to, from) in values.iter_mut().zip(theirs) {
        *to = *to * keep + from * take;
    }
}
