//! One layer's attention for a batch: of sequences that take one token each, and of one that reads several.

mod policy;
mod prefill;
mod step;

pub(crate) use policy::crossover;
pub use prefill::PREFILL_CHUNK;
pub(crate) use prefill::{Prefill, encode};
pub(crate) use step::Steps;

use crate::{
    error::{Error, Result},
    spec::Spec,
};
use a2ats_kernel::Kernels;

/// Squares of the lengths of queries and keys at most: products of two such vectors stay within f32.
const LARGEST_SQUARE: f32 = f32::MAX / 4.0;

/// What all layers of a model have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'m> {
    pub(crate) spec: &'m Spec,
    pub(crate) kernels: &'static dyn Kernels,
    /// Of the rotary position embedding, `[head_dim / 2]`.
    pub(crate) frequencies: &'m [f64],
}

impl Context<'_> {
    /// What scores are multiplied by.
    fn scale(&self) -> f32 {
        (1.0 / (self.spec.head_dim as f64).sqrt()) as f32
    }

    /// Numbers of a token's queries for one kv head.
    fn width(&self) -> usize {
        self.spec.group() * self.spec.head_dim
    }

    /// Refuses queries or keys whose products are no numbers or could be infinite: softmax would make weights of them all the same.
    fn check_scores(&self, vectors: &[f32]) -> Result<()> {
        let square = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>();
        let fine = vectors.chunks(self.spec.head_dim).all(|vector| square(vector) <= LARGEST_SQUARE);
        if fine { Ok(()) } else { Err(no_number()) }
    }
}

/// The error of a model that computes what is no number.
pub(crate) fn no_number() -> Error {
    Error::Numerics("the model's output is not a number".to_owned())
}
