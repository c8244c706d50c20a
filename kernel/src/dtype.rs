//! Element types of weights, codewords and KV rows.

use crate::error::{Error, Result};
use half::{bf16, f16};
use std::{fmt, ops::Range, str::FromStr};

/// Storage type of a table, a weight matrix or KV rows. All arithmetic accumulates in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The largest number.
    pub const fn largest(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            Self::F16 => f16::MAX.to_f32_const(),
            Self::Bf16 => bf16::MAX.to_f32_const(),
        }
    }

    /// The name that command lines and reports use: `f32`, `f16` or `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::F32, Self::F16, Self::Bf16].into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| {
            Error::Unsupported { what: "dtype", got: name.to_owned(), supported: "f32, f16, bf16" }
        })
    }
}

/// Borrowed elements of one of the storage types.
#[derive(Debug, Clone, Copy)]
pub enum Elements<'a> {
    /// IEEE single precision.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// The upper half of an f32.
    Bf16(&'a [bf16]),
}

impl<'a> Elements<'a> {
    /// Sees bytes (an mmapped tensor, say) as elements. `None` if they are not aligned for `dtype` or not whole.
    pub fn from_bytes(dtype: Dtype, bytes: &'a [u8]) -> Option<Self> {
        match dtype {
            Dtype::F32 => bytemuck::try_cast_slice(bytes).ok().map(Self::F32),
            Dtype::F16 => bytemuck::try_cast_slice(bytes).ok().map(Self::F16),
            Dtype::Bf16 => bytemuck::try_cast_slice(bytes).ok().map(Self::Bf16),
        }
    }

    /// The same of memory that is aligned for any of them and holds whole ones.
    pub(crate) fn of_bytes(dtype: Dtype, bytes: &'a [u8]) -> Self {
        match dtype {
            Dtype::F32 => Self::F32(bytemuck::cast_slice(bytes)),
            Dtype::F16 => Self::F16(bytemuck::cast_slice(bytes)),
            Dtype::Bf16 => Self::Bf16(bytemuck::cast_slice(bytes)),
        }
    }

    /// The storage type.
    pub const fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F16(_) => Dtype::F16,
            Self::Bf16(_) => Dtype::Bf16,
        }
    }

    /// How many elements there are.
    pub const fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::F16(x) => x.len(),
            Self::Bf16(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of the elements, or `None` if it is not inside them.
    pub fn range(&self, range: Range<usize>) -> Option<Self> {
        Some(match self {
            Self::F32(x) => Self::F32(x.get(range)?),
            Self::F16(x) => Self::F16(x.get(range)?),
            Self::Bf16(x) => Self::Bf16(x.get(range)?),
        })
    }

    /// Widens all elements to f32, for the small tensors that are used that way.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32(x) => x.to_vec(),
            Self::F16(x) => x.iter().map(|x| x.to_f32()).collect(),
            Self::Bf16(x) => x.iter().map(|x| x.to_f32()).collect(),
        }
    }

    /// Widens elements to f32 into memory that is there, as many as both have.
    pub fn widen(&self, to: &mut [f32]) {
        match self {
            Self::F32(x) => to.iter_mut().zip(*x).for_each(|(to, x)| *to = *x),
            Self::F16(x) => to.iter_mut().zip(*x).for_each(|(to, x)| *to = x.to_f32()),
            Self::Bf16(x) => to.iter_mut().zip(*x).for_each(|(to, x)| *to = x.to_f32()),
        }
    }
}
