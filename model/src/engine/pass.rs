//! A pass over the weights, and what follows it.

use super::{
    Engine,
    answer::{Answer, Next},
    request::Event,
};
use crate::{
    attention::PREFILL_CHUNK,
    batch::{Batch, Chunk, Wanted},
    error::Result,
    sequence::Sequence,
};
use std::ops::{ControlFlow, Range};

/// The prompt that is being read.
pub(super) struct Reading<'m> {
    pub(super) answer: Answer<'m>,
    pub(super) sequence: Sequence,
    pub(super) prompt: Vec<u32>,
    pub(super) done: usize,
}

impl Reading<'_> {
    /// The chunk that comes next.
    fn chunk(&self) -> &[u32] {
        chunk_of(&self.prompt, self.done)
    }
}

/// What is read next of a prompt.
fn chunk_of(prompt: &[u32], done: usize) -> &[u32] {
    &prompt[done..prompt.len().min(done + PREFILL_CHUNK)]
}

/// Some of the requests: of those that decode, and whether the one that reads.
pub(super) struct Who {
    pub(super) steps: Range<usize>,
    pub(super) reads: bool,
}

impl Who {
    fn count(&self) -> usize {
        self.steps.len() + usize::from(self.reads)
    }

    /// Two parts, if there are two of them at least.
    fn halves(&self) -> Option<[Self; 2]> {
        let Range { start, end } = self.steps;
        let middle = if self.reads { end } else { start + self.steps.len() / 2 };
        let halves =
            [Self { steps: start..middle, reads: false }, Self { steps: middle..end, reads: self.reads }];
        (self.count() > 1).then_some(halves)
    }
}

impl<'m> Engine<'m> {
    /// Takes some of the requests a step further. Where that fails halves of them go on, until it is clear whose error it is.
    pub(super) fn advance(
        &mut self,
        who: Who,
        tell: &mut dyn FnMut(Event),
        keep_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if who.count() == 0 {
            return ControlFlow::Continue(());
        }
        match (self.forward(&who, tell, keep_on), who.halves()) {
            (Ok(ControlFlow::Break(())), _) => return ControlFlow::Break(()),
            (Ok(ControlFlow::Continue(())), _) => self.choose_tokens(&who, tell),
            (Err(_), Some([lower, upper])) => {
                // The upper one first: who ends makes room for the last.
                self.advance(upper, tell, keep_on)?;
                self.advance(lower, tell, keep_on)?;
            }
            (Err(error), None) => {
                let request = match self.reading.take_if(|_| who.reads) {
                    Some(reading) => reading.answer.id,
                    None => self.take(who.steps.start).0.id,
                };
                tell(Event::Failed { request, error });
            }
        }
        ControlFlow::Continue(())
    }

    /// The pass itself.
    fn forward(
        &mut self,
        who: &Who,
        tell: &mut dyn FnMut(Event),
        keep_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let layers = self.model.spec.num_hidden_layers;
        let reading = self.reading.as_mut().filter(|_| who.reads);
        let progress = reading.as_ref().map(|reading| {
            let (request, of) = (reading.answer.id, reading.prompt.len());
            (request, reading.done, reading.chunk().len(), of)
        });
        let chunk = reading.map(|Reading { sequence, prompt, done, .. }| {
            let ids = chunk_of(prompt, *done);
            let is_last = *done + ids.len() == prompt.len();
            let logits = if is_last { Wanted::Last } else { Wanted::None };
            Chunk { sequence, ids, logits, observer: None }
        });
        let (steps, ids) = (&mut self.sequences[who.steps.clone()], &self.ids[who.steps.clone()]);
        self.model.forward(&mut Batch { steps, ids, chunk }, &mut self.workspace, &mut |layer| {
            if let Some((request, done, chunk, of)) = progress {
                tell(Event::Reading { request, done: done + chunk * layer / layers, of });
            }
            keep_on()
        })
    }

    /// What follows a pass: tokens are chosen, stores sorted, and who is done ends.
    fn choose_tokens(&mut self, who: &Who, tell: &mut dyn FnMut(Event)) {
        if who.reads {
            self.finish_chunk(who.steps.len(), tell);
        }
        for (row, number) in who.steps.clone().enumerate().rev() {
            let (sequence, answer) = (&mut self.sequences[number], &mut self.answers[number]);
            let logits = self.workspace.logits_mut(row);
            let next = sequence
                .sort_some(self.model.kernels)
                .and_then(|()| answer.next(logits, sequence, &self.options.end_of_sequence, tell));
            match next {
                Ok(Next::Token(id)) => self.ids[number] = id,
                other => {
                    let (answer, sequence, _) = self.take(number);
                    end(answer, sequence, other, tell);
                }
            }
        }
    }

    /// Goes on to the next chunk, or to decoding with the logits in `row`.
    fn finish_chunk(&mut self, row: usize, tell: &mut dyn FnMut(Event)) {
        let Some(mut reading) = self.reading.take() else { return };
        reading.done += reading.chunk().len();
        reading.answer.has_read(reading.done);
        if reading.done < reading.prompt.len() {
            self.reading = Some(reading);
            return;
        }
        let Reading { mut answer, mut sequence, .. } = reading;
        let logits = self.workspace.logits_mut(row);
        let sorted = sequence.sort(self.model.kernels);
        let next = sorted.and_then(|()| {
            answer.begin_to_decode(&sequence);
            answer.next(logits, &sequence, &self.options.end_of_sequence, tell)
        });
        match next {
            Ok(Next::Token(id)) => {
                self.answers.push(answer);
                self.sequences.push(sequence);
                self.ids.push(id);
            }
            other => end(answer, sequence, other, tell),
        }
    }

    /// Takes one of those that decode out.
    pub(super) fn take(&mut self, number: usize) -> (Answer<'m>, Sequence, u32) {
        let (answer, sequence) = (self.answers.swap_remove(number), self.sequences.swap_remove(number));
        (answer, sequence, self.ids.swap_remove(number))
    }
}

/// Tells how a request ended.
pub(super) fn end(answer: Answer<'_>, sequence: Sequence, next: Result<Next>, tell: &mut dyn FnMut(Event)) {
    let request = answer.id;
    let told = match next {
        Ok(Next::End(stop, unread)) => answer.end(stop, sequence, unread, tell),
        Ok(Next::Token(_)) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = told {
        tell(Event::Failed { request, error });
    }
}
