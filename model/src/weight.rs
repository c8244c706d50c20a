//! A weight matrix, used where its file has it.

use crate::{
    error::Result,
    files::safetensors::{Stored, Tensors},
};
use a2ats_kernel::{Dtype, linear::Matrix};

/// A matrix `[rows, cols]` of a checkpoint: cheap to clone.
#[derive(Debug, Clone)]
pub struct Weight {
    stored: Stored,
    rows: usize,
    cols: usize,
}

impl Weight {
    /// Finds a matrix.
    ///
    /// # Errors
    /// As [`Tensors::stored`].
    pub fn load(tensors: &Tensors, name: &str, rows: usize, cols: usize) -> Result<Self> {
        Ok(Self { stored: tensors.stored(name, &[rows, cols])?, rows, cols })
    }

    /// Output size.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Input size.
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// Storage type.
    pub fn dtype(&self) -> Dtype {
        self.matrix().elements().dtype()
    }

    /// The matrix itself.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.stored.elements(), self.rows, self.cols)
            .expect("the shape was checked when the matrix was found")
    }
}
