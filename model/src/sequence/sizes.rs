//! The memory that contexts take.

use crate::spec::Spec;
use a2ats_kernel::{Dtype, rows::row_bytes, store::Layout};

/// Bytes of KV rows that a context of `tokens` takes, in all layers.
pub fn kv_bytes(spec: &Spec, dtype: Dtype, tokens: usize) -> u128 {
    heads(spec) * row_bytes(dtype, spec.head_dim) as u128 * tokens as u128
}

/// Bytes of codes and positions that a context of `tokens` takes, in all layers: a position and now and then a code, and where each code's rows
/// begin.
pub fn index_bytes(spec: &Spec, codes: usize, tokens: usize) -> u128 {
    heads(spec) * (6 * tokens as u128 + 6 * codes as u128)
}

/// Bytes of sums of values that a context of `tokens` takes, in all layers: one for each code that has tokens.
pub fn sum_bytes(spec: &Spec, dtype: Dtype, codes: usize, tokens: usize) -> u128 {
    let layout = Layout { dtype, head_dim: spec.head_dim, codes, window: 1, sinks: 0 };
    heads(spec) * codes.min(tokens) as u128 * layout.sum_bytes() as u128
}

fn heads(spec: &Spec) -> u128 {
    (spec.num_hidden_layers * spec.num_key_value_heads) as u128
}
