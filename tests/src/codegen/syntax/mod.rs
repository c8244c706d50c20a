//! What single instructions do, for the two assembly languages.

mod aarch64;
mod x86_64;

/// An assembly language, as the compiler writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// AT&T: the destination is the last operand.
    X86_64,
    /// The destination is the first operand.
    AArch64,
}

impl Syntax {
    /// The language of a target triple, or of an architecture's name.
    pub(super) fn of_target(target: &str) -> Result<Self, String> {
        match target.split('-').next() {
            Some("x86_64") => Ok(Self::X86_64),
            Some("aarch64") => Ok(Self::AArch64),
            _ => Err(format!("{target}: x86_64 and aarch64 are the architectures with vector backends")),
        }
    }

    /// What comments begin with.
    pub(super) const fn comment(self) -> &'static str {
        match self {
            Self::X86_64 => "#",
            Self::AArch64 => "//",
        }
    }

    /// What an instruction does.
    pub(super) fn effects(self, mnemonic: &str, operands: &str) -> Effects {
        match self {
            Self::X86_64 => x86_64::effects(mnemonic, operands),
            Self::AArch64 => aarch64::effects(mnemonic, operands),
        }
    }
}

/// What an instruction does, as far as this check cares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Floating-point arithmetic.
    pub(super) arithmetic: Option<Arithmetic>,
    /// A call of a function.
    pub(super) call: bool,
    /// Takes part in it a vector register (scalar floating-point numbers live in those, too) or a mask.
    pub(super) vector: bool,
    /// Memory is read or written.
    pub(super) memory: Option<Access>,
}

/// Which way memory is accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Memory is an operand of what the instruction computes.
    Load,
    /// Memory is where the result goes.
    Store,
}

/// Floating-point arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arithmetic {
    /// How much at once.
    pub(super) width: Width,
    /// Products are added to a sum.
    pub(super) multiply_add: bool,
    /// In the architecture's first vector instructions, although all backends have newer ones for the same.
    pub(super) outdated: bool,
}

/// How much one instruction computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// One number.
    Scalar,
    /// A register of this many bits.
    Packed(u32),
}
