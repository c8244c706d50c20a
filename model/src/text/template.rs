//! Chat templates: the Jinja text in a model folder that turns messages into a prompt.

mod helpers;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, Value};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const NAME: &str = "chat_template";
/// What every template may do at least: in engine steps, or per 64 bytes of text that it makes.
const BASE_FUEL: u64 = 200_000;
/// What it may do in addition for each message, and for each 4 bytes of the messages.
const MESSAGE_FUEL: u64 = 1_000;
/// Rendering takes milliseconds; this stops what the engine's steps do not measure.
const LONGEST_RENDERING: Duration = Duration::from_secs(10);
/// Bytes: room to compare and drop lists nested as deeply as the fuel allows. Touched only by such lists.
const STACK_SIZE: usize = 128 << 20;
const CORRECT: &str = "correct the template, or use the one that came with the model";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`, or whatever else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A model's chat template, ready to be rendered as Hugging Face's `apply_chat_template` does it.
///
/// A template sees `messages`, `add_generation_prompt`, the special tokens, `tools` and `documents` (both
/// none), and the functions `raise_exception` and `strftime_now`. It comes with a downloaded model, so what
/// it can do is bounded: engine steps and the text made, nesting, and 10 seconds in all.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Names, such as `bos_token`, with the tokens' spellings.
    special_tokens: Vec<(String, String)>,
    file: PathBuf,
    longest_rendering: Duration,
}

impl ChatTemplate {
    /// Finds the template in a model folder: `chat_template.jinja`, or else the `chat_template` of
    /// `tokenizer_config.json`, where a list of several means the one named `default`. The special tokens are
    /// those of `tokenizer_config.json`. None where there is no template.
    ///
    /// # Errors
    /// [`Error::Io`] where one of the files exists but cannot be read, [`Error::File`] where
    /// `tokenizer_config.json` is not valid or the template has a syntax error.
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        let config_file = folder.join("tokenizer_config.json");
        let config = match read_if_there(&config_file)? {
            Some(bytes) => parse_config(&bytes, &config_file)?,
            None => Json::new(),
        };
        let own_file = folder.join("chat_template.jinja");
        let (source, file) = match read_if_there(&own_file)? {
            Some(bytes) => match String::from_utf8(bytes) {
                Ok(source) => (source, own_file),
                Err(error) => {
                    return Err(Error::file(own_file, error.to_string(), "save the template as UTF-8"));
                }
            },
            None => match template_of(&config, &config_file)? {
                Some(source) => (source, config_file),
                None => return Ok(None),
            },
        };
        Self::new(&source, special_tokens(&config), &file).map(Some)
    }

    /// Takes the template of a `tokenizer_config.json`; `label` is the file name that errors give. None where it has
    /// no template.
    ///
    /// # Errors
    /// [`Error::File`] where the text is not valid or the template has a syntax error.
    pub fn from_tokenizer_config(bytes: &[u8], label: &Path) -> Result<Option<Self>> {
        let config = parse_config(bytes, label)?;
        let source = template_of(&config, label)?;
        source.map(|source| Self::new(&source, special_tokens(&config), label)).transpose()
    }

    /// Takes a template's text; `label` is the file name that errors give.
    ///
    /// # Errors
    /// [`Error::File`] naming the line of a syntax error.
    pub fn from_source(
        source: &str,
        bos_token: Option<&str>,
        eos_token: Option<&str>,
        label: &Path,
    ) -> Result<Self> {
        let tokens = [("bos_token", bos_token), ("eos_token", eos_token)];
        let given = tokens.into_iter().filter_map(|(name, token)| Some((name.to_owned(), token?.to_owned())));
        Self::new(source, given.collect(), label)
    }

    fn new(source: &str, special_tokens: Vec<(String, String)>, file: &Path) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| failure(file, &error))?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        helpers::install(&mut environment);
        environment
            .add_template_owned(NAME, helpers::without_generation_tags(source))
            .map_err(|error| failure(file, &error))?;
        let longest_rendering = LONGEST_RENDERING;
        Ok(Self { environment, special_tokens, file: file.to_owned(), longest_rendering })
    }

    /// The prompt for `messages`; with `add_generation_prompt`, up to where the assistant's answer starts.
    ///
    /// # Errors
    /// [`Error::File`] naming the line of the template that failed, or that refused the messages;
    /// [`Error::Io`] where no thread can be started.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let bytes: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        let mut environment = self.environment.clone();
        environment
            .set_fuel(Some(BASE_FUEL + MESSAGE_FUEL * messages.len() as u64 + bytes.div_ceil(4) as u64));
        let context = self.context(messages, add_generation_prompt);
        let (sender, receiver) = mpsc::channel();
        let render = move || {
            let prompt = environment.get_template(NAME).and_then(|template| template.render(context));
            drop(sender.send(prompt)); // Nobody listens after the time limit.
        };
        thread::Builder::new().stack_size(STACK_SIZE).spawn(render).map_err(Error::io(&self.file))?;
        match receiver.recv_timeout(self.longest_rendering) {
            Ok(prompt) => prompt.map_err(|error| failure(&self.file, &error)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let problem = format!("the chat template takes more than {:?}", self.longest_rendering);
                Err(Error::file(&self.file, problem, CORRECT))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(Error::file(&self.file, "the chat template makes the template engine fail", CORRECT))
            }
        }
    }

    /// The variables that the template sees.
    fn context(&self, messages: &[Message], add_generation_prompt: bool) -> Value {
        let message = |message: &Message| {
            let (role, content) = (message.role.as_str(), message.content.as_str());
            Value::from_pairs([("role", role), ("content", content)])
        };
        let given = [
            ("messages", messages.iter().map(message).collect()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ];
        let tokens =
            self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str())));
        Value::from_pairs(tokens.chain(given))
    }
}

/// A file's bytes, or none where there is no such file.
fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

fn parse_config(bytes: &[u8], file: &Path) -> Result<Json> {
    serde_json::from_slice(bytes).map_err(|error| Error::file(file, error.to_string(), "download it again"))
}

type Json = serde_json::Map<String, serde_json::Value>;

/// The template in a `tokenizer_config.json`.
fn template_of(config: &Json, file: &Path) -> Result<Option<String>> {
    use serde_json::Value::{Array, Null, String};
    let refuse = |problem: &str| Err(Error::file(file, problem, "name one template \"default\""));
    match config.get("chat_template") {
        None | Some(Null) => Ok(None),
        Some(String(source)) => Ok(Some(source.clone())),
        Some(Array(templates)) => {
            let default = templates.iter().find(|template| template["name"] == "default");
            match default.map(|template| &template["template"]) {
                Some(String(source)) => Ok(Some(source.clone())),
                _ => refuse("chat_template is a list without a template named \"default\""),
            }
        }
        Some(_) => refuse("chat_template is neither a text nor a list"),
    }
}

/// All `*_token` entries of a `tokenizer_config.json`, each a text or an object with a `content`.
fn special_tokens(config: &Json) -> Vec<(String, String)> {
    let tokens = config.iter().filter(|(name, _)| name.ends_with("_token"));
    tokens
        .filter_map(|(name, token)| {
            let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
            Some((name.clone(), text.to_owned()))
        })
        .collect()
}

/// One line on what went wrong, where, and what to do.
fn failure(file: &Path, error: &minijinja::Error) -> Error {
    let line = error.line().map_or_else(String::new, |line| format!(" at line {line}"));
    let detail = error.detail().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let (problem, remedy) = match error.kind() {
        _ if helpers::is_refusal(error) => {
            (format!("the chat template refuses the messages: {detail}"), "change the messages")
        }
        ErrorKind::OutOfFuel => (format!("the chat template does too much{line}"), CORRECT),
        kind if detail.is_empty() => (format!("the chat template fails{line}: {kind}"), CORRECT),
        kind => (format!("the chat template fails{line}: {kind}: {detail}"), CORRECT),
    };
    Error::file(file, problem, remedy)
}
