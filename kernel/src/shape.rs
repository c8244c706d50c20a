//! The sizes that the kernels are written for, and the checks of them.

use crate::error::{Error, Result};

/// Elements that each half of a KV row is padded to a multiple of: one step of the widest instruction set, so that no inner
/// loop needs a remainder.
pub const ROW_ALIGN: usize = 32;

/// The padded length of one half of a KV row.
pub const fn row_width(head_dim: usize) -> usize {
    head_dim.saturating_add(ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN
}

/// The largest head_dim.
pub(crate) const MAX_HEAD_DIM: usize = 256;

/// Checks a head_dim: even, 16..=256.
pub(crate) fn check_head_dim(head_dim: usize) -> Result<()> {
    if (16..=MAX_HEAD_DIM).contains(&head_dim) && head_dim.is_multiple_of(2) {
        return Ok(());
    }
    let supported = "even numbers in 16..=256";
    Err(Error::Unsupported { what: "head_dim", got: head_dim.to_string(), supported })
}

/// Checks a number of query heads per kv head: 1..=16.
pub(crate) fn check_group(group: usize) -> Result<()> {
    if (1..=16).contains(&group) {
        return Ok(());
    }
    let what = "group (query heads per kv head)";
    Err(Error::Unsupported { what, got: group.to_string(), supported: "1..=16" })
}

/// Checks a number of codewords: 1..=65536, so that a code fits 16 bits.
pub(crate) fn check_codes(codes: usize) -> Result<()> {
    if (1..=1 << 16).contains(&codes) {
        return Ok(());
    }
    Err(Error::Unsupported { what: "codewords", got: codes.to_string(), supported: "1..=65536" })
}
