//! Parses what is outside of the bodies of kernels.

use super::{
    lex::{Token, lex},
    syntax::{Kernel, Type, Variable},
};
use crate::error::Refusal;

/// Tokens, and how far they have been read.
pub(super) struct Parser<'a> {
    tokens: Vec<(Token<'a>, u32)>,
    at: usize,
}

/// Parses PTX.
pub(crate) fn parse(text: &str) -> Result<Vec<Kernel>, Refusal> {
    let mut parser = Parser { tokens: lex(text)?, at: 0 };
    let mut kernels = Vec::new();
    while let Some(token) = parser.next() {
        match token {
            Token::Directive(".version" | ".target") => parser.skip_line(),
            Token::Directive(".address_size") if parser.number()? == 64 => {}
            Token::Directive(".visible") => {}
            Token::Directive(".entry") => kernels.push(parser.kernel()?),
            _ => return Err(parser.refuse("not supported outside of a kernel")),
        }
    }
    Ok(kernels)
}

impl<'a> Parser<'a> {
    /// The next token.
    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        let token = self.peek()?;
        self.at += 1;
        Some(token)
    }

    /// The next token, which is not taken.
    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|&(token, _)| token)
    }

    /// The line of the token that was read last.
    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at.saturating_sub(1)).map_or(0, |&(_, line)| line)
    }

    /// Says what is wrong in the line that was read last.
    pub(super) fn refuse(&self, why: impl Into<String>) -> Refusal {
        Refusal::new(self.line(), why)
    }

    /// Takes a mark if it comes next.
    pub(super) fn take(&mut self, mark: char) -> bool {
        let comes = self.peek() == Some(Token::Mark(mark));
        self.at += usize::from(comes);
        comes
    }

    /// Takes a directive if it comes next.
    pub(super) fn take_directive(&mut self, name: &str) -> bool {
        let comes = self.peek() == Some(Token::Directive(name));
        self.at += usize::from(comes);
        comes
    }

    /// Takes a mark that has to come.
    pub(super) fn expect(&mut self, mark: char) -> Result<(), Refusal> {
        if self.take(mark) {
            return Ok(());
        }
        self.at += 1;
        Err(self.refuse(format!("`{mark}` is missing")))
    }

    /// Takes a name that has to come.
    pub(super) fn word(&mut self) -> Result<&'a str, Refusal> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            _ => Err(self.refuse("a name is missing")),
        }
    }

    /// Takes a literal that has to come: the bits of it.
    pub(super) fn number(&mut self) -> Result<u64, Refusal> {
        let negative = self.take('-');
        let Some(Token::Number(text)) = self.next() else {
            return Err(self.refuse("a number is missing"));
        };
        let bits = literal(text).ok_or_else(|| self.refuse(format!("`{text}` is not a number")))?;
        Ok(if negative { bits.wrapping_neg() } else { bits })
    }

    /// Skips what is on the line of the last token.
    pub(super) fn skip_line(&mut self) {
        let line = self.line();
        while self.tokens.get(self.at).is_some_and(|&(_, other)| other == line) {
            self.at += 1;
        }
    }

    /// A kernel, after `.entry`.
    fn kernel(&mut self) -> Result<Kernel, Refusal> {
        let mut kernel = Kernel { name: self.word()?.to_owned(), line: self.line(), ..Kernel::default() };
        self.expect('(')?;
        while !self.take(')') {
            if self.next() != Some(Token::Directive(".param")) {
                return Err(self.refuse("a parameter is missing"));
            }
            kernel.parameters.push(self.variable()?);
            self.take(',');
        }
        while !self.take('{') {
            match self.next() {
                Some(Token::Directive(".maxntid")) => {
                    let mut most = self.number()?;
                    while self.take(',') {
                        most *= self.number()?;
                    }
                    kernel.most_threads = Some(most);
                }
                Some(Token::Directive(".minnctapersm")) => drop(self.number()?),
                _ => return Err(self.refuse("not supported in front of the body of a kernel")),
            }
        }
        self.body(&mut kernel)?;
        Ok(kernel)
    }

    /// A variable or parameter, after its state space.
    pub(super) fn variable(&mut self) -> Result<Variable, Refusal> {
        let align = if self.take_directive(".align") { self.number()? as usize } else { 1 };
        let type_ = match self.next() {
            Some(Token::Directive(name)) => Type::parse(&name[1..]),
            _ => None,
        };
        let type_ = type_.filter(|&type_| type_ != Type::Predicate);
        let type_ = type_.ok_or_else(|| self.refuse("this type of variable is not supported"))?;
        let width = usize::from(type_.width() / 8);
        let name = self.word()?.to_owned();
        let mut size = width;
        if self.take('[') {
            size = (self.number()? as usize).saturating_mul(width);
            self.expect(']')?;
        }
        Ok(Variable { name, align: align.max(width), size })
    }
}

/// The bits of a literal.
fn literal(text: &str) -> Option<u64> {
    match text.get(..2) {
        Some("0f" | "0d" | "0x") => u64::from_str_radix(&text[2..], 16).ok(),
        _ => text.parse().ok(),
    }
}
