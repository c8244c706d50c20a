//! What scores and codes read of a codebook, one thing behind the other, in memory that codebooks can share.

use crate::{
    dtype::{Dtype, Elements},
    error::Result,
    memory::{Pages, Reservation},
    microkernel::panel::PANEL,
    simd::Stored,
};
use half::{bf16, f16};
use std::{ops::Range, sync::Arc};

/// Where the parts of a table begin, and where a table may.
const ALIGN: usize = 64;

/// The factor, the half norms and the codewords: in the order in which a pass goes through them.
#[derive(Debug, Clone)]
pub(super) struct PackedTable {
    dtype: Dtype,
    memory: Arc<Reservation>,
    /// Bytes from the beginning of the memory.
    at: usize,
    factor: Range<usize>,
    half_norms: Range<usize>,
    codewords: Range<usize>,
}

impl PackedTable {
    /// Rounds `codewords`, `[codes, head_dim]`, to `dtype`; `half_norms` computes theirs from the rounded ones.
    pub(super) fn new(
        dtype: Dtype,
        factor: &[f32],
        codewords: &[f32],
        head_dim: usize,
        half_norms: impl FnOnce(&[f32]) -> Vec<f32>,
    ) -> Result<Self> {
        let codes = codewords.len() / head_dim;
        let mut end = 0;
        let mut place = |bytes: usize| {
            let start = end;
            end += bytes.next_multiple_of(ALIGN);
            start..start + bytes
        };
        let (of_factor, of_norms) = (place(size_of_val(factor)), place(codes * size_of::<f32>()));
        let of_codewords = place(codes.next_multiple_of(PANEL) * head_dim * dtype.size());
        let mut memory = Reservation::new(end, Pages::Huge)?;
        let bytes = memory.bytes_mut();
        bytes[of_factor.clone()].copy_from_slice(bytemuck::cast_slice(factor));
        let table = &mut bytes[of_codewords.clone()];
        let rounded = match dtype {
            Dtype::F32 => write::<f32>(table, codewords, head_dim),
            Dtype::F16 => write::<f16>(table, codewords, head_dim),
            Dtype::Bf16 => write::<bf16>(table, codewords, head_dim),
        };
        bytes[of_norms.clone()].copy_from_slice(bytemuck::cast_slice(&half_norms(&rounded)));
        let memory = Arc::new(memory);
        Ok(Self { dtype, memory, at: 0, factor: of_factor, half_norms: of_norms, codewords: of_codewords })
    }

    pub(super) fn factor(&self) -> &[f32] {
        bytemuck::cast_slice(self.part(&self.factor))
    }

    pub(super) fn half_norms(&self) -> &[f32] {
        bytemuck::cast_slice(self.part(&self.half_norms))
    }

    /// The codewords in panels, see `microkernel/panel.rs`.
    pub(super) fn codewords(&self) -> Elements<'_> {
        Elements::of_bytes(self.dtype, self.part(&self.codewords))
    }

    fn part(&self, part: &Range<usize>) -> &[u8] {
        &self.memory.bytes()[self.at + part.start..self.at + part.end]
    }

    /// All bytes, the gaps between the parts included.
    fn bytes(&self) -> &[u8] {
        self.part(&(0..self.codewords.end.next_multiple_of(ALIGN)))
    }

    /// Moves tables into one piece of memory, one behind the other.
    pub(super) fn gather(tables: &mut [&mut Self]) -> Result<()> {
        let all = tables.iter().map(|table| table.bytes().len()).sum();
        let mut memory = Reservation::new(all, Pages::Huge)?;
        let mut rest = memory.bytes_mut();
        for table in tables.iter() {
            let (to, others) = rest.split_at_mut(table.bytes().len());
            to.copy_from_slice(table.bytes());
            rest = others;
        }
        let (memory, mut at) = (Arc::new(memory), 0);
        for table in tables {
            let bytes = table.bytes().len();
            (table.memory, table.at) = (Arc::clone(&memory), at);
            at += bytes;
        }
        Ok(())
    }
}

/// Writes codewords, rounded, into panels; gives them in order. The last panel is filled up with zeros, which are there already.
fn write<T: Stored + Into<f32>>(bytes: &mut [u8], codewords: &[f32], head_dim: usize) -> Vec<f32> {
    let mut in_order = vec![0.0; codewords.len()];
    let panels = bytemuck::cast_slice_mut::<_, T>(bytes).chunks_exact_mut(PANEL * head_dim);
    let codewords = codewords.chunks(PANEL * head_dim).zip(in_order.chunks_mut(PANEL * head_dim));
    for (panel, (codewords, in_order)) in panels.zip(codewords) {
        for (i, (&x, rounded)) in codewords.iter().zip(in_order).enumerate() {
            let x = T::round(x);
            panel[i % head_dim * PANEL + i / head_dim] = x;
            *rounded = x.into();
        }
    }
    in_order
}
