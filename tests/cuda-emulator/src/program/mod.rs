//! Kernels as the machine runs them: instructions with resolved registers.

mod access;
mod compute;
mod decode;
mod together;

pub(crate) use decode::decode;

use crate::alu::Function;

/// A register of a thread, by its number. Constants and special registers are registers too.
pub(crate) type Slot = u16;

/// What is read and never set.
pub(crate) const ZERO: Slot = 0;

/// An instruction.
#[derive(Debug)]
pub(crate) struct Instruction {
    /// Done if this register...
    pub(crate) guard: Slot,
    /// ...has another truth than this.
    pub(crate) unless: bool,
    pub(crate) line: u32,
    pub(crate) operation: Operation,
}

/// What an instruction does.
#[derive(Debug)]
pub(crate) enum Operation {
    Compute {
        function: Function,
        to: Slot,
        from: [Slot; 4],
    },
    /// The halves of 64 bits.
    Split {
        low: Slot,
        high: Slot,
        from: Slot,
    },
    Branch {
        to: u32,
    },
    Exit,
    Load {
        access: Access,
        to: [Slot; 4],
    },
    Store {
        access: Access,
        from: [Slot; 4],
    },
    /// Adds to a word of global memory. Gives what was there.
    AtomicAdd {
        access: Access,
        to: Slot,
        by: Slot,
    },
    CopyLater(Box<Copy>),
    CloseGroup,
    /// Waits for all groups of copies but so many.
    WaitGroups {
        but: u32,
    },
    /// Waits for all threads of the block.
    Barrier,
    Together(Box<Together>),
}

/// Where memory is accessed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    pub(crate) space: Space,
    pub(crate) base: Slot,
    pub(crate) offset: i32,
    /// Bytes of an element.
    pub(crate) size: u8,
    pub(crate) count: u8,
}

/// State spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Shared,
}

/// A copy from global to shared memory that is only awaited later.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) to: Access,
    pub(crate) from: Access,
    /// How many bytes are read; zeros follow.
    pub(crate) read: Slot,
}

/// What lanes of a warp do together.
#[derive(Debug)]
pub(crate) struct Together {
    /// Which lanes.
    pub(crate) members: Slot,
    pub(crate) task: Task,
}

/// What lanes of a warp do together.
#[derive(Debug)]
pub(crate) enum Task {
    Wait,
    Shuffle {
        mode: Shuffle,
        to: Slot,
        valid: Slot,
        value: Slot,
        lane: Slot,
        clamp: Slot,
    },
    /// The lanes whose predicate holds.
    Ballot {
        to: Slot,
        predicate: Slot,
    },
    /// The lanes that have the same value.
    Match {
        to: Slot,
        value: Slot,
    },
    /// Loads four matrices of 8 by 8 halves of words.
    LoadMatrices {
        access: Access,
        to: [Slot; 4],
    },
    /// Adds a product of matrices of 16 by 8 and 8 by 8 floats.
    Multiply {
        to: [Slot; 4],
        a: [Slot; 4],
        b: [Slot; 2],
        c: [Slot; 4],
    },
}

/// Which lane a shuffle reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Butterfly,
    Index,
}

/// Registers that threads start with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    Thread(usize),
    BlockExtent(usize),
    Block(usize),
    GridExtent(usize),
    Parameter(usize),
}

/// A piece of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub(crate) name: String,
    /// Where it is in its space.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// A kernel.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) code: Vec<Instruction>,
    /// Registers of a thread at its start.
    pub(crate) registers: Vec<u64>,
    pub(crate) specials: Vec<(Slot, Special)>,
    pub(crate) parameters: Vec<Place>,
    pub(crate) most_threads: Option<u64>,
    pub(crate) shared: Vec<Place>,
}
