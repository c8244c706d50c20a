//! Parses the bodies of kernels.

use super::{
    lex::Token,
    parse::Parser,
    syntax::{Kernel, Operand, Statement, Type},
};
use crate::error::Refusal;

impl Parser<'_> {
    /// The body of a kernel, after its opening brace.
    pub(super) fn body(&mut self, kernel: &mut Kernel) -> Result<(), Refusal> {
        loop {
            match self.next() {
                Some(Token::Mark('}')) => return Ok(()),
                Some(Token::Directive(".reg")) => self.registers(kernel)?,
                Some(Token::Directive(".shared")) => {
                    kernel.shared.push(self.variable()?);
                    self.expect(';')?;
                }
                Some(Token::Directive(".pragma")) => self.skip_line(),
                Some(Token::Mark('@')) => {
                    let negated = self.take('!');
                    let name = self.word()?;
                    let guard = kernel.names.get(name).copied();
                    let guard = guard.ok_or_else(|| self.refuse("an unknown predicate"))?;
                    let opcode = self.word()?;
                    self.statement(kernel, Some((guard, negated)), opcode)?;
                }
                Some(Token::Word(label)) if self.take(':') => {
                    kernel.labels.insert(label.to_owned(), kernel.statements.len());
                }
                Some(Token::Word(opcode)) => self.statement(kernel, None, opcode)?,
                _ => return Err(self.refuse("not supported in a kernel")),
            }
        }
    }

    /// Registers, after `.reg`.
    fn registers(&mut self, kernel: &mut Kernel) -> Result<(), Refusal> {
        let type_ = match self.next() {
            Some(Token::Directive(name)) => Type::parse(&name[1..]),
            _ => None,
        };
        let type_ = type_.ok_or_else(|| self.refuse("this type of register is not supported"))?;
        let name = self.word()?;
        self.expect('<')?;
        let count = self.number()?;
        self.expect('>')?;
        for number in 0..count.min(u64::from(u16::MAX)) {
            kernel.names.insert(format!("{name}{number}"), kernel.registers.len() as u32);
            kernel.registers.push(type_);
        }
        self.expect(';')
    }

    /// An instruction, after its opcode.
    fn statement(
        &mut self,
        kernel: &mut Kernel,
        guard: Option<(u32, bool)>,
        opcode: &str,
    ) -> Result<(), Refusal> {
        let line = self.line();
        let unread = || Refusal::new(line, format!("`{opcode}` is not supported with these operands"));
        let mut operands = Vec::new();
        while !self.take(';') {
            operands.push(self.operand(kernel).map_err(|_| unread())?);
            self.take(',');
        }
        kernel.statements.push(Statement { line, guard, opcode: opcode.to_owned(), operands });
        Ok(())
    }

    /// An operand.
    fn operand(&mut self, kernel: &Kernel) -> Result<Operand, Refusal> {
        let first = match self.peek() {
            Some(Token::Mark('{')) => {
                self.next();
                let mut parts = Vec::new();
                while !self.take('}') {
                    parts.push(self.operand(kernel)?);
                    self.take(',');
                }
                Operand::Vector(parts)
            }
            Some(Token::Mark('[')) => {
                self.next();
                let base = self.operand(kernel)?;
                let offset = if self.take('+') { self.number()? } else { 0 };
                self.expect(']')?;
                Operand::Address(Box::new(base), offset as i64)
            }
            Some(Token::Mark('-') | Token::Number(_)) => Operand::Number(self.number()?),
            _ => {
                let name = self.word()?;
                let register = kernel.names.get(name).copied();
                register.map_or_else(|| Operand::Name(name.to_owned()), Operand::Register)
            }
        };
        Ok(match self.take('|') {
            true => Operand::Pair(Box::new(first), Box::new(self.operand(kernel)?)),
            false => first,
        })
    }
}
