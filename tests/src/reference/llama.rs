//! The whole model, from token ids to the logits of the last one: dense and causal, or one sparse decode
//! step.

use std::collections::HashMap;

use super::attention::{attend, causal};
use super::codebook::Codebook;
use super::elementwise::{rms_norm, rotate, silu_mul};
use super::estimate::{Context, attend_with_estimate};
use super::linear::{add_scaled, matmul, matvec};
use super::retrieval::retrieve;

/// The numbers of a model that its weights do not tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The number of transformer layers.
    pub layers: usize,
    /// The number of query heads.
    pub heads: usize,
    /// The number of kv heads; each serves heads / kv_heads query heads.
    pub kv_heads: usize,
    /// d, the length of one head vector.
    pub head_dim: usize,
    /// What RMSNorm adds to the mean square.
    pub rms_norm_eps: f64,
    /// The frequencies of the rotation, `[d/2]`, as [`super::rope::rope_frequencies`] gives them.
    pub frequencies: Vec<f64>,
}

impl Shape {
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// 1/√d.
    fn scale(&self) -> f64 {
        1.0 / (self.head_dim as f64).sqrt()
    }
}

/// How a sparse decode step retrieves (the symbols top_k, w, s and b of the specification).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sparse {
    /// The share of the cached tokens that each query head takes.
    pub retrieve: f64,
    /// How many of the last positions are always attended.
    pub window: usize,
    /// How many of the first positions are always attended.
    pub sinks: usize,
    /// The one position that every query is rotated to for scoring codewords.
    pub relative_position: usize,
    /// How what is not attended is estimated.
    pub estimate: Estimate,
}

/// With which scores codes are estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Estimate {
    /// They are not.
    None,
    /// Those at the relative position.
    Fixed,
    /// The average of those at all distances from the newest token to the ones that retrieval chooses from.
    Averaged,
}

/// What is cached of one kv head.
#[derive(Clone, Debug, Default)]
struct Cache {
    /// Rotated keys, `[L, d]`.
    keys: Vec<f64>,
    /// Values, `[L, d]`.
    values: Vec<f64>,
    /// The codes of the un-rotated keys, `[L]`; empty without codebooks.
    codes: Vec<usize>,
}

/// A model with the cache of one sequence.
#[derive(Clone, Debug)]
pub struct Llama {
    shape: Shape,
    weights: HashMap<String, Vec<f64>>,
    codebooks: Option<Vec<Vec<Codebook>>>,
    cache: Vec<Vec<Cache>>,
    length: usize,
    union_fractions: Vec<f64>,
}

impl Llama {
    /// A model with an empty cache.
    ///
    /// weights have the names of Hugging Face (`model.layers.0.self_attn.q_proj.weight`, ...), and shapes the
    /// shape of each: matrices are `[outputs, inputs]`, embeddings `[vocabulary, hidden]`. Biases of the
    /// projections are used where present; the logits use the embeddings where `lm_head.weight` is absent.
    /// codebooks, if any, are `[layers][kv_heads]`; without them no step can be sparse, and no codes are
    /// kept.
    pub fn new(
        shape: Shape,
        weights: HashMap<String, Vec<f64>>,
        shapes: &HashMap<String, Vec<usize>>,
        codebooks: Option<Vec<Vec<Codebook>>>,
    ) -> Self {
        check_weights(&shape, &weights, shapes);
        assert_eq!(shape.frequencies.len() * 2, shape.head_dim, "one frequency per pair of elements");
        if let Some(layers) = &codebooks {
            assert_eq!(layers.len(), shape.layers, "codebooks of every layer");
            for heads in layers {
                assert_eq!(heads.len(), shape.kv_heads, "codebooks of every kv head");
                let fits = |codebook: &Codebook| codebook.head_dim == shape.head_dim;
                assert!(heads.iter().all(fits), "codewords are as long as keys");
            }
        }
        let cache = vec![vec![Cache::default(); shape.kv_heads]; shape.layers];
        Self { shape, weights, codebooks, cache, length: 0, union_fractions: Vec::new() }
    }

    /// Runs ids, the first of them at position start (the number of tokens run so far), and returns the
    /// logits of the last, `[vocabulary]`.
    ///
    /// Without `sparse` attention is dense and causal; with it, ids is one token, and this is the decode step
    /// of the specification.
    pub fn forward(&mut self, ids: &[usize], start: usize, sparse: Option<Sparse>) -> Vec<f64> {
        assert!(!ids.is_empty(), "forward: at least one token");
        assert_eq!(start, self.length, "forward: tokens follow what is cached");
        assert!(sparse.is_none() || ids.len() == 1, "forward: a sparse step is one token");
        let embeddings = self.weight("model.embed_tokens.weight");
        let hidden = self.weight("model.norm.weight").len();
        let mut x: Vec<f64> =
            ids.iter().flat_map(|&id| &embeddings[id * hidden..(id + 1) * hidden]).copied().collect();
        self.length += ids.len();

        let mut picked_shares = Vec::new();
        for layer in 0..self.shape.layers {
            let normed = self.norm(&format!("model.layers.{layer}.input_layernorm"), &x);
            let attended = self.attention(layer, &normed, start, sparse, &mut picked_shares);
            add_scaled(&mut x, 1.0, &attended);
            let normed = self.norm(&format!("model.layers.{layer}.post_attention_layernorm"), &x);
            add_scaled(&mut x, 1.0, &self.mlp(layer, &normed, ids.len()));
        }
        if sparse.is_some() {
            self.union_fractions.push(picked_shares.iter().sum::<f64>() / picked_shares.len() as f64);
        }

        let last = self.norm("model.norm", &x[x.len() - hidden..]);
        let head = self
            .weights
            .get("lm_head.weight")
            .map_or(self.weight("model.embed_tokens.weight"), Vec::as_slice);
        matvec(head, head.len() / hidden, hidden, &last)
    }

    /// The codes of the cached keys of one kv head, `[L]`; empty without codebooks.
    pub fn codes(&self, layer: usize, kv_head: usize) -> &[usize] {
        &self.cache[layer][kv_head].codes
    }

    /// Per sparse step so far, the share of the cached tokens that top-k picked, before window and sinks are
    /// added: the mean over layers and kv heads.
    pub fn union_fractions(&self) -> &[f64] {
        &self.union_fractions
    }

    /// The attention of one layer over normed `[n, hidden]`, output projection included: `[n, hidden]`. A
    /// sparse step adds the share that each kv head picked to picked_shares.
    fn attention(
        &mut self,
        layer: usize,
        normed: &[f64],
        start: usize,
        sparse: Option<Sparse>,
        picked_shares: &mut Vec<f64>,
    ) -> Vec<f64> {
        let n = self.length - start;
        let (group, d) = (self.shape.group(), self.shape.head_dim);
        let project = |name| self.project(&format!("model.layers.{layer}.self_attn.{name}"), normed, n);
        let (queries, keys, values) = (project("q_proj"), project("k_proj"), project("v_proj"));

        let mut out = vec![0.0; queries.len()];
        for kv_head in 0..self.shape.kv_heads {
            let part = |xs| of_head(xs, n, kv_head, self.shape.kv_heads);
            let (queries, keys, values) = (part(&queries), part(&keys), part(&values));
            self.append(layer, kv_head, start, &keys, &values);
            let attended = if let Some(sparse) = sparse {
                let (attended, picked_share) = self.attend_sparse(layer, kv_head, &queries, sparse);
                picked_shares.push(picked_share);
                attended
            } else {
                let cache = &self.cache[layer][kv_head];
                let rotated = self.rotate_rows(&queries, group, start);
                causal(&rotated, group, &cache.keys, &cache.values, d, self.shape.scale(), start)
            };
            let rows = out.chunks_exact_mut(self.shape.heads * d);
            for (row, attended) in rows.zip(attended.chunks_exact(group * d)) {
                row[kv_head * group * d..][..group * d].copy_from_slice(attended);
            }
        }
        self.project(&format!("model.layers.{layer}.self_attn.o_proj"), &out, n)
    }

    /// Decode steps 2 to 4 for the newest token: queries `[G, d]`, not yet rotated, to the attention output
    /// `[G, d]` and the share of the cached tokens that the group picked.
    fn attend_sparse(
        &self,
        layer: usize,
        kv_head: usize,
        queries: &[f64],
        sparse: Sparse,
    ) -> (Vec<f64>, f64) {
        let codebook = &self.codebooks.as_ref().expect("a sparse step needs codebooks")[layer][kv_head];
        let cache = &self.cache[layer][kv_head];
        let (group, d) = (self.shape.group(), self.shape.head_dim);

        let scoring = self.rotate_rows(queries, group, sparse.relative_position);
        let scores: Vec<Vec<f64>> = scoring.chunks_exact(d).map(|q| codebook.scores(q)).collect();

        let (share, window, sinks) = (sparse.retrieve, sparse.window, sparse.sinks);
        let retrieved = retrieve(&scores, &cache.codes, self.length, share, window, sinks);
        let picked = retrieved.picked.iter().filter(|&&picked| picked).count();

        let rotated = self.rotate_rows(queries, group, self.length - 1);
        let (keys, values, attended, scale) =
            (&cache.keys, &cache.values, &retrieved.attended, self.shape.scale());
        let out = if sparse.estimate != Estimate::None {
            let first_of_window = self.length.saturating_sub(window);
            let always: Vec<bool> = (0..self.length).map(|at| at < sinks || at >= first_of_window).collect();
            let context = Context { keys, values, codes: &cache.codes, attended, always: &always };
            let scores = match sparse.estimate {
                Estimate::Averaged => self.averaged_scores(codebook, queries, window, sinks),
                _ => scores,
            };
            let heads = rotated.chunks_exact(d).zip(&scores);
            heads.flat_map(|(query, scores)| attend_with_estimate(&context, query, scores, scale)).collect()
        } else {
            attend(&rotated, keys, values, d, scale, attended)
        };
        (out, picked as f64 / self.length as f64)
    }

    /// Scores of the codes by query, averaged over the distances to tokens that are neither sinks nor in the window.
    fn averaged_scores(
        &self,
        codebook: &Codebook,
        queries: &[f64],
        window: usize,
        sinks: usize,
    ) -> Vec<Vec<f64>> {
        let (group, d) = (self.shape.group(), self.shape.head_dim);
        let distances: Vec<usize> =
            (sinks..self.length.saturating_sub(window)).map(|at| self.length - 1 - at).collect();
        let mut averages = vec![vec![0.0; codebook.codes]; group];
        for &distance in &distances {
            for (average, query) in
                averages.iter_mut().zip(self.rotate_rows(queries, group, distance).chunks_exact(d))
            {
                add_scaled(average, 1.0 / distances.len() as f64, &codebook.scores(query));
            }
        }
        averages
    }

    /// Decode step 1: appends keys, rotated to their positions from start on, values and the codes of the
    /// un-rotated keys to the cache of one kv head. keys and values are `[n, d]`.
    fn append(&mut self, layer: usize, kv_head: usize, start: usize, keys: &[f64], values: &[f64]) {
        let rotated = self.rotate_rows(keys, 1, start);
        let codes = self.codebooks.as_ref().map(|codebooks| codebooks[layer][kv_head].encode_all(keys));
        let cache = &mut self.cache[layer][kv_head];
        cache.keys.extend(rotated);
        cache.values.extend_from_slice(values);
        cache.codes.extend(codes.unwrap_or_default());
    }

    /// The gated MLP of one layer over normed `[n, hidden]`: `[n, hidden]`.
    fn mlp(&self, layer: usize, normed: &[f64], n: usize) -> Vec<f64> {
        let project = |name, x: &[f64]| self.project(&format!("model.layers.{layer}.mlp.{name}"), x, n);
        project("down_proj", &silu_mul(&project("gate_proj", normed), &project("up_proj", normed)))
    }

    /// RMSNorm of every row of x `[n, hidden]`.
    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.weight(&format!("{name}.weight"));
        x.chunks_exact(weight.len()).flat_map(|row| rms_norm(row, weight, self.shape.rms_norm_eps)).collect()
    }

    /// x `[n, inputs]` times a projection, its bias added if it has one: `[n, outputs]`.
    fn project(&self, name: &str, x: &[f64], n: usize) -> Vec<f64> {
        let weight = self.weight(&format!("{name}.weight"));
        let inputs = x.len() / n;
        let outputs = weight.len() / inputs;
        let mut out = matmul(weight, outputs, inputs, x, n);
        if let Some(bias) = self.weights.get(&format!("{name}.bias")) {
            for row in out.chunks_exact_mut(outputs) {
                add_scaled(row, 1.0, bias);
            }
        }
        out
    }

    /// Rotates xs `[n, heads, d]`, row i to position start + i.
    fn rotate_rows(&self, xs: &[f64], heads: usize, start: usize) -> Vec<f64> {
        let vectors = xs.chunks_exact(self.shape.head_dim).enumerate();
        vectors.flat_map(|(i, x)| rotate(x, (start + i / heads) as f64, &self.shape.frequencies)).collect()
    }

    fn weight(&self, name: &str) -> &[f64] {
        self.weights.get(name).unwrap_or_else(|| panic!("no weight {name}"))
    }
}

/// The part of xs `[n, kv_heads, width]` that belongs to one kv head: `[n, width]`.
fn of_head(xs: &[f64], n: usize, kv_head: usize, kv_heads: usize) -> Vec<f64> {
    let width = xs.len() / n / kv_heads;
    xs.chunks_exact(kv_heads * width).flat_map(|row| &row[kv_head * width..][..width]).copied().collect()
}

/// Panics unless every weight that the model needs is there, in the shape that it must have.
fn check_weights(shape: &Shape, weights: &HashMap<String, Vec<f64>>, shapes: &HashMap<String, Vec<usize>>) {
    let shape_of = |name: &str| shapes.get(name).unwrap_or_else(|| panic!("no shape of {name}")).as_slice();
    let check = |name: &str, want: &[usize]| {
        assert_eq!(shape_of(name), want, "the shape of {name}");
        let length = weights.get(name).unwrap_or_else(|| panic!("no weight {name}")).len();
        assert_eq!(length, want.iter().product::<usize>(), "the length of {name}");
    };
    assert!(shape.heads.is_multiple_of(shape.kv_heads), "every kv head serves as many query heads");
    let embeddings = shape_of("model.embed_tokens.weight");
    assert_eq!(embeddings.len(), 2, "embeddings are [vocabulary, hidden]");
    let hidden = embeddings[1];
    check("model.embed_tokens.weight", embeddings);
    check("model.norm.weight", &[hidden]);
    if weights.contains_key("lm_head.weight") {
        check("lm_head.weight", embeddings);
    }
    let (query, key) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    for layer in 0..shape.layers {
        let prefix = format!("model.layers.{layer}");
        let intermediate = shape_of(&format!("{prefix}.mlp.gate_proj.weight"))[0];
        check(&format!("{prefix}.input_layernorm.weight"), &[hidden]);
        check(&format!("{prefix}.post_attention_layernorm.weight"), &[hidden]);
        for (name, outputs, inputs) in [
            ("self_attn.q_proj", query, hidden),
            ("self_attn.k_proj", key, hidden),
            ("self_attn.v_proj", key, hidden),
            ("self_attn.o_proj", hidden, query),
            ("mlp.gate_proj", intermediate, hidden),
            ("mlp.up_proj", intermediate, hidden),
            ("mlp.down_proj", hidden, intermediate),
        ] {
            check(&format!("{prefix}.{name}.weight"), &[outputs, inputs]);
            let bias = format!("{prefix}.{name}.bias");
            if weights.contains_key(&bias) {
                check(&bias, &[outputs]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
