//! Kernels as the machine runs them: instructions with resolved registers.

mod access;
mod comparison;
mod compute;
mod decode;
mod link;
mod warp;

pub(crate) use compute::{LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW, extended};
pub(crate) use decode::decode;
pub(crate) use link::{Layout, START};

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
    Branch {
        to: u32,
    },
    Exit,
    Trap,
    Nothing,
    Time {
        to: Slot,
    },
    Load {
        access: Access,
        to: [Slot; 4],
        sign: Option<u8>,
    },
    Store {
        access: Access,
        from: [Slot; 4],
    },
    Atomic(Box<Atomic>),
    CopyLater(Box<Copy>),
    CloseGroup,
    /// Waits for all groups of copies but so many.
    WaitGroups {
        but: u32,
    },
    /// Waits for all copies, those of no group too.
    WaitAll,
    Barrier(Box<Barrier>),
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
    Constant,
    Shared,
    Local,
    Parameter,
    /// Any of the others: the address says which.
    Generic,
}

/// A read and a write that nothing comes between.
#[derive(Debug)]
pub(crate) struct Atomic {
    pub(crate) access: Access,
    /// New from old and the operands.
    pub(crate) function: Function,
    /// Where the old value goes.
    pub(crate) to: Slot,
    pub(crate) from: [Slot; 2],
}

/// A copy from global to shared memory that is only awaited later.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) to: Access,
    pub(crate) from: Access,
    /// How many bytes are read; zeros follow.
    pub(crate) read: Slot,
}

/// What a barrier of the block gives to its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vote {
    Nothing,
    Count,
    All,
    Any,
}

/// A barrier of the block.
#[derive(Debug)]
pub(crate) struct Barrier {
    pub(crate) name: Slot,
    pub(crate) vote: Vote,
    pub(crate) to: Slot,
    pub(crate) predicate: Slot,
    /// Whether the threads of a warp have to come to it together.
    pub(crate) aligned: bool,
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
    /// Whether it holds in so many lanes.
    Vote {
        to: Slot,
        predicate: Slot,
        kind: Agreement,
    },
    /// The lanes that have the same value.
    MatchAny {
        to: Slot,
        value: Slot,
    },
    /// The lanes, if all have the same value.
    MatchAll {
        to: Slot,
        same: Slot,
        value: Slot,
    },
    Reduce {
        function: Function,
        to: Slot,
        value: Slot,
    },
    LoadMatrices {
        access: Access,
        to: [Slot; 4],
        transposed: bool,
    },
    Multiply {
        kind: Tiles,
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
    Down,
    Butterfly,
    Index,
}

/// What a vote asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreement {
    All,
    Any,
    /// Whether all lanes have the same truth.
    Uniform,
}

/// Tiles that are multiplied: 16 by 8 results of 8 or 16 products each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tiles {
    /// 8 products of floats of 19 bits.
    Tensor,
    /// 16 products of floats of 16 bits.
    Brain,
}

/// Registers that threads start with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Thread(u8),
    BlockExtent(u8),
    Block(u8),
    GridExtent(u8),
    Lane,
    Warp,
    WarpCount,
    LaneMask(LaneMask),
}

/// Lanes by how their number compares with a lane's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LaneMask {
    Equal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// A parameter of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Where it is among all.
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
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) shared: Layout,
    pub(crate) local: Layout,
    /// Bytes of shared memory whose accesses are told apart.
    pub(crate) granule: usize,
}
