//! Parses the bodies of kernels.

use super::{
    lex::Token,
    parse::Parser,
    syntax::{Kernel, Operand, Statement, Type},
};
use crate::error::Refusal;
use std::collections::HashMap;

/// Registers of the braces that are open, the innermost last.
type Scopes = Vec<HashMap<String, u32>>;

impl Parser<'_> {
    /// The body of a kernel, after its opening brace.
    pub(super) fn body(&mut self, kernel: &mut Kernel) -> Result<(), Refusal> {
        let mut scopes: Scopes = vec![HashMap::new()];
        while !scopes.is_empty() {
            match self.next() {
                Some(Token::Mark('{')) => scopes.push(HashMap::new()),
                Some(Token::Mark('}')) => drop(scopes.pop()),
                Some(Token::Mark(';')) => {}
                Some(Token::Directive(".reg")) => self.registers(kernel, &mut scopes)?,
                Some(Token::Directive(".shared")) => kernel.shared.push(self.variable()?),
                Some(Token::Directive(".local")) => kernel.local.push(self.variable()?),
                Some(Token::Directive(".loc" | ".pragma" | ".file")) => self.skip_line(),
                Some(Token::Mark('@')) => {
                    let negated = self.take('!');
                    let name = self.word()?;
                    let guard = find(&scopes, name).ok_or_else(|| self.refuse("an unknown predicate"))?;
                    let opcode = self.word()?;
                    self.statement(kernel, &scopes, Some((guard, negated)), opcode)?;
                }
                Some(Token::Word(label)) if self.take(':') => {
                    if kernel.labels.insert(label.to_owned(), kernel.statements.len()).is_some() {
                        return Err(self.refuse("a label that is there already is not supported"));
                    }
                }
                Some(Token::Word(opcode)) => self.statement(kernel, &scopes, None, opcode)?,
                _ => return Err(self.refuse("not supported in a kernel")),
            }
        }
        Ok(())
    }

    /// Registers, after `.reg`.
    fn registers(&mut self, kernel: &mut Kernel, scopes: &mut Scopes) -> Result<(), Refusal> {
        let type_ = match self.next() {
            Some(Token::Directive(name)) => Type::parse(&name[1..]),
            _ => None,
        };
        let type_ = type_.ok_or_else(|| self.refuse("this type of register is not supported"))?;
        loop {
            let name = self.word()?;
            let names = match self.take('<') {
                true => {
                    let count = self.number()?;
                    self.expect('>')?;
                    (0..count.min(u64::from(u16::MAX))).map(|number| format!("{name}{number}")).collect()
                }
                false => vec![name.to_owned()],
            };
            let Some(scope) = scopes.last_mut() else { return Err(self.refuse("no braces are open")) };
            for name in names {
                scope.insert(name, kernel.registers.len() as u32);
                kernel.registers.push(type_);
            }
            if !self.take(',') {
                return self.expect(';');
            }
        }
    }

    /// An instruction, after its opcode.
    fn statement(
        &mut self,
        kernel: &mut Kernel,
        scopes: &Scopes,
        guard: Option<(u32, bool)>,
        opcode: &str,
    ) -> Result<(), Refusal> {
        let line = self.line();
        if opcode == "call" || opcode.starts_with("call.") {
            return Err(self.refuse("`call` is not supported: device functions have to be inlined"));
        }
        let mut operands = Vec::new();
        while !self.take(';') {
            operands.push(self.operand(scopes)?);
            self.take(',');
        }
        let opcode = opcode.split('.').map(str::to_owned).collect();
        kernel.statements.push(Statement { line, guard, opcode, operands });
        Ok(())
    }

    /// An operand.
    fn operand(&mut self, scopes: &Scopes) -> Result<Operand, Refusal> {
        let first = match self.peek() {
            Some(Token::Mark('{')) => {
                self.next();
                let mut parts = Vec::new();
                while !self.take('}') {
                    parts.push(self.operand(scopes)?);
                    self.take(',');
                }
                Operand::Vector(parts)
            }
            Some(Token::Mark('[')) => {
                self.next();
                let base = self.operand(scopes)?;
                let offset =
                    if self.take('+') || self.peek() == Some(Token::Mark('-')) { self.number()? } else { 0 };
                self.expect(']')?;
                Operand::Address(Box::new(base), offset as i64)
            }
            Some(Token::Mark('!')) => {
                self.next();
                Operand::Not(Box::new(self.operand(scopes)?))
            }
            Some(Token::Mark('-') | Token::Number(_)) => Operand::Number(self.number()?),
            _ => match self.word()? {
                "_" => Operand::Sink,
                name => find(scopes, name).map_or_else(|| Operand::Name(name.to_owned()), Operand::Register),
            },
        };
        Ok(match self.take('|') {
            true => Operand::Pair(Box::new(first), Box::new(self.operand(scopes)?)),
            false => first,
        })
    }
}

/// The register of a name, as the innermost braces that know it say.
fn find(scopes: &Scopes, name: &str) -> Option<u32> {
    scopes.iter().rev().find_map(|scope| scope.get(name)).copied()
}
