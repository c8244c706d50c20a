//! Input vectors, brought once into the form in which all the weights of a product go over them.

use crate::{
    dtype::Dtype,
    element::Element,
    error::Result,
    memory::{Aligned, PagedFloats},
    microkernel::broadcast::{pack, panels_len},
    microkernel::dot::{pack_queries, packed_len},
    precision::Precision,
    simd::Simd,
};

/// Input vectors of products with weights of one storage type, made by [`Kernels::prepare`](crate::Kernels::prepare)
/// and used by the same backend.
#[derive(Debug)]
pub struct Inputs {
    pub(super) backend: &'static str,
    pub(super) dtype: Dtype,
    pub(super) count: usize,
    pub(super) cols: usize,
    /// Steps of a pair in a panel, see `microkernel/broadcast.rs`.
    pub(super) steps: usize,
    pub(super) values: Values,
}

#[derive(Debug)]
pub(super) enum Values {
    /// A packed tile, `[count, packed_len(cols)]`.
    Few(Aligned),
    /// Panels of lanes, see `microkernel/broadcast.rs`.
    Many(PagedFloats),
}

impl Inputs {
    /// How many vectors there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Dimension of a vector.
    pub const fn cols(&self) -> usize {
        self.cols
    }
}

/// `inputs` is `[n, cols]`, for weights of type `T`.
#[inline(always)]
pub(crate) fn prepare<S: Simd, T: Element<S>>(
    s: S,
    inputs: &[f32],
    cols: usize,
    dtype: Dtype,
    precision: Precision,
) -> Result<Inputs> {
    let count = inputs.len().checked_div(cols).unwrap_or(0);
    let steps = if precision == Precision::Rounded && T::PAIRS { 1 } else { 2 };
    let values = if count <= S::TILE_QUERIES {
        // Of no vectors, the dimension may be any number.
        let stride = if count > 0 { packed_len::<S>(cols) } else { 0 };
        let mut packed = Aligned::zeros(count * stride);
        pack_queries::<S, T>(s, inputs.chunks_exact(cols.max(1)), 1.0, &mut packed);
        Values::Few(packed)
    } else {
        let mut panels = PagedFloats::zeros(panels_len::<S>(count, cols, steps))?;
        pack::<S, T::Multiplied>(s, inputs, cols, steps, &mut panels);
        Values::Many(panels)
    };
    Ok(Inputs { backend: S::NAME, dtype, count, cols, steps, values })
}
