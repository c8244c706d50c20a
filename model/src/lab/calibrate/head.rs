//! One kv head: from its keys and its queries' moment to its codewords.

use super::{
    HeadReport, Settings, moments,
    quality::{self, HeldOut},
    reading::Recorded,
    work::Work,
};
use crate::{
    codebooks::solve::solve_rows,
    codebooks::write::{Tensor, write},
    error::{Error, Result},
    linear::transpose,
    model::Model,
};
use a2ats_kernel::{
    Codebook, Dtype, Elements, Kernels,
    clustering::{self, Clusterer, Clustering, Points},
    linear::{Inputs, Matrix, Purpose, Vectors},
};
use rayon::prelude::*;
use std::{collections::BTreeMap, ops::ControlFlow};

/// Tokens whose keys are brought into the factor's space together.
const PIECE: usize = 512;

/// A head that is to be finished.
pub(super) struct Head<'a> {
    pub(super) model: &'a Model,
    pub(super) settings: &'a Settings,
    pub(super) work: &'a Work,
    pub(super) recorded: &'a Recorded,
    pub(super) layer: usize,
    pub(super) kv_head: usize,
}

impl Head<'_> {
    /// Makes the codewords and keeps them, or finds them made already. Nothing if `keep_on` breaks off.
    pub(super) fn finish(
        &self,
        clusterer: &dyn Clusterer,
        keep_on: &mut dyn FnMut(clustering::Progress) -> ControlFlow<()>,
    ) -> Result<Option<HeadReport>> {
        if self.work.head_file(self.layer, self.kv_head).exists() {
            return self.work.head(self.layer, self.kv_head)?.report().map(Some);
        }
        let d = self.model.spec.head_dim;
        let number = self.number();
        let factor = moments::factor(&self.recorded.heads[number].moment, d).ok_or_else(|| {
            Error::Numerics(format!(
                "layer {}, kv head {}: the queries' second moment has no Cholesky factor; its numbers are out of range",
                self.layer, self.kv_head
            ))
        })?;
        let narrow: Vec<f32> = factor.iter().map(|&x| x as f32).collect();
        let keys = self.work.keys.get(number, &self.recorded.documents.ranges(false))?;
        let images = to_factor_space(self.model.kernels, &keys, &narrow, d)?;
        drop(keys);
        let settings = clustering::Settings {
            clusters: self.settings.codewords,
            iterations: self.settings.iterations,
            seed: self.seed(),
            ..clustering::Settings::default()
        };
        let points = Points::new(&images, d, None)?;
        let Some(found) = clusterer.cluster(&points, &settings, keep_on)? else { return Ok(None) };
        let codewords = solve_rows(&factor, d, &found.centroids);
        let report = self.report(&found, points.count(), &codewords, &narrow)?;
        self.keep(&report, &codewords, &narrow)?;
        Ok(Some(report))
    }

    /// Among the heads of the layers asked for.
    fn number(&self) -> usize {
        self.settings.number_of(self.model.spec.num_key_value_heads, self.layer, self.kv_head)
    }

    /// The same for a head whichever layers are asked for.
    fn seed(&self) -> u64 {
        let head = (self.layer * self.model.spec.num_key_value_heads + self.kv_head) as u64;
        self.settings.seed.wrapping_add(head.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn report(
        &self,
        found: &Clustering,
        points: usize,
        codewords: &[f32],
        factor: &[f32],
    ) -> Result<HeadReport> {
        let d = self.model.spec.head_dim;
        let mut sizes = vec![0; self.settings.codewords];
        for &label in &found.labels {
            sizes[label as usize] += 1;
        }
        let number = self.number();
        let held_out = HeldOut {
            keys: self.work.keys.get(number, &self.recorded.documents.ranges(true))?,
            queries: &self.recorded.heads[number].probes,
        };
        let book = Codebook::new(codewords, factor, d, Dtype::F32)?;
        Ok(HeadReport {
            layer: self.layer,
            kv_head: self.kv_head,
            mean_squared_error: found.objective / points as f64,
            iterations: found.iterations,
            converged: found.converged,
            quality: quality::measure(self.model.kernels, &book, codewords, &held_out, &sizes)?,
        })
    }

    fn keep(&self, report: &HeadReport, codewords: &[f32], factor: &[f32]) -> Result<()> {
        let d = self.model.spec.head_dim;
        let path = self.work.head_file(self.layer, self.kv_head);
        let tensors = [
            Tensor::f32("codewords", vec![self.settings.codewords, d], vec![codewords]),
            Tensor::f32("cholesky", vec![d, d], vec![factor]),
        ];
        let report = serde_json::to_string(report).map_err(|error| Error::io(&path)(error.into()))?;
        write(&path, &BTreeMap::from([("report".to_owned(), report)]), &tensors)
    }
}

/// k·L for each row k of `[n, d]`.
fn to_factor_space(kernels: &dyn Kernels, keys: &[f32], factor: &[f32], d: usize) -> Result<Vec<f32>> {
    let columns = transpose(factor, d, d);
    let mut images = vec![0.0; keys.len()];
    let pieces = images.par_chunks_mut(PIECE * d).zip(keys.par_chunks(PIECE * d));
    pieces.try_for_each(|(images, keys)| {
        let count = keys.len() / d;
        let matrix = Matrix::new(Elements::F32(&columns), d, d)?;
        let (mut inputs, mut products) = (Inputs::default(), vec![0.0; keys.len()]);
        kernels.prepare(Vectors::Rows(keys), Purpose::new(&matrix, count), &mut inputs)?;
        kernels.product(matrix, &inputs, &mut products)?;
        images.copy_from_slice(&transpose(&products, d, count));
        Ok::<_, Error>(())
    })?;
    Ok(images)
}
