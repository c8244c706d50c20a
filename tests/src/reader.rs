//! One sequence going through a model, as tests want it.

use a2ats_kernel::Dtype;
use a2ats_model::{Attention, Batch, Codebooks, Model, Observer, Result, Sequence, Workspace};
use std::{ops::ControlFlow, sync::Arc};

/// A sequence, and what it needs to go on.
#[derive(Debug)]
pub struct Reader<'m> {
    model: &'m Model,
    /// The sequence, alone in its batch.
    sequence: [Sequence; 1],
    workspace: Workspace,
}

impl<'m> Reader<'m> {
    /// An empty sequence for up to `capacity` tokens.
    ///
    /// # Errors
    /// As [`Sequence::new`].
    pub fn new(
        model: &'m Model,
        books: Option<&Arc<Codebooks>>,
        attention: Attention,
        dtype: Dtype,
        capacity: usize,
    ) -> Result<Self> {
        let sequence = Sequence::new(model.spec(), books.cloned(), attention, dtype, capacity)?;
        Ok(Self { model, sequence: [sequence], workspace: Workspace::default() })
    }

    /// The sequence.
    pub fn sequence(&mut self) -> &mut Sequence {
        &mut self.sequence[0]
    }

    /// Reads tokens; gives the logits of the last one.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn read(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        self.read_observed(ids, None)
    }

    /// The same while somebody looks on.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn read_observed(&mut self, ids: &[u32], observer: Option<&dyn Observer>) -> Result<Vec<f32>> {
        let Self { model, sequence: [sequence], workspace } = self;
        let done = model.prefill(sequence, ids, observer, workspace, &mut |_| ControlFlow::Continue(()))?;
        assert!(done.is_continue(), "nobody broke off");
        Ok(self.workspace.logits(0).to_vec())
    }

    /// Begins to read, and breaks off after the first layer.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn break_off(&mut self, ids: &[u32]) -> Result<()> {
        let Self { model, sequence: [sequence], workspace } = self;
        let done = model.prefill(sequence, ids, None, workspace, &mut |_| ControlFlow::Break(()))?;
        assert!(done.is_break(), "it was to break off");
        Ok(())
    }

    /// One decode step: takes a token and gives the logits of the next one.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn step(&mut self, id: u32) -> Result<Vec<f32>> {
        let mut batch = Batch { steps: &mut self.sequence, ids: &[id], chunk: None };
        let done = self.model.forward(&mut batch, &mut self.workspace, &mut |_| ControlFlow::Continue(()))?;
        assert!(done.is_continue(), "nobody broke off");
        self.sequence[0].sort_some(self.model.kernels())?;
        Ok(self.workspace.logits(0).to_vec())
    }
}
