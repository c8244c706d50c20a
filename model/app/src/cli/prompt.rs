//! Where the prompt comes from.

use super::{load::Loaded, output::say};
use a2ats_model::{Error, Result, demo, text::template::Message};
use std::{
    io::{IsTerminal, Read},
    path::Path,
};

/// How long the demo waits for a prompt on standard input before it takes the built-in one.
#[cfg(unix)]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// The text to read: the argument, the file, standard input, or, for the demo, the built-in document.
pub(super) fn text(argument: Option<&str>, file: Option<&Path>, embedded_model: bool) -> Result<String> {
    if let Some(text) = argument {
        return Ok(text.to_owned());
    }
    if let Some(path) = file {
        if path.as_os_str() == "-" {
            return standard_input();
        }
        return self::file(path);
    }
    if embedded_model {
        if somebody_writes() {
            let text = standard_input()?;
            if !text.trim().is_empty() {
                return Ok(text);
            }
        }
        say(&format!("no prompt: reading the built-in ledger, whose last line asks {}", demo::QUESTION));
        return Ok(demo::DOCUMENT.to_owned());
    }
    if std::io::stdin().is_terminal() {
        return Err(Error::Usage(
            "no prompt: give it as an argument, with --prompt-file FILE, or on standard input".to_owned(),
        ));
    }
    standard_input()
}

/// A file's text.
pub(super) fn file(path: &Path) -> Result<String> {
    utf8(std::fs::read(path).map_err(Error::io(path))?, path)
}

fn standard_input() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(Error::io("standard input"))?;
    utf8(bytes, Path::new("standard input"))
}

fn utf8(bytes: Vec<u8>, path: &Path) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::file(path, format!("is not UTF-8 from byte {at} on"), "save it as UTF-8 text")
    })
}

/// Whether something comes from standard input. The demo must run without a prompt under anything, also under a
/// program that holds a pipe open and never writes, so this does not wait for long.
#[cfg(unix)]
fn somebody_writes() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return false;
    }
    let mut waiting = [PollFd::new(&stdin, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).ok();
    poll(&mut waiting, patience.as_ref()).is_ok_and(|ready| ready > 0)
}

#[cfg(not(unix))]
fn somebody_writes() -> bool {
    false
}

/// The prompt's tokens: as it is, or as the user's turn of a chat.
pub(super) fn tokens(loaded: &Loaded, text: &str, system: Option<&str>, chat: bool) -> Result<Vec<u32>> {
    if !chat {
        return loaded.tokenizer.encode(text, true);
    }
    let template = loaded.template.as_ref().ok_or_else(|| no_template(loaded))?;
    let mut messages = Vec::new();
    messages.extend(system.map(|text| message("system", text)));
    messages.push(message("user", text));
    // Templates write the special tokens out themselves.
    loaded.tokenizer.encode(&template.render(&messages, true)?, false)
}

/// A turn of a conversation.
pub(super) fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}

/// Chat was asked for, and the model is not made for it.
pub(super) fn no_template(loaded: &Loaded) -> Error {
    Error::Usage(format!(
        "{} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); use generate \
         without --chat",
        loaded.name
    ))
}
