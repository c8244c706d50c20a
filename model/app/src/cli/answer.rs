//! One request from beginning to end, shown as it comes.

use super::{interrupt, progress::Progress};
use a2ats_model::{
    Result,
    engine::{End, Engine, Event, Request},
};

/// Runs a request. Text goes to `show` as it comes; Ctrl-C ends it.
pub(super) fn answer(
    engine: &mut Engine<'_>,
    request: Request,
    show: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<End> {
    let mut progress = Some(Progress::of_prompt(request.prompt.len()));
    let id = engine.submit(request)?;
    loop {
        let (mut outcome, mut shown) = (None, Ok(()));
        let mut tell = |event| match event {
            Event::Reading { done, .. } => progress.iter_mut().for_each(|progress| progress.show(done)),
            Event::Token { text, .. } => {
                progress = None;
                if shown.is_ok() && !text.is_empty() {
                    shown = show(&text);
                }
            }
            Event::Finished { end, .. } => outcome = Some(Ok(*end)),
            Event::Failed { error, .. } => outcome = Some(Err(error)),
        };
        if engine.step(&mut tell, &mut interrupt::flow).is_break() || interrupt::requested() {
            engine.cancel(id, &mut tell);
        }
        if outcome.is_none() && shown.is_err() {
            engine.cancel(id, &mut |_| {});
        }
        shown?;
        if let Some(outcome) = outcome {
            let end = outcome?;
            if !end.text.is_empty() {
                show(&end.text)?;
            }
            return Ok(end);
        }
    }
}
