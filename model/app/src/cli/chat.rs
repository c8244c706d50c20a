//! `a2ats chat`: a conversation that keeps its KV cache between turns.

mod conversation;

use super::{
    CommandResult, Outcome, interrupt,
    load::{Loaded, with_threads},
    options::{ModelOptions, SamplingArguments},
    output::{print, say, say_error},
    prompt,
};
use a2ats_model::{Error, Result, engine::Stop};
use clap::Args;
use conversation::{Conversation, Turn};
use rustyline::{DefaultEditor, error::ReadlineError};
use std::path::{Path, PathBuf};

/// Talk to a model; what was said is not read again.
///
/// Type a line to say it; /file PATH adds a document to what is said next, /reset starts over, /quit or Ctrl-D leaves,
/// Ctrl-C stops an answer. With the embedded demo model, paste a ledger such as "The falcon keeps marble. …" followed by a
/// question.
#[derive(Args)]
pub(super) struct Chat {
    /// What the model is told before the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// A document to begin with: it is said together with the first line, like one that /file PATH names.
    #[arg(long, short = 'f', value_name = "FILE")]
    prompt_file: Option<PathBuf>,

    #[command(flatten)]
    model: ModelOptions,

    #[command(flatten)]
    sampling: SamplingArguments,
}

impl Chat {
    pub(super) fn run(&self) -> CommandResult {
        self.sampling.options().validate()?;
        interrupt::listen()?;
        let loaded = with_threads(self.model.threads, || Loaded::new(&self.model))??;
        let mut conversation = Conversation::new(&loaded, &self.model, self.system.as_deref())?;
        let failed = |error: ReadlineError| Error::io("terminal")(std::io::Error::other(error));
        let mut editor = DefaultEditor::new().map_err(failed)?;
        say(&format!(
            "{}, {} attention, {}; /file PATH adds a document, /reset starts over, /quit leaves",
            loaded.name,
            loaded.attention.name(),
            loaded.model.kernels().name()
        ));
        if let Some(file) = &self.prompt_file {
            add_document(&mut conversation, file)?;
        }
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
                "/reset" => conversation.reset(self.system.as_deref()),
                said => {
                    // History is a convenience: a full one is not worth ending a conversation.
                    let _ = editor.add_history_entry(said);
                    match said.strip_prefix("/file") {
                        Some(path) if path.starts_with(char::is_whitespace) || path.is_empty() => {
                            if let Err(error) = add_document(&mut conversation, Path::new(path.trim())) {
                                say_error(&error);
                            }
                        }
                        _ => self.turn(&mut conversation, said)?,
                    }
                }
            }
        }
    }

    /// One exchange. What cannot be said (a context that is full, say) is reported and taken back.
    fn turn(&self, conversation: &mut Conversation<'_>, said: &str) -> Result<()> {
        interrupt::clear();
        let answer = with_threads(self.model.threads, || conversation.say(said, &self.sampling, &mut print))?;
        match answer {
            Ok(Turn::Answered(end)) => {
                print("\n")?;
                say(&conversation::speed(&end));
                match end.stop {
                    Stop::ContextFull => {
                        say("stopped: the context is as long as the model allows; /reset starts over");
                    }
                    Stop::Interrupted => say("interrupted"),
                    Stop::EndOfSequence | Stop::StopString | Stop::Length => {}
                }
            }
            Ok(Turn::TakenBack) => say("interrupted"),
            Err(error @ (Error::TooLarge(_) | Error::File { .. })) => say_error(&error),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Adds a file to what is said next.
fn add_document(conversation: &mut Conversation<'_>, file: &Path) -> Result<()> {
    if file.as_os_str().is_empty() {
        return Err(Error::Usage("/file: give the path of a text file behind it".to_owned()));
    }
    let text = prompt::file(file)?;
    say(&format!("{}: {} characters, said with your next line", file.display(), text.chars().count()));
    conversation.add_document(&text);
    Ok(())
}
