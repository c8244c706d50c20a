//! KV rows: the rotated key and the value of one token side by side, so that reading a token is one run of memory.
//!
//! One [`KvRows`] holds one kv head of one layer of one sequence. A row is `[key, value]`, each half padded with
//! zeros to a multiple of [`ROW_ALIGN`] elements: head_dim 64, 96, 128 and 256 need no padding. Per token that is
//! `2 · width · dtype` bytes, 512 for head_dim 128 in bf16.

use crate::{
    dtype::{Dtype, Element, Elements},
    error::{Error, Result, expect_len},
    memory::reserve,
};
use half::{bf16, f16};
use memmap2::MmapMut;

/// Elements that each half of a row is a multiple of: one block of the widest instruction set, so that no kernel
/// needs a tail.
pub const ROW_ALIGN: usize = 32;

/// Checks a head_dim against what the kernels are written for: even, 16..=256.
pub(crate) fn check_head_dim(head_dim: usize) -> Result<()> {
    if (16..=256).contains(&head_dim) && head_dim.is_multiple_of(2) {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: "head_dim",
        got: head_dim.to_string(),
        supported: "even numbers in 16..=256",
    })
}

/// Checks a number of query heads per kv head: 1..=16.
pub(crate) fn check_group(group: usize) -> Result<()> {
    if (1..=16).contains(&group) {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: "group (query heads per kv head)",
        got: group.to_string(),
        supported: "1..=16",
    })
}

/// Checks a number of codewords: 1..=65536, so that a code fits 16 bits.
pub(crate) fn check_codes(codes: usize) -> Result<()> {
    if (1..=1 << 16).contains(&codes) {
        return Ok(());
    }
    Err(Error::Unsupported { what: "codewords", got: codes.to_string(), supported: "1..=65536" })
}

/// The padded length of one half of a row.
pub const fn row_width(head_dim: usize) -> usize {
    head_dim.next_multiple_of(ROW_ALIGN)
}

/// Borrowed KV rows, in [`KvRows`] or in memory of the caller's own.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    elements: Elements<'a>,
    head_dim: usize,
}

impl<'a> Rows<'a> {
    /// Sees `elements` as rows of `[key, value]`, each half [`row_width`]`(head_dim)` long and zero beyond head_dim.
    ///
    /// # Errors
    /// If head_dim is not an even number in 16..=256 or the elements are not whole rows.
    pub fn new(elements: Elements<'a>, head_dim: usize) -> Result<Self> {
        check_head_dim(head_dim)?;
        let row = 2 * row_width(head_dim);
        expect_len("rows", elements.len(), elements.len() / row * row)?;
        Ok(Self { elements, head_dim })
    }

    /// The elements, row after row.
    pub const fn elements(&self) -> Elements<'a> {
        self.elements
    }

    /// Dimension of a key, before padding.
    pub const fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// How many tokens there are.
    pub const fn len(&self) -> usize {
        self.elements.len() / (2 * row_width(self.head_dim))
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows from `first` on, none if there are not that many.
    pub fn from(&self, first: usize) -> Self {
        let row = 2 * row_width(self.head_dim);
        let first = first.min(self.len());
        let elements = self.elements.range(first * row..self.elements.len());
        Self { elements: elements.unwrap_or(self.elements), head_dim: self.head_dim }
    }

    /// The rows before `end`, all if there are not that many.
    pub fn before(&self, end: usize) -> Self {
        let row = 2 * row_width(self.head_dim);
        let elements = self.elements.range(0..end.min(self.len()) * row);
        Self { elements: elements.unwrap_or(self.elements), head_dim: self.head_dim }
    }
}

/// The KV rows of one kv head, growing with the sequence.
#[derive(Debug)]
pub struct KvRows {
    dtype: Dtype,
    head_dim: usize,
    len: usize,
    memory: MmapMut,
}

impl KvRows {
    /// Room for `tokens` rows (more come when needed). Untouched room costs address space, not memory.
    ///
    /// # Errors
    /// If head_dim is not an even number in 16..=256, or the operating system refuses the memory.
    pub fn new(dtype: Dtype, head_dim: usize, tokens: usize) -> Result<Self> {
        check_head_dim(head_dim)?;
        let memory = reserve_rows(tokens.max(1), row_bytes(dtype, head_dim))?;
        Ok(Self { dtype, head_dim, len: 0, memory })
    }

    /// Storage type of the rows.
    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Dimension of a key, before padding.
    pub const fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// How many tokens are stored.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that one token takes.
    pub const fn row_bytes(&self) -> usize {
        row_bytes(self.dtype, self.head_dim)
    }

    /// Appends tokens: `keys` (rotated) and `values` are `[n, head_dim]`, rounded to the storage type.
    ///
    /// # Errors
    /// If the two do not hold the same whole number of vectors, or memory runs out; nothing is appended then.
    pub fn append(&mut self, keys: &[f32], values: &[f32]) -> Result<()> {
        let tokens = keys.len() / self.head_dim;
        expect_len("keys", keys.len(), tokens * self.head_dim)?;
        expect_len("values", values.len(), keys.len())?;
        self.grow(tokens)?;
        let bytes = self.row_bytes();
        let memory = &mut self.memory[self.len * bytes..(self.len + tokens) * bytes];
        match self.dtype {
            Dtype::F32 => write_rows::<f32>(memory, self.head_dim, keys, values),
            Dtype::F16 => write_rows::<f16>(memory, self.head_dim, keys, values),
            Dtype::Bf16 => write_rows::<bf16>(memory, self.head_dim, keys, values),
        }
        self.len += tokens;
        Ok(())
    }

    /// Forgets the tokens from position `tokens` on, keeping their memory.
    pub fn truncate(&mut self, tokens: usize) {
        self.len = self.len.min(tokens);
    }

    /// The rows stored so far.
    pub fn rows(&self) -> Rows<'_> {
        let bytes = &self.memory[..self.len * self.row_bytes()];
        let elements = match self.dtype {
            Dtype::F32 => Elements::F32(bytemuck::cast_slice(bytes)),
            Dtype::F16 => Elements::F16(bytemuck::cast_slice(bytes)),
            Dtype::Bf16 => Elements::Bf16(bytemuck::cast_slice(bytes)),
        };
        Rows { elements, head_dim: self.head_dim }
    }

    /// Makes room for `tokens` more, at least half as many again as there are, so that appending stays amortized.
    fn grow(&mut self, tokens: usize) -> Result<()> {
        let bytes = self.row_bytes();
        let capacity = self.memory.len() / bytes;
        if self.len + tokens <= capacity {
            return Ok(());
        }
        let mut memory = reserve_rows((self.len + tokens).max(capacity + capacity / 2), bytes)?;
        memory[..self.len * bytes].copy_from_slice(&self.memory[..self.len * bytes]);
        self.memory = memory;
        Ok(())
    }
}

/// Bytes of a row of one token.
pub const fn row_bytes(dtype: Dtype, head_dim: usize) -> usize {
    2 * row_width(head_dim) * dtype.size()
}

fn reserve_rows(rows: usize, row_bytes: usize) -> Result<MmapMut> {
    let too_many =
        || Error::Memory { bytes: usize::MAX, reason: "more than an address can reach".to_owned() };
    reserve(rows.checked_mul(row_bytes).ok_or_else(too_many)?)
}

fn write_rows<T: Element>(memory: &mut [u8], head_dim: usize, keys: &[f32], values: &[f32]) {
    let width = row_width(head_dim);
    let rows: &mut [T] = bytemuck::cast_slice_mut(memory);
    let tokens = keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim));
    for (row, (key, value)) in rows.chunks_exact_mut(2 * width).zip(tokens) {
        let (key_half, value_half) = row.split_at_mut(width);
        for (half, from) in [(key_half, key), (value_half, value)] {
            for (to, &x) in half.iter_mut().zip(from) {
                *to = T::round(x);
            }
        }
    }
}
