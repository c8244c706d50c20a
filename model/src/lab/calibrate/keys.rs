//! The keys of all tokens, in a file: one head's are read at a time.

use crate::error::{Error, Result};
use half::{bf16, slice::HalfFloatSliceExt};
use std::{
    fs::{File, OpenOptions},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Which tokens of the documents are kept apart: the last tenth of each.
#[derive(Debug, Clone)]
pub(super) struct Documents {
    lengths: Vec<usize>,
}

impl Documents {
    pub(super) fn new(documents: &[Vec<u32>]) -> Self {
        Self { lengths: documents.iter().map(Vec::len).collect() }
    }

    /// All tokens.
    pub(super) fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Tokens of a document that are not kept apart.
    pub(super) fn kept_of(&self, document: usize) -> usize {
        self.lengths[document] - self.held_out_of(document)
    }

    /// Tokens of a document that are kept apart.
    pub(super) fn held_out_of(&self, document: usize) -> usize {
        self.lengths[document] / 10
    }

    /// Tokens that are not kept apart.
    pub(super) fn kept(&self) -> usize {
        (0..self.lengths.len()).map(|document| self.kept_of(document)).sum()
    }

    /// Tokens that are.
    pub(super) fn held_out(&self) -> usize {
        self.tokens() - self.kept()
    }

    /// Where the tokens of a document begin.
    pub(super) fn start(&self, document: usize) -> usize {
        self.lengths[..document].iter().sum()
    }

    /// The tokens that are kept apart, or those that are not.
    pub(super) fn ranges(&self, held_out: bool) -> Vec<Range<usize>> {
        let range = |document: usize| {
            let start = self.start(document);
            let cut = start + self.kept_of(document);
            if held_out { cut..start + self.lengths[document] } else { start..cut }
        };
        (0..self.lengths.len()).map(range).collect()
    }
}

/// The file, `[heads, tokens, head_dim]` in bf16, little-endian.
#[derive(Debug)]
pub(super) struct Keys {
    file: File,
    path: PathBuf,
    tokens: usize,
    head_dim: usize,
}

impl Keys {
    /// Opens the file, or makes it with room for so many heads and tokens.
    pub(super) fn open(path: &Path, heads: usize, tokens: usize, head_dim: usize) -> Result<Self> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = options.map_err(Error::io(path))?;
        file.set_len(bytes(heads, tokens, head_dim)).map_err(Error::io(path))?;
        Ok(Self { file, path: path.to_owned(), tokens, head_dim })
    }

    /// Keeps keys, `[n, head_dim]`, of a head's tokens from `first` on.
    pub(super) fn put(&self, head: usize, first: usize, keys: &[f32]) -> Result<()> {
        let mut rounded = vec![bf16::ZERO; keys.len()];
        rounded.convert_from_f32_slice(keys);
        let at = bytes(1, head * self.tokens + first, self.head_dim);
        self.file.write_all_at(bytemuck::cast_slice(&rounded), at).map_err(Error::io(&self.path))
    }

    /// The keys of some of a head's tokens.
    pub(super) fn get(&self, head: usize, tokens: &[Range<usize>]) -> Result<Vec<f32>> {
        let mut all = Vec::with_capacity(tokens.iter().map(Range::len).sum::<usize>() * self.head_dim);
        for range in tokens {
            let mut rounded = vec![bf16::ZERO; range.len() * self.head_dim];
            let at = bytes(1, head * self.tokens + range.start, self.head_dim);
            let read = self.file.read_exact_at(bytemuck::cast_slice_mut(&mut rounded), at);
            read.map_err(Error::io(&self.path))?;
            all.extend(rounded.into_iter().map(bf16::to_f32));
        }
        Ok(all)
    }

    /// Sees to it that what was kept survives.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path))
    }
}

/// Size of the file.
pub(super) fn bytes(heads: usize, tokens: usize, head_dim: usize) -> u64 {
    (heads * tokens * head_dim * size_of::<bf16>()) as u64
}
