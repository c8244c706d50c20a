//! Parses declarations of variables and parameters.

use super::{
    lex::Token,
    parse::Parser,
    syntax::{Type, Variable},
};
use crate::error::Refusal;

impl Parser<'_> {
    /// A variable, after its state space, up to and with the semicolon.
    pub(super) fn variable(&mut self) -> Result<Variable, Refusal> {
        let mut variable = self.declared()?;
        if self.take('=') {
            let width = variable.initial.pop().map_or(1, usize::from);
            self.initial(width, &mut variable.initial)?;
        }
        variable.initial.truncate(variable.size.unwrap_or(0));
        self.expect(';')?;
        Ok(variable)
    }

    /// A parameter of a kernel, after `.param`.
    pub(super) fn parameter(&mut self) -> Result<Variable, Refusal> {
        let mut parameter = self.declared()?;
        parameter.initial.clear();
        Ok(parameter)
    }

    /// Alignment, type, name, and extents. The width of an element, in bytes, is left in `initial`.
    fn declared(&mut self) -> Result<Variable, Refusal> {
        let mut align = if self.take_directive(".align") { self.number()? as usize } else { 1 };
        let type_ = match self.next() {
            Some(Token::Directive(name)) => Type::parse(&name[1..]),
            _ => None,
        };
        let Some(type_) = type_.filter(|&type_| type_ != Type::Predicate) else {
            return Err(self.refuse("this type of variable is not supported"));
        };
        if self.take_directive(".ptr") {
            self.skip_pointer_hints()?;
        }
        let width = usize::from(type_.width() / 8);
        align = align.max(width);
        let name = self.word()?.to_owned();
        let mut size = Some(width);
        while self.take('[') {
            size = match self.take(']') {
                true => None,
                false => {
                    let count = self.number()? as usize;
                    self.expect(']')?;
                    size.and_then(|size| size.checked_mul(count))
                }
            };
        }
        Ok(Variable { name, align, size, initial: vec![width as u8] })
    }

    /// What `.ptr` says about where a pointer points is not needed.
    fn skip_pointer_hints(&mut self) -> Result<(), Refusal> {
        while let Some(Token::Directive(name)) = self.peek() {
            self.next();
            if name == ".align" {
                self.number()?;
            }
        }
        Ok(())
    }

    /// Values of elements, as deep in braces as they are.
    fn initial(&mut self, width: usize, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
        if !self.take('{') {
            let value = self.number()?;
            bytes.extend(&value.to_le_bytes()[..width]);
            return Ok(());
        }
        while !self.take('}') {
            self.initial(width, bytes)?;
            self.take(',');
        }
        Ok(())
    }
}
