//! How exactly inputs are seen beside weights and keys in bf16.

/// How exactly a product sees its inputs. It matters only beside bf16 weights on CPUs that multiply bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As the sum of two bf16 numbers, 16 significant bits: for replays and comparisons.
    #[default]
    Full,
    /// Rounded to bf16, as bf16 models are run everywhere else: twice as fast where arithmetic is what bounds.
    Rounded,
}
