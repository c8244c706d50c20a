//! Decodes comparisons.

use super::{Slot, ZERO, decode::Decoder};
use crate::{
    alu::{combine, compare, negate, select},
    error::Refusal,
    ptx::{Operand, Type},
};

impl Decoder<'_> {
    /// The result of a comparison in a scratch register, and its operands.
    fn compared(
        &mut self,
        modifiers: &[&str],
        type_: &str,
        operands: &[Operand],
    ) -> Result<Option<Slot>, Refusal> {
        let [comparison, rest @ ..] = modifiers else { return Ok(None) };
        let type_ = Type::parse(type_);
        let Some((type_, function)) = type_.and_then(|type_| Some((type_, compare(comparison, type_)?)))
        else {
            return Ok(None);
        };
        let (combined, flushes) = match rest {
            [] => (None, false),
            ["ftz"] => (None, true),
            [how] => (Some(combine(how)), false),
            [how, "ftz"] => (Some(combine(how)), true),
            _ => return Ok(None),
        };
        let [a, b, joined @ ..] = operands else { return Ok(None) };
        let (mut a, mut b) = (self.source(a)?, self.source(b)?);
        if flushes && type_ == Type::Float(32) {
            (a, b) = (self.flushed(a), self.flushed(b));
        }
        let to = self.scratch();
        self.compute(function, to, [a, b, ZERO, ZERO]);
        match (combined, joined) {
            (None, []) => Ok(Some(to)),
            (Some(Some(_)), [_]) => Ok(Some(to)),
            _ => Ok(None),
        }
    }

    /// `setp`: one or two predicates.
    pub(super) fn comparison(
        &mut self,
        modifiers: &[&str],
        type_: &str,
        operands: &[Operand],
    ) -> Result<bool, Refusal> {
        let [to, from @ ..] = operands else { return Ok(false) };
        let Some(result) = self.compared(modifiers, type_, from)? else { return Ok(false) };
        let how = modifiers.get(1).and_then(|how| combine(how)).unwrap_or(|a, _, _, _| a);
        let other = match from.get(2) {
            Some(other) => self.source(other)?,
            None => ZERO,
        };
        let Operand::Pair(first, second) = to else {
            let to = self.target(to)?;
            self.compute(how, to, [result, other, ZERO, ZERO]);
            return Ok(true);
        };
        let opposite = self.scratch();
        self.compute(negate, opposite, [result, ZERO, ZERO, ZERO]);
        let (first, second) = (self.target(first)?, self.target(second)?);
        // Either target may be the guard, or the other predicate: all is known before one is set, and the guard is set last.
        for slot in [result, opposite] {
            self.compute(how, slot, [slot, other, ZERO, ZERO]);
        }
        let mut moves = [(second, opposite), (first, result)];
        if self.is_guard(second) {
            moves.reverse();
        }
        for (to, from) in moves {
            self.compute(|a, _, _, _| a, to, [from, ZERO, ZERO, ZERO]);
        }
        Ok(true)
    }

    /// `set`: a value for each outcome.
    pub(super) fn comparison_value(
        &mut self,
        modifiers: &[&str],
        result: &str,
        type_: &str,
        operands: &[Operand],
    ) -> Result<bool, Refusal> {
        let [to, from @ ..] = operands else { return Ok(false) };
        let value = Type::parse(result).and_then(|result| select("set", &[result]));
        let (Some(value), Some(truth)) = (value, self.compared(modifiers, type_, from)?) else {
            return Ok(false);
        };
        if let (Some(how), Some(other)) = (modifiers.get(1).and_then(|how| combine(how)), from.get(2)) {
            let other = self.source(other)?;
            self.compute(how, truth, [truth, other, ZERO, ZERO]);
        }
        let to = self.target(to)?;
        self.compute(value, to, [truth, ZERO, ZERO, ZERO]);
        Ok(true)
    }
}
