//! Parses what is outside of the bodies of kernels.

use super::{
    lex::{Token, lex},
    syntax::{Kernel, Source},
};
use crate::error::Refusal;

/// Tokens, and how far they have been read.
pub(super) struct Parser<'a> {
    tokens: Vec<(Token<'a>, u32)>,
    at: usize,
}

/// Parses PTX.
pub(crate) fn parse(text: &str) -> Result<Source, Refusal> {
    let mut parser = Parser { tokens: lex(text)?, at: 0 };
    let mut source = Source::default();
    while let Some(token) = parser.next() {
        match token {
            Token::Directive(".version") => drop(parser.number()?),
            Token::Directive(".address_size") if parser.number()? == 64 => {}
            Token::Directive(".target" | ".file" | ".loc") => parser.skip_line(),
            Token::Directive(".visible" | ".extern" | ".weak") => {}
            Token::Directive(".section") => parser.skip_block()?,
            Token::Directive(".global") => source.global.push(parser.variable()?),
            Token::Directive(".const") => source.constant.push(parser.variable()?),
            Token::Directive(".shared") => source.shared.push(parser.variable()?),
            Token::Directive(".entry") => source.kernels.push(parser.kernel()?),
            _ => return Err(parser.refuse("not supported outside of a kernel")),
        }
    }
    Ok(source)
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

    /// Skips all up to the end of the next braces.
    fn skip_block(&mut self) -> Result<(), Refusal> {
        let mut depth = 0;
        while let Some(token) = self.next() {
            match token {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') if depth == 1 => return Ok(()),
                Token::Mark('}') => depth -= 1,
                _ => {}
            }
        }
        Err(self.refuse("braces without end"))
    }

    /// A kernel, after `.entry`.
    fn kernel(&mut self) -> Result<Kernel, Refusal> {
        let mut kernel = Kernel { name: self.word()?.to_owned(), line: self.line(), ..Kernel::default() };
        if self.take('(') {
            while !self.take(')') {
                if !self.take_directive(".param") {
                    return Err(self.refuse("a parameter is missing"));
                }
                kernel.parameters.push(self.parameter()?);
                self.take(',');
            }
        }
        while !self.take('{') {
            match self.next() {
                Some(Token::Directive(".maxntid" | ".reqntid")) => kernel.max_threads = Some(self.extent()?),
                Some(Token::Directive(".minnctapersm" | ".maxnreg")) => drop(self.number()?),
                _ => return Err(self.refuse("not supported in front of the body of a kernel")),
            }
        }
        self.body(&mut kernel)?;
        Ok(kernel)
    }

    /// One to three numbers.
    fn extent(&mut self) -> Result<[u32; 3], Refusal> {
        let mut extent = [1; 3];
        extent[0] = self.number()? as u32;
        for along in &mut extent[1..] {
            if self.take(',') {
                *along = self.number()? as u32;
            }
        }
        Ok(extent)
    }
}

/// The bits of a literal.
fn literal(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches('U');
    match digits.get(..2) {
        Some("0f" | "0F") => u32::from_str_radix(&digits[2..], 16).ok().map(u64::from),
        Some("0d" | "0D") => u64::from_str_radix(&digits[2..], 16).ok(),
        Some("0x" | "0X") => u64::from_str_radix(&digits[2..], 16).ok(),
        Some("0b" | "0B") => u64::from_str_radix(&digits[2..], 2).ok(),
        Some(octal) if octal.starts_with('0') && !digits.contains('.') => u64::from_str_radix(digits, 8).ok(),
        _ if digits.contains('.') => digits.parse::<f64>().ok().map(f64::to_bits),
        _ => digits.parse().ok(),
    }
}
