//! Splits PTX into tokens.

use crate::error::Refusal;

/// A piece of PTX.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    /// A name or an opcode with its suffixes: `%r1`, `%tid.x`, `add.rn.f32`, `$L__BB0_1`.
    Word(&'a str),
    /// A name that starts with a dot: `.reg`.
    Directive(&'a str),
    /// Whatever starts with a digit.
    Number(&'a str),
    /// What is between quotes.
    Text,
    /// Any other character.
    Mark(char),
}

/// Tokens, each with its line.
pub(super) fn lex(text: &str) -> Result<Vec<(Token<'_>, u32)>, Refusal> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if first.is_whitespace() => first.len_utf8(),
            _ => {
                let (token, length) = token(rest, first).map_err(|why| Refusal::new(line, why))?;
                tokens.push((token, line));
                length
            }
        };
        line += rest[..length].matches('\n').count() as u32;
        rest = &rest[length..];
    }
    Ok(tokens)
}

/// The token at the start of a text, and its length.
fn token(rest: &str, first: char) -> Result<(Token<'_>, usize), &'static str> {
    Ok(match first {
        '"' => match rest[1..].find('"') {
            Some(end) => (Token::Text, end + 2),
            None => return Err("a string without end"),
        },
        '0'..='9' => {
            let length = run(rest, |c| c.is_ascii_alphanumeric());
            (Token::Number(&rest[..length]), length)
        }
        '.' | '_' | '$' | '%' => word(rest, first),
        _ if first.is_ascii_alphabetic() => word(rest, first),
        _ => (Token::Mark(first), first.len_utf8()),
    })
}

/// A word, to which dots belong.
fn word(rest: &str, first: char) -> (Token<'_>, usize) {
    let length = run(rest, |c| c.is_ascii_alphanumeric() || "_$%.".contains(c));
    let text = &rest[..length];
    (if first == '.' { Token::Directive(text) } else { Token::Word(text) }, length)
}

/// How far characters belong together.
fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}
