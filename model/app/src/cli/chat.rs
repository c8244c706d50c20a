//! `a2ats chat`: a conversation that keeps its KV cache between turns.

use super::{
    CommandResult, Outcome, interrupt,
    load::{Loaded, with_threads},
    options::{ModelOptions, SamplingArguments},
    output::{print, say},
    progress::Progress,
    prompt::{message, no_template},
};
use a2ats_model::{
    Error, Result, Session,
    engine::sampling::Sampler,
    generate::{Limits, Stop, generate},
    session::longest_context,
    text::template::{ChatTemplate, Message},
};
use clap::Args;
use rustyline::{DefaultEditor, error::ReadlineError};
use std::ops::ControlFlow;

/// Room for tokens to begin with, where no context length is given; more comes as it is needed.
const FIRST_ROOM: usize = 4096;

/// Talk to a model; what was said is not read again.
///
/// Type a line to say it; /reset starts over, /quit or Ctrl-D leaves, Ctrl-C stops an answer. With the embedded demo
/// model, paste a ledger such as "The falcon keeps marble. …" followed by a question.
#[derive(Args)]
pub(super) struct Chat {
    /// What the model is told before the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    #[command(flatten)]
    model: ModelOptions,

    #[command(flatten)]
    sampling: SamplingArguments,
}

/// A conversation so far.
struct Conversation<'m> {
    loaded: &'m Loaded,
    template: &'m ChatTemplate,
    session: Session<'m>,
    messages: Vec<Message>,
    /// The text of the tokens in the session and in `unread`.
    transcript: String,
    /// How many tokens the session held when that was their text.
    read: usize,
    /// A token that was made but not yet passed through the model.
    unread: Option<u32>,
}

impl Chat {
    pub(super) fn run(&self) -> CommandResult {
        let mut sampler = Sampler::new(self.sampling.options())?;
        interrupt::listen()?;
        let loaded = with_threads(self.model.threads, || Loaded::new(&self.model))??;
        let failed = |error: ReadlineError| Error::io("terminal")(std::io::Error::other(error));
        let mut editor = DefaultEditor::new().map_err(failed)?;
        let mut conversation = self.begin(&loaded)?;
        say(&format!(
            "{}, {} attention, {}; /reset starts over, /quit leaves",
            loaded.name,
            loaded.attention.name(),
            loaded.model.kernels().name()
        ));
        loop {
            let line = match editor.readline("> ") {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Ok(Outcome::Done),
                Err(error) => return Err(failed(error)),
            };
            match line.trim() {
                "" => continue,
                "/quit" => return Ok(Outcome::Done),
                "/reset" => conversation = self.begin(&loaded)?,
                said => {
                    // History is a convenience: a full one is not worth ending a conversation.
                    let _ = editor.add_history_entry(said);
                    self.turn(&mut conversation, &mut sampler, said)?;
                }
            }
        }
    }

    fn begin<'m>(&self, loaded: &'m Loaded) -> Result<Conversation<'m>> {
        let template = loaded.template.as_ref().ok_or_else(|| no_template(loaded))?;
        let session = self.session(loaded)?;
        let messages = self.system.iter().map(|text| message("system", text)).collect();
        Ok(Conversation {
            loaded,
            template,
            session,
            messages,
            transcript: String::new(),
            read: 0,
            unread: None,
        })
    }

    fn session<'m>(&self, loaded: &'m Loaded) -> Result<Session<'m>> {
        let room = FIRST_ROOM.min(longest_context(&loaded.model));
        Session::new(&loaded.model, loaded.codebooks.as_ref(), loaded.attention, self.model.kv_dtype, room)
    }

    /// One exchange. What cannot be said (a context that is full, say) is reported and taken back.
    fn turn(&self, conversation: &mut Conversation<'_>, sampler: &mut Sampler, said: &str) -> Result<()> {
        conversation.messages.push(message("user", said));
        interrupt::clear();
        let answer = with_threads(self.model.threads, || self.answer(conversation, sampler))?;
        match answer {
            Ok(Some(text)) => conversation.messages.push(message("assistant", text.trim())),
            Ok(None) => {
                say("interrupted");
                conversation.messages.pop();
            }
            Err(error @ (Error::TooLarge(_) | Error::File { .. })) => {
                super::output::say_error(&error);
                conversation.messages.pop();
                if conversation.session.ids().len() != conversation.read {
                    // It came in the middle of an answer, which is now in the session and not in the transcript.
                    self.forget(conversation)?;
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Empties the session, so that the next turn reads the whole conversation again.
    fn forget(&self, conversation: &mut Conversation<'_>) -> Result<()> {
        conversation.session = self.session(conversation.loaded)?;
        conversation.transcript.clear();
        conversation.read = 0;
        conversation.unread = None;
        Ok(())
    }

    /// The answer to the last message; none if it was interrupted before it began.
    fn answer(&self, conversation: &mut Conversation<'_>, sampler: &mut Sampler) -> Result<Option<String>> {
        let loaded = conversation.loaded;
        let prompt = conversation.template.render(&conversation.messages, true)?;
        let new = unread_part(&prompt, &conversation.transcript);
        let ids = match new {
            Some(new) => {
                let mut ids: Vec<u32> = conversation.unread.into_iter().collect();
                ids.extend(loaded.tokenizer.encode(new, false)?);
                ids
            }
            None => {
                say(
                    "the template writes earlier turns differently now: reading the whole conversation again",
                );
                let ids = loaded.tokenizer.encode(&prompt, false)?;
                self.forget(conversation)?;
                ids
            }
        };
        let mut progress = Progress::of_prompt(ids.len());
        let logits = conversation.session.prefill(&ids, |done| {
            progress.show(done);
            interrupt::flow()
        })?;
        drop(progress);
        let Some(logits) = logits else {
            conversation.session.rewind(conversation.read)?;
            return Ok(None);
        };
        let mut stream = loaded.tokenizer.stream();
        let mut text = String::new();
        let limits = Limits {
            max_new_tokens: self.sampling.max_new_tokens,
            max_context: longest_context(&loaded.model),
            end_of_sequence: &loaded.end_of_sequence,
        };
        let generation = generate(&mut conversation.session, sampler, logits, limits, |id| {
            if let Some(piece) = stream.push(id)? {
                print(&piece)?;
                text.push_str(&piece);
            }
            Ok(if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let rest = stream.finish()?;
        text.push_str(&rest);
        print(&format!("{rest}\n"))?;
        if generation.stop == Stop::ContextFull {
            say("stopped: the context is as long as the model allows; /reset starts over");
        }
        conversation.unread = generation.unread;
        conversation.transcript = prompt + &text;
        conversation.read = conversation.session.ids().len();
        Ok(Some(text))
    }
}

/// What of a prompt comes after a transcript, which may differ from the prompt's beginning in white space: templates
/// trim what was said, and some tokenizers drop the space that an answer begins with. None if they differ otherwise, or
/// nothing is left.
fn unread_part<'p>(prompt: &'p str, transcript: &str) -> Option<&'p str> {
    let mut rest = prompt;
    for wanted in transcript.chars() {
        if let Some(after) = rest.strip_prefix(wanted) {
            rest = after;
        } else if !wanted.is_whitespace() {
            rest = rest.trim_start().strip_prefix(wanted)?;
        }
    }
    (!rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::unread_part;

    #[test]
    fn a_transcript_is_found_in_the_prompt_but_for_white_space() {
        assert_eq!(unread_part("[INST] a [/INST] Hi</s>[INST]", "[INST] a [/INST]Hi"), Some("</s>[INST]"));
        assert_eq!(unread_part("user a\nbot Hi<end>user b", "user a\nbot Hi \n"), Some("<end>user b"));
        assert_eq!(unread_part("abc", ""), Some("abc"));
        assert_eq!(unread_part("abc", "abc"), None);
        assert_eq!(unread_part("abd", "abc"), None);
        assert_eq!(unread_part("ab", "abc"), None);
    }
}
