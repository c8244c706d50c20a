//! Copies to shared memory that are on their way.

use std::collections::VecDeque;

/// A copy of 16 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    /// Where in shared memory.
    pub(super) address: u64,
    pub(super) value: u128,
}

/// Copies of a thread.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// Groups, the oldest first.
    groups: VecDeque<Vec<Pending>>,
    /// Copies of no group yet.
    open: Vec<Pending>,
}

impl Copies {
    /// Starts a copy.
    pub(super) fn start(&mut self, copy: Pending) {
        self.open.push(copy);
    }

    /// Makes a group of the copies that are in none.
    pub(super) fn close_group(&mut self) {
        self.groups.push_back(std::mem::take(&mut self.open));
    }

    /// Copies of all groups but the last ones.
    pub(super) fn finish_groups(&mut self, but: u32) -> Vec<Pending> {
        let count = self.groups.len().saturating_sub(but as usize);
        self.groups.drain(..count).flatten().collect()
    }
}
