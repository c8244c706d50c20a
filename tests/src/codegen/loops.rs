//! The loops that the time is spent in.

use super::{
    listing::{Function, Instruction},
    syntax::{Access, Width},
};
use std::collections::HashSet;

/// A loop without the loops inside of it.
#[derive(Debug)]
pub(super) struct Loop<'a> {
    pub(super) function: &'a Function,
    /// The label that it begins with.
    pub(super) header: &'a str,
    /// The loops around it.
    parents: &'a [String],
    /// Whether there are no loops inside of it.
    pub(super) innermost: bool,
    pub(super) instructions: Vec<&'a Instruction>,
}

impl<'a> Loop<'a> {
    /// Those of the instructions that are like this.
    pub(super) fn select(&self, like: impl Fn(&Instruction) -> bool) -> Vec<&'a Instruction> {
        self.instructions.iter().copied().filter(|&instruction| like(instruction)).collect()
    }

    /// Packed multiply-adds.
    pub(super) fn multiply_adds(&self) -> usize {
        self.select(is_multiply_add).len()
    }

    /// Instructions that take vectors from memory.
    pub(super) fn loads(&self) -> usize {
        self.select(|one| one.effects.vector && one.effects.memory == Some(Access::Load)).len()
    }

    /// Instructions that put vectors into memory.
    pub(super) fn stores(&self) -> usize {
        self.select(|one| one.effects.vector && one.effects.memory == Some(Access::Store)).len()
    }
}

fn is_multiply_add(instruction: &Instruction) -> bool {
    let packed = |width| matches!(width, Width::Packed(_));
    instruction.effects.arithmetic.is_some_and(|found| found.multiply_add && packed(found.width))
}

/// The innermost ones among the loops of a function that hold packed multiply-adds: a loop around them may hold some
/// as well, for what is left over of a row, and a loop inside of them none, for prefetches.
pub(super) fn multiply_add_loops(function: &Function) -> Vec<Loop<'_>> {
    let mut loops = all_loops(function);
    let outer = headers_around(&loops);
    loops.iter_mut().for_each(|found| found.innermost = !outer.contains(found.header));
    loops.retain(|found| found.multiply_adds() > 0);
    let outer = headers_around(&loops);
    loops.retain(|found| !outer.contains(found.header));
    loops
}

/// The loops inside of a loop.
pub(super) fn inside<'a>(function: &'a Function, header: &str) -> Vec<Loop<'a>> {
    let mut loops = all_loops(function);
    loops.retain(|found| found.parents.iter().any(|parent| parent == header));
    loops
}

fn headers_around<'a>(loops: &[Loop<'a>]) -> HashSet<&'a str> {
    loops.iter().flat_map(|found| found.parents).map(String::as_str).collect()
}

fn all_loops(function: &Function) -> Vec<Loop<'_>> {
    let mut loops: Vec<Loop<'_>> = Vec::new();
    for block in &function.blocks {
        let Some(header) = block.header.as_deref() else { continue };
        let at = loops.iter().position(|found| found.header == header).unwrap_or_else(|| {
            loops.push(Loop { function, header, parents: &[], innermost: true, instructions: Vec::new() });
            loops.len() - 1
        });
        loops[at].instructions.extend(&block.instructions);
        if !block.parents.is_empty() {
            loops[at].parents = &block.parents;
        }
    }
    loops
}
