//! What scores and codes read of a codebook, one thing behind the other, in memory that codebooks can share.

use crate::{
    dtype::{Dtype, Element, Elements},
    error::Result,
    memory::{Pages, Reservation},
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
    /// Rounds `codewords` to `dtype`; `half_norms` computes theirs, of which there are `codes`, from the rounded ones.
    pub(super) fn new(
        dtype: Dtype,
        factor: &[f32],
        codewords: &[f32],
        codes: usize,
        half_norms: impl FnOnce(&[f32]) -> Vec<f32>,
    ) -> Result<Self> {
        let mut end = 0;
        let mut place = |bytes: usize| {
            let start = end;
            end += bytes.next_multiple_of(ALIGN);
            start..start + bytes
        };
        let (of_factor, of_norms) = (place(size_of_val(factor)), place(codes * size_of::<f32>()));
        let of_codewords = place(codewords.len() * dtype.size());
        let mut memory = Reservation::new(end, Pages::Huge)?;
        let bytes = memory.bytes_mut();
        bytes[of_factor.clone()].copy_from_slice(bytemuck::cast_slice(factor));
        match dtype {
            Dtype::F32 => write::<f32>(&mut bytes[of_codewords.clone()], codewords),
            Dtype::F16 => write::<f16>(&mut bytes[of_codewords.clone()], codewords),
            Dtype::Bf16 => write::<bf16>(&mut bytes[of_codewords.clone()], codewords),
        }
        let rounded = see(dtype, &bytes[of_codewords.clone()]).to_f32();
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

    pub(super) fn codewords(&self) -> Elements<'_> {
        see(self.dtype, self.part(&self.codewords))
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

/// Bytes as elements: parts are aligned for all of them.
fn see(dtype: Dtype, bytes: &[u8]) -> Elements<'_> {
    match dtype {
        Dtype::F32 => Elements::F32(bytemuck::cast_slice(bytes)),
        Dtype::F16 => Elements::F16(bytemuck::cast_slice(bytes)),
        Dtype::Bf16 => Elements::Bf16(bytemuck::cast_slice(bytes)),
    }
}

fn write<T: Element>(bytes: &mut [u8], numbers: &[f32]) {
    for (to, &x) in bytemuck::cast_slice_mut::<_, T>(bytes).iter_mut().zip(numbers) {
        *to = T::round(x);
    }
}
