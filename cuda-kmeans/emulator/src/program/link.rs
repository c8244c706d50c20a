//! Where variables are in memory.

use crate::ptx::Variable;

/// Where shared and local memory start: null is no address in them.
pub(crate) const START: usize = 1024;

/// What is left free behind each variable, so that whoever leaves it is found out. Banks stay as they are without.
const GAP: usize = 128;

/// Variables of a state space.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    /// Names, with addresses and sizes.
    pub(crate) variables: Vec<(String, usize, usize)>,
    /// Where whatever has no size of its own starts.
    pub(crate) end: usize,
    /// Bytes, less gaps.
    pub(crate) size: usize,
}

impl Layout {
    /// Places variables one after the other. Those without size all start at the end.
    pub(crate) fn new<'a>(variables: impl Iterator<Item = &'a Variable> + Clone) -> Self {
        let mut layout = Self { end: START, ..Self::default() };
        for variable in variables.clone() {
            if let Some(size) = variable.size {
                let start = layout.end.next_multiple_of(variable.align.max(1));
                layout.variables.push((variable.name.clone(), start, size));
                layout.end = (start + size).next_multiple_of(GAP) + GAP;
                layout.size = layout.size.next_multiple_of(variable.align.max(1)) + size;
            }
        }
        for variable in variables.filter(|variable| variable.size.is_none()) {
            layout.variables.push((variable.name.clone(), layout.end, 0));
        }
        layout
    }

    /// Bytes with gaps.
    pub(crate) fn room(&self) -> usize {
        self.end - START
    }

    /// The address of a variable.
    pub(crate) fn address(&self, name: &str) -> Option<u64> {
        self.variables.iter().find(|(other, ..)| other == name).map(|&(_, at, _)| at as u64)
    }
}
