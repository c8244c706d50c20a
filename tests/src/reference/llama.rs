//! The whole model, from token ids to the logits of the last one: dense and causal, or one sparse decode
//! step.

use std::collections::HashMap;

use super::attention::{attend, causal};
use super::codebook::Codebook;
use super::elementwise::{rms_norm, rotate, silu_mul};
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
        let out = attend(&rotated, &cache.keys, &cache.values, d, self.shape.scale(), &retrieved.attended);
        (out, picked as f64 / self.length as f64)
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
mod tests {
    use std::f64::consts::{LN_2, SQRT_2};

    use super::super::relative_error;
    use super::super::rope::{Scaling, rope_frequencies};
    use super::{Codebook, HashMap, Llama, Shape, Sparse};

    /// Two query heads of two elements, on one kv head unless a test says otherwise, hidden size 2, three
    /// tokens. Every projection is zero until a test sets it, in the last layer; eps is 0 and all norm
    /// weights are 1.
    struct Tiny {
        layers: usize,
        weights: HashMap<String, Vec<f64>>,
        shapes: HashMap<String, Vec<usize>>,
    }

    impl Tiny {
        fn new() -> Self {
            Self::with_layers(1)
        }

        fn with_layers(layers: usize) -> Self {
            let mut tiny = Self { layers: 0, weights: HashMap::new(), shapes: HashMap::new() };
            tiny.set("model.embed_tokens.weight", &[3, 2], &[1.0, 1.0, 1.0, -1.0, 2.0, 2.0]);
            tiny.set("model.norm.weight", &[2], &[1.0, 1.0]);
            for _ in 0..layers {
                tiny.layers += 1;
                tiny.layer("input_layernorm.weight", &[2], &[1.0, 1.0]);
                tiny.layer("post_attention_layernorm.weight", &[2], &[1.0, 1.0]);
                tiny.layer("self_attn.q_proj.weight", &[4, 2], &[0.0; 8]);
                tiny.layer("self_attn.k_proj.weight", &[2, 2], &[0.0; 4]);
                tiny.layer("self_attn.v_proj.weight", &[2, 2], &[0.0; 4]);
                tiny.layer("self_attn.o_proj.weight", &[2, 4], &[0.0; 8]);
                tiny.layer("mlp.gate_proj.weight", &[1, 2], &[0.0; 2]);
                tiny.layer("mlp.up_proj.weight", &[1, 2], &[0.0; 2]);
                tiny.layer("mlp.down_proj.weight", &[2, 1], &[0.0; 2]);
            }
            tiny
        }

        /// Values pass through attention: v = normed, and the output is head 0's value once, head 1's twice.
        fn with_attention(layers: usize) -> Self {
            let mut tiny = Self::with_layers(layers);
            tiny.layer("self_attn.v_proj.weight", &[2, 2], &[1.0, 0.0, 0.0, 1.0]);
            tiny.layer("self_attn.o_proj.weight", &[2, 4], &[1.0, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 2.0]);
            tiny
        }

        /// Everything that a forward pass uses, away from zero.
        fn busy() -> Self {
            let mut tiny = Self::with_attention(1);
            tiny.layer("self_attn.q_proj.weight", &[4, 2], &[1.0, 0.5, -0.3, 2.0, 0.7, -1.0, 0.2, 0.9]);
            tiny.layer("self_attn.k_proj.weight", &[2, 2], &[0.4, -1.1, 1.5, 0.6]);
            tiny.layer("mlp.gate_proj.weight", &[1, 2], &[0.8, -0.6]);
            tiny.layer("mlp.up_proj.weight", &[1, 2], &[1.0, 0.3]);
            tiny.layer("mlp.down_proj.weight", &[2, 1], &[0.5, -0.9]);
            tiny
        }

        fn set(&mut self, name: &str, shape: &[usize], values: &[f64]) {
            self.weights.insert(name.to_owned(), values.to_vec());
            self.shapes.insert(name.to_owned(), shape.to_vec());
        }

        fn layer(&mut self, name: &str, shape: &[usize], values: &[f64]) {
            self.set(&format!("model.layers.{}.{name}", self.layers - 1), shape, values);
        }

        /// The codewords are (0.5, 0.5) and (-0.5, 1.5), in the other order where layer + kv head is odd.
        fn build(self) -> Llama {
            let layers = self.layers;
            let kv_heads = self.shapes["model.layers.0.self_attn.k_proj.weight"][0] / 2;
            let frequencies = rope_frequencies(10_000.0, 2, &Scaling::None);
            let shape = Shape { layers, heads: 2, kv_heads, head_dim: 2, rms_norm_eps: 0.0, frequencies };
            let codebook = |odd| {
                let codewords = if odd { [-0.5, 1.5, 0.5, 0.5] } else { [0.5, 0.5, -0.5, 1.5] };
                let cholesky = vec![1.0, 0.0, 0.0, 1.0];
                Codebook { codes: 2, head_dim: 2, codewords: codewords.to_vec(), cholesky }
            };
            let of_layer =
                |layer| (0..kv_heads).map(|kv_head| codebook((layer + kv_head) % 2 == 1)).collect();
            Llama::new(shape, self.weights, &self.shapes, Some((0..layers).map(of_layer).collect()))
        }
    }

    fn sparse(retrieve: f64, window: usize, sinks: usize) -> Option<Sparse> {
        Some(Sparse { retrieve, window, sinks, relative_position: 2048 })
    }

    fn assert_close(got: &[f64], want: &[f64]) {
        let error = relative_error(got, want);
        assert!(error <= 1e-13, "got {got:?}, want {want:?}");
    }

    #[test]
    fn without_projections_the_logits_are_the_normed_embedding_times_the_embeddings() {
        // Token 2 is (2, 2), normed (1, 1) times the weights (1, 3).
        let mut tiny = Tiny::new();
        tiny.set("model.norm.weight", &[2], &[1.0, 3.0]);
        assert_close(&tiny.build().forward(&[0, 2], 0, None), &[4.0, -2.0, 8.0]);
    }

    #[test]
    fn the_head_is_used_where_present() {
        let mut tiny = Tiny::new();
        tiny.set("lm_head.weight", &[3, 2], &[1.0, 0.0, 0.0, 5.0, 1.0, 1.0]);
        assert_close(&tiny.build().forward(&[1], 0, None), &[1.0, -5.0, 0.0]);
    }

    #[test]
    fn attention_averages_the_values_of_the_past() {
        // Values (2, 1) and (2, -1) average to (2, 0); times 1 + 2, added to (1, -1): (7, -1).
        let mut tiny = Tiny::with_attention(1);
        tiny.layer("input_layernorm.weight", &[2], &[2.0, 1.0]);
        assert_close(&tiny.build().forward(&[0, 1], 0, None), &[6.0 / 5.0, 8.0 / 5.0, 12.0 / 5.0]);
    }

    #[test]
    fn attention_scores_are_divided_by_the_root_of_the_head_dimension() {
        // Keys are 0 for token 0 and (1, 0) for token 1, queries √2 ln 2 (1, 0): scores 0 and ln 2. Values
        // (1, 1) and (1, -1) weigh 1/3 and 2/3: (1, -1/3); times 1 + 2, added to (1, -1): (4, -2).
        let mut tiny = Tiny::with_attention(1);
        tiny.layer("self_attn.k_proj.weight", &[2, 2], &[0.5, -0.5, 0.0, 0.0]);
        let query = SQRT_2 * LN_2;
        tiny.layer("self_attn.q_proj.bias", &[4], &[query, 0.0, query, 0.0]);
        let root = 10.0_f64.sqrt();
        assert_close(&tiny.build().forward(&[0, 1], 0, None), &[2.0 / root, 6.0 / root, 4.0 / root]);
    }

    #[test]
    fn kv_heads_stay_apart() {
        // Head 0 has values (x, y), head 1 (10 x, 10 y); the output takes the first element of each.
        let mut tiny = Tiny::new();
        tiny.layer("self_attn.k_proj.weight", &[4, 2], &[0.0; 8]);
        tiny.layer("self_attn.k_proj.bias", &[4], &[-0.5, 1.5, -0.5, 1.5]);
        tiny.layer("self_attn.v_proj.weight", &[4, 2], &[1.0, 0.0, 0.0, 1.0, 10.0, 0.0, 0.0, 10.0]);
        tiny.layer("self_attn.o_proj.weight", &[2, 4], &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let mut model = tiny.build();
        // (1, 1) + (1, 10) = (2, 11), dense or sparse: all values are equal.
        let root = 62.5_f64.sqrt();
        let want = [13.0 / root, -9.0 / root, 26.0 / root];
        assert_close(&model.forward(&[0], 0, None), &want);
        assert_close(&model.forward(&[0], 1, sparse(0.5, 1, 0)), &want);
        // Both keys are the codeword (-0.5, 1.5), which comes second in one codebook and first in the other.
        assert_eq!((model.codes(0, 0), model.codes(0, 1)), ([1, 1].as_slice(), [0, 0].as_slice()));
        assert_eq!(model.union_fractions(), [0.5]);
    }

    #[test]
    fn the_mlp_is_gated() {
        // On (2, 1), normed and weighed: gate = 1 + 1 and up = 2 - 1, so silu(2) goes to the first element.
        let mut tiny = Tiny::new();
        tiny.layer("post_attention_layernorm.weight", &[2], &[2.0, 1.0]);
        tiny.layer("mlp.gate_proj.weight", &[1, 2], &[0.5, 1.0]);
        tiny.layer("mlp.up_proj.weight", &[1, 2], &[1.0, -1.0]);
        tiny.layer("mlp.down_proj.weight", &[2, 1], &[1.0, 0.0]);
        let first = 1.0 + 2.0 / (1.0 + (-2.0_f64).exp());
        let root = ((first * first + 1.0) / 2.0).sqrt();
        let (sum, difference) = ((first + 1.0) / root, (first - 1.0) / root);
        assert_close(&tiny.build().forward(&[0], 0, None), &[sum, difference, 2.0 * sum]);
    }

    #[test]
    fn every_bias_is_added() {
        let biases = [
            ("self_attn.q_proj", vec![5.0, 0.0, 0.0, 5.0]),
            ("self_attn.k_proj", vec![0.0, 3.0]),
            ("self_attn.v_proj", vec![0.0, 1.0]),
            ("self_attn.o_proj", vec![1.0, 0.0]),
            ("mlp.gate_proj", vec![3.0]),
            ("mlp.up_proj", vec![3.0]),
            ("mlp.down_proj", vec![2.0, 0.0]),
        ];
        let plain = Tiny::busy().build().forward(&[0, 1, 0], 0, None);
        for (name, bias) in biases {
            let mut tiny = Tiny::busy();
            tiny.layer(&format!("{name}.bias"), &[bias.len()], &bias);
            let error = relative_error(&tiny.build().forward(&[0, 1, 0], 0, None), &plain);
            assert!(error > 1e-3, "the bias of {name} changes nothing: {error}");
        }
        // By hand: the output bias (1, 0) on (1, 1) gives (2, 1).
        let mut tiny = Tiny::new();
        tiny.layer("self_attn.o_proj.bias", &[2], &[1.0, 0.0]);
        let root = 2.5_f64.sqrt();
        assert_close(&tiny.build().forward(&[0], 0, None), &[3.0 / root, 1.0 / root, 6.0 / root]);
    }

    #[test]
    fn running_in_parts_is_running_at_once() {
        let ids = [0, 1, 2, 1, 0, 1];
        let want = Tiny::busy().build().forward(&ids, 0, None);
        let mut parts = Tiny::busy().build();
        parts.forward(&ids[..3], 0, None);
        parts.forward(&ids[3..5], 3, None);
        assert_close(&parts.forward(&ids[5..], 5, None), &want);
        assert_eq!(parts.codes(0, 0).len(), 6);
    }

    #[test]
    fn a_sparse_step_over_everything_is_dense() {
        let mut dense = Tiny::busy().build();
        dense.forward(&[0, 1, 2, 1, 0], 0, None);
        let mut steps =
            [(1.0, 0, 0), (0.0, 6, 0), (0.0, 4, 2), (0.5, 2, 1)].map(|setting| (dense.clone(), setting));
        let want = dense.forward(&[1], 5, None);
        for (model, (share, window, sinks)) in &mut steps {
            assert_close(&model.forward(&[1], 5, sparse(*share, *window, *sinks)), &want);
        }
    }

    #[test]
    fn a_window_of_one_attends_the_token_itself() {
        // Token 1 after others: its own value (1, -1) alone, times 3, added to (1, -1): (4, -4), normed
        // (1, -1).
        let mut model = Tiny::with_attention(1).build();
        model.forward(&[0, 0, 2], 0, None);
        assert_close(&model.forward(&[1], 3, sparse(0.0, 1, 0)), &[0.0, 2.0, 0.0]);
        assert_eq!(model.union_fractions(), [0.0]);
    }

    #[test]
    fn a_sparse_step_attends_the_best_scoring_code_at_true_positions() {
        // Keys are the normed embeddings, (1, 1) for tokens 0 and 2 and (1, -1) for token 1, and a bias:
        // (-0.5, 1.5), which is a codeword, and (-0.5, -0.5), which is nearer to the codeword (0.5, 0.5). A
        // layer below, if there is one, changes nothing.
        for layers in [1, 2] {
            let mut tiny = Tiny::with_attention(layers);
            tiny.layer("self_attn.k_proj.weight", &[2, 2], &[1.0, 0.0, 0.0, 1.0]);
            tiny.layer("self_attn.k_proj.bias", &[2], &[-1.5, 0.5]);
            // Rotated to position 22 both queries are (0, 1), by which (-0.5, 1.5) scores best. Before
            // rotation they are about (0, -1), by which (0.5, 0.5) would.
            let (sin, cos) = 22.0_f64.sin_cos();
            tiny.layer("self_attn.q_proj.bias", &[4], &[1e-9 * sin, 1e-9 * cos, 1e-9 * sin, 1e-9 * cos]);
            let mut model = tiny.build();
            model.forward(&[1, 0, 1, 2], 0, None);
            // int(0.4 * 5) = 2: both tokens of the better code, and the window's newest. All true scores are
            // zero to 1e-8, so the value is the mean of (1, 1), (1, 1) and (1, -1): (1, 1/3); times 3, added
            // to (1, -1): (4, 0).
            let sparse = Some(Sparse { retrieve: 0.4, window: 1, sinks: 0, relative_position: 22 });
            let logits = model.forward(&[1], 4, sparse);
            let root = 8.0_f64.sqrt();
            let error = relative_error(&logits, &[4.0 / root, 4.0 / root, 8.0 / root]);
            assert!(error < 1e-7, "{layers} layers: {logits:?}");
            assert_eq!(model.union_fractions(), [0.4]);
            let want = if layers == 1 { [0, 1, 0, 1, 0] } else { [1, 0, 1, 0, 1] };
            assert_eq!(model.codes(layers - 1, 0), want);
        }
    }

    #[test]
    #[should_panic(expected = "tokens follow what is cached")]
    fn a_gap_in_positions_is_refused() {
        Tiny::new().build().forward(&[0], 1, None);
    }

    #[test]
    #[should_panic(expected = "the shape of model.layers.0.self_attn.o_proj.weight")]
    fn a_transposed_weight_is_refused() {
        let mut tiny = Tiny::new();
        tiny.layer("self_attn.o_proj.weight", &[4, 2], &[0.0; 8]);
        tiny.build();
    }
}
