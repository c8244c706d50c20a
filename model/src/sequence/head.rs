//! What one kv head of one layer keeps of a sequence.

use crate::error::Result;
use a2ats_kernel::{Codebook, Kernels, store::Store};

/// Keys that are encoded together: a pass over the codewords for each of them would cost a dense step of a short context as much as its
/// rows do.
const ENCODED_TOGETHER: usize = 32;

/// The store, and keys that have no codes yet.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) store: Store,
    /// Keys of the newest tokens, not rotated, whose codes in the store are to be set before they leave the window.
    unencoded: Vec<f32>,
    codes: Vec<u16>,
}

impl Head {
    pub(super) const fn new(store: Store) -> Self {
        Self { store, unencoded: Vec::new(), codes: Vec::new() }
    }

    /// Sets the codes of the tokens that have none.
    pub(crate) fn encode(&mut self, kernels: &dyn Kernels, book: &Codebook) -> Result<()> {
        if !self.unencoded.is_empty() {
            self.codes.resize(self.unencoded.len() / book.head_dim(), 0);
            kernels.encode(book, &self.unencoded, &mut self.codes)?;
            self.store.set_codes(&self.codes)?;
            self.unencoded.clear();
        }
        Ok(())
    }

    /// Appends a token whose code is of no use yet: it comes when there are some, or the first of them would leave the window.
    pub(crate) fn append_unencoded(
        &mut self,
        kernels: &dyn Kernels,
        book: &Codebook,
        key: &[f32],
        (rotated_key, value): (&[f32], &[f32]),
    ) -> Result<()> {
        self.store.append(rotated_key, value, &[0])?;
        self.unencoded.extend_from_slice(key);
        let count = self.unencoded.len() / book.head_dim();
        if count >= ENCODED_TOGETHER.min(self.store.layout().window) {
            self.encode(kernels, book)?;
        }
        Ok(())
    }

    pub(super) fn fork(&self) -> Result<Self> {
        Ok(Self { store: self.store.fork()?, unencoded: self.unencoded.clone(), codes: Vec::new() })
    }

    pub(super) fn truncate(&mut self, kernels: &dyn Kernels, tokens: usize) -> Result<()> {
        let gone = self.store.len().saturating_sub(tokens);
        if gone > 0 {
            self.store.truncate(kernels, tokens)?;
            let left = self.unencoded.len().saturating_sub(gone * self.store.layout().head_dim);
            self.unencoded.truncate(left);
        }
        Ok(())
    }
}
