//! Input vectors, brought once into the form in which all the weights of a product go over them.

use super::{Matrix, vectors::Vectors};
use crate::{
    dtype::Dtype,
    error::{Error, Result, expect_len},
    memory::{Aligned, PagedFloats},
    microkernel::{
        broadcast::{pack_panel, panel_lanes, panels_len},
        dot::{pack_tile, packed_len},
    },
    precision::Precision,
    simd::{Element, Simd},
};
use half::f16;

/// How a product goes over its inputs, and so the order of its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Dot products, of some rows and some inputs at a time: the fastest for few inputs. Each product has the same bits whatever other
    /// inputs and rows there are.
    Few,
    /// A lane is an input, and weights are taken one by one: the fastest for many. A product's bits do not depend on the other inputs
    /// either, but they differ from those of the other method.
    Many,
}

impl Method {
    /// The one that is as fast as the other or faster for so many inputs.
    pub const fn for_inputs(count: usize) -> Self {
        if count <= 8 { Self::Few } else { Self::Many }
    }
}

/// What inputs are prepared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose {
    /// Storage type of the weights.
    pub dtype: Dtype,
    /// Dimension of a vector.
    pub cols: usize,
    /// How exactly the numbers are seen.
    pub precision: Precision,
    /// How they are gone over.
    pub method: Method,
}

impl Purpose {
    /// For so many vectors that go over `weights`, seen in full.
    pub const fn new(weights: &Matrix<'_>, count: usize) -> Self {
        let (dtype, method) = (weights.elements().dtype(), Method::for_inputs(count));
        Self { dtype, cols: weights.cols(), precision: Precision::Full, method }
    }
}

/// Most inputs of a tile: with two rows their sums are in sixteen registers.
const fn most_inputs<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { WIDEST } else { S::TILE_QUERIES }
}

/// The same where there are the most registers.
pub(super) const WIDEST: usize = 8;

/// How inputs are laid out in parts that can be packed one by one, by several threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub(super) backend: &'static str,
    pub(super) purpose: Purpose,
    pub(super) count: usize,
    /// Steps of a pair in a panel, see `microkernel/broadcast.rs`.
    pub(super) steps: usize,
    pub(super) part_vectors: usize,
    pub(super) part_len: usize,
    len: usize,
}

impl Layout {
    fn new<S: Simd, T: Element<S>>(count: usize, purpose: Purpose) -> Self {
        let Purpose { cols, precision, method, .. } = purpose;
        let steps = if precision == Precision::Rounded && T::PAIRS { 1 } else { 2 };
        let (part_vectors, part_len, len) = match method {
            Method::Few => {
                // Tiles of nearly equal size. Of no vectors, the dimension may be any number.
                let tile = count.div_ceil(count.div_ceil(most_inputs::<S>()).max(1)).max(1);
                let stride = if count > 0 { packed_len::<S>(cols) } else { 0 };
                (tile, tile * stride, count * stride)
            }
            Method::Many => {
                let lanes = panel_lanes::<S>();
                let all = if count > 0 { panels_len::<S>(count, cols, steps) } else { 0 };
                (lanes, if count > 0 { panels_len::<S>(lanes, cols, steps) } else { 0 }, all)
            }
        };
        let part_len = part_len.max(1);
        Self { backend: S::NAME, purpose, count, steps, part_vectors, part_len, len }
    }

    /// Vectors of a part; the last part may have fewer.
    pub const fn part_vectors(&self) -> usize {
        self.part_vectors
    }

    /// Numbers of a part in [`Inputs::values_mut`]; the last part may have fewer.
    pub const fn part_len(&self) -> usize {
        self.part_len
    }

    /// Checks what is to be packed into a part.
    pub(crate) fn check_part<S: Simd>(
        &self,
        number: usize,
        vectors: &Vectors<'_>,
        part: &[f32],
    ) -> Result<()> {
        if self.backend != backend_for::<S>(self.purpose.dtype) {
            return Err(Error::Unsupported {
                what: "layout of inputs",
                got: format!("made by {}", self.backend),
                supported: "one that the same backend made",
            });
        }
        let count = vectors.check(self.purpose.cols)?;
        let of = |whole: usize, part: usize| part.min(whole.saturating_sub(number.saturating_mul(part)));
        expect_len("vectors of a part", count, of(self.count, self.part_vectors))?;
        expect_len("part", part.len(), of(self.len, self.part_len))
    }
}

/// Packed input vectors of products with weights of one storage type. Made by a backend and used by the same; to be kept, so that
/// nothing is allocated for the next ones.
#[derive(Debug, Default)]
pub struct Inputs {
    layout: Option<Layout>,
    few: Aligned,
    many: Option<PagedFloats>,
}

impl Inputs {
    /// How they are laid out; none before the first time.
    pub const fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref()
    }

    /// How many vectors there are.
    pub fn count(&self) -> usize {
        self.layout.map_or(0, |layout| layout.count)
    }

    /// The parts to be packed, [`Layout::part_len`] numbers each.
    pub fn values_mut(&mut self) -> &mut [f32] {
        let (len, method) =
            self.layout.map_or((0, Method::Few), |layout| (layout.len, layout.purpose.method));
        match (method, &mut self.many) {
            (Method::Many, Some(many)) => &mut many[..len],
            _ => &mut self.few[..len],
        }
    }

    pub(super) fn values(&self) -> &[f32] {
        let (len, method) =
            self.layout.map_or((0, Method::Few), |layout| (layout.len, layout.purpose.method));
        match (method, &self.many) {
            (Method::Many, Some(many)) => &many[..len],
            _ => &self.few[..len],
        }
    }

    /// Makes room.
    fn lay_out(&mut self, layout: Layout) -> Result<()> {
        self.layout = None;
        match layout.purpose.method {
            Method::Few => self.few.try_resize(layout.len)?,
            Method::Many if self.many.as_ref().is_none_or(|many| many.len() < layout.len) => {
                // What there was goes first.
                self.many = None;
                self.many = Some(PagedFloats::zeros(layout.len)?);
            }
            Method::Many => {}
        }
        self.layout = Some(layout);
        Ok(())
    }
}

/// Makes room for so many vectors.
pub(crate) fn lay_out<S: Simd>(count: usize, purpose: Purpose, inputs: &mut Inputs) -> Result<Layout> {
    // Far more than what padding adds.
    let [padded, lanes] = [purpose.cols, count].map(|len| len.saturating_add(1024));
    if count > 0 && padded.checked_mul(lanes).is_none_or(|len| len > isize::MAX as usize / 8) {
        let reason = "more than an address can reach".to_owned();
        return Err(Error::Memory { bytes: usize::MAX, reason });
    }
    let layout = match purpose.dtype {
        Dtype::F32 => Layout::new::<S::Plain, f32>(count, purpose),
        Dtype::F16 => Layout::new::<S::Plain, f16>(count, purpose),
        Dtype::Bf16 => Layout::new::<S, S::Bf16>(count, purpose),
    };
    inputs.lay_out(layout)?;
    Ok(layout)
}

/// The backend that inputs beside weights of a storage type are for.
pub(super) const fn backend_for<S: Simd>(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bf16 => S::NAME,
        Dtype::F32 | Dtype::F16 => <S::Plain as Simd>::NAME,
    }
}

/// Packs some vectors into their part.
#[inline(always)]
pub(crate) fn pack_part<S: Simd>(s: S, layout: &Layout, vectors: Vectors<'_>, part: &mut [f32]) {
    match layout.purpose.dtype {
        Dtype::F32 => pack_typed::<S::Plain, f32>(s.plain(), layout, vectors, part),
        Dtype::F16 => pack_typed::<S::Plain, f16>(s.plain(), layout, vectors, part),
        Dtype::Bf16 => pack_typed::<S, S::Bf16>(s, layout, vectors, part),
    }
}

/// Packs all of them.
#[inline(always)]
pub(crate) fn pack_all<S: Simd>(s: S, layout: &Layout, vectors: Vectors<'_>, inputs: &mut Inputs) {
    let cols = layout.purpose.cols;
    for (number, part) in inputs.values_mut().chunks_mut(layout.part_len).enumerate() {
        let start = number * layout.part_vectors;
        let some = vectors.part(cols, start, layout.part_vectors.min(layout.count - start));
        pack_part(s, layout, some, part);
    }
}

#[inline(never)]
fn pack_typed<S: Simd, T: Element<S>>(s: S, layout: &Layout, vectors: Vectors<'_>, part: &mut [f32]) {
    let cols = layout.purpose.cols;
    s.vectorize(
        #[inline(always)]
        || match layout.purpose.method {
            Method::Few => pack_tile::<S, T>(
                s,
                vectors.count(cols),
                #[inline(always)]
                |vector, start, to: &mut [f32]| vectors.read_vector(cols, vector, start, to),
                1.0,
                part,
            ),
            Method::Many => pack_panel::<S, T::Multiplied>(
                s,
                cols,
                layout.steps,
                part,
                #[inline(always)]
                |element, vector, to: &mut [f32]| vectors.read_element(cols, element, vector, to),
            ),
        },
    );
}
