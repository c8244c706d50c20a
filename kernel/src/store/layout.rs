//! What a store keeps, and in which form.

use crate::{
    dtype::Dtype,
    error::{Error, Result},
    rows::row_bytes,
    shape::{check_codes, check_head_dim, row_width},
};

/// What a kv head keeps of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Storage type of the rows.
    pub dtype: Dtype,
    /// Dimension of a key: even, 16..=256.
    pub head_dim: usize,
    /// Codewords of the head's codebook, up to 65536; 0 for a store without codes, which is attended densely and never sorted.
    pub codes: usize,
    /// Last positions that are always attended, the current one included: at least 1.
    pub window: usize,
    /// First positions that are always attended.
    pub sinks: usize,
}

impl Layout {
    /// Checks the sizes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if one of them is not possible.
    pub fn check(&self) -> Result<()> {
        check_head_dim(self.head_dim)?;
        if self.codes > 0 {
            check_codes(self.codes)?;
        }
        if self.window == 0 {
            let (what, got) = ("window", "0".to_owned());
            return Err(Error::Unsupported {
                what,
                got,
                supported: "1 and above: the current token is attended",
            });
        }
        Ok(())
    }

    /// Bytes of the row of one token.
    pub const fn row_bytes(&self) -> usize {
        row_bytes(self.dtype, self.head_dim)
    }

    /// The padded length of a key or a value.
    pub const fn width(&self) -> usize {
        row_width(self.head_dim)
    }

    /// Where the window begins in a context of `tokens`: never before the end of the sinks.
    pub fn window_start(&self, tokens: usize) -> usize {
        tokens.saturating_sub(self.window).max(self.sinks.min(tokens))
    }

    /// Bytes of the sum of a code's values, its scale included.
    pub const fn sum_bytes(&self) -> usize {
        match self.dtype {
            Dtype::F32 => self.width().saturating_mul(size_of::<f32>()),
            Dtype::F16 | Dtype::Bf16 => self.width().saturating_add(self.scale_bytes()),
        }
    }

    /// Bytes of the scale of a sum, where sums are integers.
    pub(super) const fn scale_bytes(&self) -> usize {
        match self.dtype {
            Dtype::F32 => 0,
            Dtype::F16 | Dtype::Bf16 => size_of::<f32>(),
        }
    }
}

/// Memory that a store takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Its own: the log, what of a new base is laid out already, and sums of bases that were cut.
    pub own: usize,
    /// Of its bases, and of cuts that forks have in common: what forks share, or would.
    pub shared: usize,
}
