//! A look at what passes through a model.

use crate::error::Result;

/// Looks at projections on their way to attention; called from several threads, for each kv head of a layer once a chunk.
pub trait Observer: Sync {
    /// `queries` is `[n, group, head_dim]`, `keys` and `values` are `[n, head_dim]`; nothing is rotated.
    ///
    /// # Errors
    /// Whatever ends the pass.
    fn projected(
        &self,
        layer: usize,
        kv_head: usize,
        queries: &[f32],
        keys: &[f32],
        values: &[f32],
    ) -> Result<()>;
}
