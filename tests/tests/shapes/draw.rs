//! Arguments that fit together, of which some are then changed.

use a2ats_kernel::{Dtype, Kernels};
use std::{fmt::Debug, ops::Range, slice::Iter};

/// Ways in which an argument is changed.
pub const CHANGES: u8 = 7;

/// Draws the arguments of one call: their sizes from bytes, of which zeros give the smallest, and what is changed of them, a byte for
/// each argument, of which zeros leave it as it fits.
pub struct Draw<'a> {
    pub kernels: &'static dyn Kernels,
    sizes: Iter<'a, u8>,
    changes: Iter<'a, u8>,
    /// Arguments that could be changed.
    pub arguments: usize,
    /// How the call ended, if it was one that may refuse its arguments.
    pub accepted: Option<bool>,
}

impl<'a> Draw<'a> {
    pub fn new(kernels: &'static dyn Kernels, sizes: &'a [u8], changes: &'a [u8]) -> Self {
        Self { kernels, sizes: sizes.iter(), changes: changes.iter(), arguments: 0, accepted: None }
    }

    /// A size below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.sizes.next().copied().unwrap_or(0)) % end
    }

    /// One of some things that are all good.
    pub fn one_of<T: Copy>(&mut self, good: &[T]) -> T {
        good[self.below(good.len())]
    }

    pub fn head_dim(&mut self) -> usize {
        self.one_of(&[16, 18, 32, 40])
    }

    pub fn dtype(&mut self) -> Dtype {
        self.one_of(&[Dtype::F32, Dtype::F16, Dtype::Bf16])
    }

    fn change(&mut self) -> u8 {
        self.arguments += 1;
        self.changes.next().copied().unwrap_or(0)
    }

    /// A length of which `good` fits.
    pub fn len(&mut self, good: usize) -> usize {
        match self.change() {
            0 => good,
            1 => 0,
            2 => good.saturating_sub(1),
            3 => good + 1,
            4 => 2 * good,
            5 => good / 2,
            6 => 1,
            _ => good + 16,
        }
    }

    /// A number of which `good` fits, and for which nothing is allocated.
    pub fn number(&mut self, good: usize) -> usize {
        match self.change() {
            0 => good,
            1 => 0,
            2 => good.saturating_sub(1),
            3 => good.saturating_add(1),
            4 => good.saturating_mul(2),
            5 => usize::MAX,
            6 => usize::MAX - 1,
            _ => usize::MAX / 2 + 1,
        }
    }

    /// The same in 32 bits.
    pub fn narrow(&mut self, good: usize) -> u32 {
        u32::try_from(self.number(good)).unwrap_or(u32::MAX)
    }

    /// A part of `0..all`.
    pub fn range(&mut self, all: usize) -> Range<usize> {
        let start = self.below(all + 1);
        let end = start + self.below(all - start + 1);
        match self.change() {
            0 => start..end,
            1 => end + 1..start,
            2 => start..all + 1,
            3 => all + 1..all + 2,
            4 => usize::MAX..usize::MAX,
            5 => 0..usize::MAX,
            6 => usize::MAX..start,
            _ => all..all,
        }
    }

    /// `good`, or one of some others.
    pub fn instead<T: Copy>(&mut self, good: T, others: &[T]) -> T {
        match self.change() {
            0 => good,
            change => others[usize::from(change - 1) % others.len()],
        }
    }

    /// What a call has to do: succeed if its arguments fit together, and otherwise fail and leave all as it was.
    pub fn hold<T, E: Debug>(&mut self, done: Result<T, E>, fits: bool, is_unchanged: bool) {
        self.accepted = Some(done.is_ok());
        match done {
            Ok(_) => assert!(fits, "arguments that do not fit were accepted"),
            Err(error) => {
                assert!(!fits, "arguments that fit were refused: {error:?}");
                assert!(is_unchanged, "something changed in spite of {error:?}");
            }
        }
    }
}

/// Some numbers.
pub fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 7) as f32 * 0.25 - 0.5).collect()
}

/// Whether so many elements are a whole number of parts.
pub fn is_whole(len: usize, part: usize) -> bool {
    if part == 0 { len == 0 } else { len.is_multiple_of(part) }
}

pub fn is_inside(range: &Range<usize>, all: usize) -> bool {
    range.start <= range.end && range.end <= all
}

pub fn is_group(group: usize) -> bool {
    (1..=16).contains(&group)
}

pub fn is_head_dim(head_dim: usize) -> bool {
    (16..=256).contains(&head_dim) && head_dim.is_multiple_of(2)
}
