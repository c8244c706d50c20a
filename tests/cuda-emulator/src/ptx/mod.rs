//! The text of PTX: tokens, then kernels of statements.

mod body;
mod lex;
mod parse;
mod syntax;

pub(crate) use parse::parse;
pub(crate) use syntax::{Kernel, Operand, Statement, Type, Variable};
