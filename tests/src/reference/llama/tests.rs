//! The model against figures worked out by hand, and against itself.

use std::f64::consts::{LN_2, SQRT_2};

use super::super::relative_error;
use super::super::rope::{Scaling, rope_frequencies};
use super::{Codebook, Estimate, HashMap, Llama, Shape, Sparse};

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
        let of_layer = |layer| (0..kv_heads).map(|kv_head| codebook((layer + kv_head) % 2 == 1)).collect();
        Llama::new(shape, self.weights, &self.shapes, Some((0..layers).map(of_layer).collect()))
    }
}

fn sparse(retrieve: f64, window: usize, sinks: usize) -> Option<Sparse> {
    Some(Sparse { retrieve, window, sinks, relative_position: 2048, estimate: Estimate::None })
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
        let sparse = Some(Sparse {
            retrieve: 0.4,
            window: 1,
            sinks: 0,
            relative_position: 22,
            estimate: Estimate::None,
        });
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
