//! What PTX says: types, variables, kernels, statements.

use std::collections::HashMap;

/// Type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// Bits, of which only the width matters.
    Bits(u8),
    /// Integers without sign, by width.
    Unsigned(u8),
    /// Integers with sign, by width.
    Signed(u8),
    /// Floats, by width.
    Float(u8),
    /// One bit.
    Predicate,
}

impl Type {
    /// The type of a suffix.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "pred" {
            return Some(Self::Predicate);
        }
        let width = match text.get(1..)? {
            "8" => 8,
            "16" => 16,
            "32" => 32,
            "64" => 64,
            _ => return None,
        };
        match text.as_bytes()[0] {
            b'b' => Some(Self::Bits(width)),
            b'u' => Some(Self::Unsigned(width)),
            b's' => Some(Self::Signed(width)),
            b'f' if width > 16 => Some(Self::Float(width)),
            _ => None,
        }
    }

    /// Bits of a value.
    pub(crate) fn width(self) -> u8 {
        match self {
            Self::Bits(width) | Self::Unsigned(width) | Self::Signed(width) | Self::Float(width) => width,
            Self::Predicate => 1,
        }
    }
}

/// A named piece of memory.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) align: usize,
    pub(crate) size: usize,
}

/// An operand of an instruction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    /// A register, by its number in the kernel.
    Register(u32),
    /// Any other name: a special register, a variable, a label.
    Name(String),
    /// The bits of a literal; whole numbers with their sign.
    Number(u64),
    /// `[base+offset]`.
    Address(Box<Self>, i64),
    /// `{a,b}`.
    Vector(Vec<Self>),
    /// `a|b`.
    Pair(Box<Self>, Box<Self>),
}

/// An instruction.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) line: u32,
    /// The predicate it depends on, and whether that has to be false.
    pub(crate) guard: Option<(u32, bool)>,
    pub(crate) opcode: String,
    pub(crate) operands: Vec<Operand>,
}

/// An entry.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) line: u32,
    pub(crate) parameters: Vec<Variable>,
    /// Threads per block at most, if it says.
    pub(crate) most_threads: Option<u64>,
    pub(crate) registers: Vec<Type>,
    /// The numbers of registers.
    pub(crate) names: HashMap<String, u32>,
    pub(crate) shared: Vec<Variable>,
    pub(crate) statements: Vec<Statement>,
    /// Where labels point, in statements.
    pub(crate) labels: HashMap<String, usize>,
}
