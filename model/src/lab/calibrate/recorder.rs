//! What is kept of the projections while text goes through the model.

use super::{
    Settings,
    keys::{Documents, Keys},
    moments,
};
use crate::{
    error::{Error, Result},
    linear::transpose,
    model::Model,
    observer::Observer,
};
use a2ats_kernel::{
    Elements,
    elementwise::Rotation,
    linear::{Inputs, Matrix, Purpose, Vectors},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tokens kept apart whose queries measure the quality.
pub(super) const PROBES: usize = 64;

/// One kv head's sums.
#[derive(Debug, Clone)]
pub(super) struct HeadSums {
    /// Σ qᵀq, `[head_dim, head_dim]`.
    pub(super) moment: Vec<f64>,
    /// Queries at the relative position of tokens kept apart, `[probes, group, head_dim]`.
    pub(super) probes: Vec<f32>,
    /// Tokens of the document that were seen.
    seen: usize,
}

impl HeadSums {
    pub(super) fn new(moment: Vec<f64>, probes: Vec<f32>) -> Self {
        Self { moment, probes, seen: 0 }
    }
}

/// Looks at the projections of one document after the other.
pub(super) struct Recorder<'a> {
    pub(super) model: &'a Model,
    pub(super) settings: &'a Settings,
    pub(super) documents: &'a Documents,
    pub(super) keys: &'a Keys,
    pub(super) relative: Rotation,
    /// `[layers, kv_heads]`
    pub(super) heads: Vec<Mutex<HeadSums>>,
    /// The document that is read.
    pub(super) document: usize,
}

impl Recorder<'_> {
    /// Goes on to a document.
    pub(super) fn begin(&mut self, document: usize) {
        self.document = document;
        for head in &mut self.heads {
            head.get_mut().unwrap_or_else(PoisonError::into_inner).seen = 0;
        }
    }

    /// Adds Σ qᵀq of `queries`, `[m, d]`, in products of f32: a chunk has some ten thousand terms, of one size.
    fn add_moment(&self, moment: &mut [f64], queries: &[f32]) -> Result<()> {
        let d = self.model.spec.head_dim;
        let count = queries.len() / d;
        if count == 0 {
            return Ok(());
        }
        let columns = transpose(queries, count, d);
        let kernels = self.model.kernels;
        let matrix = Matrix::new(Elements::F32(&columns), d, count)?;
        let (mut inputs, mut products) = (Inputs::default(), vec![0.0; d * d]);
        kernels.prepare(Vectors::Rows(&columns), Purpose::new(&matrix, d), &mut inputs)?;
        kernels.product(matrix, &inputs, &mut products)?;
        moments::add(moment, &products);
        Ok(())
    }

    /// Keeps the queries of some of the tokens kept apart, evenly.
    fn add_probes(&self, head: &mut HeadSums, first: usize, queries: &[f32]) {
        let width = self.model.spec.group() * self.model.spec.head_dim;
        let stride = self.documents.held_out().div_ceil(PROBES).max(1);
        for (token, queries) in (first..).zip(queries.chunks_exact(width)) {
            if token.is_multiple_of(stride) && head.probes.len() < PROBES * width {
                head.probes.extend_from_slice(queries);
            }
        }
    }
}

impl Observer for Recorder<'_> {
    fn projected(
        &self,
        layer: usize,
        kv_head: usize,
        queries: &[f32],
        keys: &[f32],
        _values: &[f32],
    ) -> Result<()> {
        if !self.settings.layers.contains(&layer) {
            return Ok(());
        }
        if !queries.iter().chain(keys).all(|x| x.is_finite()) {
            return Err(Error::Numerics(format!(
                "layer {layer}, kv head {kv_head}: a key or query is not a finite number; the weights contain NaN or overflow: \
                 use an undamaged checkpoint"
            )));
        }
        let spec = &self.model.spec;
        let number = self.settings.number_of(spec.num_key_value_heads, layer, kv_head);
        let mut head = lock(&self.heads[number]);
        let (from, count) = (head.seen, keys.len() / spec.head_dim);
        head.seen += count;
        self.keys.put(number, self.documents.start(self.document) + from, keys)?;
        let mut windowed = queries.to_vec();
        self.model.kernels.rotate(&mut windowed, &self.relative)?;
        let kept = self.documents.kept_of(self.document);
        let cut = kept.clamp(from, from + count) - from;
        let (of_kept, of_held_out) = windowed.split_at(cut * spec.group() * spec.head_dim);
        self.add_moment(&mut head.moment, of_kept)?;
        // Numbered over all documents.
        let before: usize = (0..self.document).map(|document| self.documents.held_out_of(document)).sum();
        self.add_probes(&mut head, before + (from + cut).saturating_sub(kept), of_held_out);
        Ok(())
    }
}

/// A lock whose other holders' panics are of no concern.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
