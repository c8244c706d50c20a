//! A conversation, and the sequence that has read it.

use crate::cli::{
    answer::answer,
    generate::per_second,
    load::Loaded,
    options::{ModelOptions, SamplingArguments},
    output::say,
    prompt::{message, no_template},
};
use a2ats_model::{
    Result,
    engine::{End, Engine, Kept, Stop},
    text::template::{ChatTemplate, Message},
};

/// A conversation so far.
pub(super) struct Conversation<'m> {
    loaded: &'m Loaded,
    template: &'m ChatTemplate,
    engine: Engine<'m>,
    messages: Vec<Message>,
    /// What has been read and made.
    kept: Option<Kept>,
    /// The text of it.
    transcript: String,
    /// Places to go back to: the length of the transcript, and how many tokens that was.
    marks: Vec<Mark>,
    /// Documents that come with what is said next.
    documents: String,
}

#[derive(Clone, Copy)]
struct Mark {
    text: usize,
    tokens: usize,
}

/// What became of what was said.
pub(super) enum Turn {
    /// It was answered.
    Answered(Box<End>),
    /// It was interrupted before that, and counts as not said.
    TakenBack,
}

impl<'m> Conversation<'m> {
    pub(super) fn new(loaded: &'m Loaded, options: &ModelOptions, system: Option<&str>) -> Result<Self> {
        let template = loaded.template.as_ref().ok_or_else(|| no_template(loaded))?;
        let (messages, transcript, documents) = (Vec::new(), String::new(), String::new());
        let engine = loaded.engine(options, 1)?;
        let marks = Vec::new();
        let mut conversation =
            Self { loaded, template, engine, messages, kept: None, transcript, marks, documents };
        conversation.reset(system);
        Ok(conversation)
    }

    /// Begins anew.
    pub(super) fn reset(&mut self, system: Option<&str>) {
        self.messages = system.iter().map(|text| message("system", text)).collect();
        self.documents.clear();
        self.forget();
    }

    /// Adds a text to what is said next.
    pub(super) fn add_document(&mut self, text: &str) {
        self.documents.push_str(text.trim_end());
        self.documents.push_str("\n\n");
    }

    /// Says something, and gets the answer. An error leaves the conversation as it was before.
    pub(super) fn say(
        &mut self,
        said: &str,
        sampling: &SamplingArguments,
        show: &mut (dyn FnMut(&str) -> Result<()> + Send),
    ) -> Result<Turn> {
        self.messages.push(message("user", &format!("{}{said}", self.documents)));
        match self.answer(sampling, show) {
            Ok(Some((text, end))) => {
                self.messages.push(message("assistant", text.trim()));
                self.documents.clear();
                Ok(Turn::Answered(Box::new(end)))
            }
            Ok(None) => {
                self.messages.pop();
                Ok(Turn::TakenBack)
            }
            Err(error) => {
                self.messages.pop();
                Err(error)
            }
        }
    }

    /// The answer to the last message; none if it was interrupted before it began.
    fn answer(
        &mut self,
        sampling: &SamplingArguments,
        show: &mut (dyn FnMut(&str) -> Result<()> + Send),
    ) -> Result<Option<(String, End)>> {
        let prompt = self.template.render(&self.messages, true)?;
        let new = self.go_back(&prompt)?;
        let before = self.kept.as_ref().map_or(0, Kept::len);
        let read_before = self.kept.as_ref().map_or(0, |kept| kept.sequence().len());
        let mut request = sampling.request(self.loaded.tokenizer.encode(&prompt[new..], false)?);
        (request.behind, request.keep) = (self.kept.take(), true);
        if let Err(error) = self.engine.check(&request) {
            self.kept = request.behind.take();
            return Err(error);
        }
        let mut text = String::new();
        let answered = answer(&mut self.engine, request, &mut |piece| {
            text.push_str(piece);
            show(piece)
        });
        let mut end = match answered {
            Ok(end) => end,
            Err(error) => {
                // What has been read went with it.
                self.forget();
                return Err(error);
            }
        };
        self.kept = end.kept.take();
        if end.stop == Stop::Interrupted && end.generated_tokens == 0 {
            if let Some(kept) = &mut self.kept {
                kept.rewind(self.loaded.model.kernels(), before)?;
            }
            return Ok(None);
        }
        let after = self.kept.as_ref().map_or(0, Kept::len);
        // Behind the prompt, which begins with what was unread, and behind the answer.
        self.marks.push(Mark { text: prompt.len(), tokens: read_before + end.prompt_tokens });
        self.transcript = prompt + &text;
        self.marks.push(Mark { text: self.transcript.len(), tokens: after });
        Ok(Some((text, end)))
    }

    /// Where a prompt has text that has not been read. What templates write differently now is forgotten from the last place on
    /// where everything was the same.
    fn go_back(&mut self, prompt: &str) -> Result<usize> {
        let matched = Matched::new(prompt, &self.transcript);
        if matched.whole && matched.in_prompt < prompt.len() {
            return Ok(matched.in_prompt);
        }
        // Something must be left to read, so a prompt that is all there already goes back, too.
        let limit =
            if matched.whole { matched.in_transcript.saturating_sub(1) } else { matched.in_transcript };
        let mark = self.marks.iter().rev().find(|mark| mark.text <= limit).copied();
        let Some((mark, kept)) = mark.zip(self.kept.as_mut()) else {
            if self.kept.is_some() {
                say(
                    "the template writes earlier turns differently now: reading the whole conversation again",
                );
            }
            self.forget();
            return Ok(0);
        };
        kept.rewind(self.loaded.model.kernels(), mark.tokens)?;
        self.transcript.truncate(mark.text);
        self.marks.retain(|other| other.text <= mark.text);
        Ok(Matched::new(prompt, &self.transcript).in_prompt)
    }

    /// Forgets all that was read: the next turn reads the whole conversation.
    fn forget(&mut self) {
        self.kept = None;
        self.transcript.clear();
        self.marks.clear();
    }
}

/// How far a prompt goes along with a transcript, from which it may differ in white space: templates trim what was said, and some
/// tokenizers drop the space that an answer begins with.
struct Matched {
    /// Bytes of the prompt, and of the transcript, that go along.
    in_prompt: usize,
    in_transcript: usize,
    /// Whether that is all of the transcript.
    whole: bool,
}

impl Matched {
    fn new(prompt: &str, transcript: &str) -> Self {
        let (mut rest, mut in_transcript) = (prompt, 0);
        for wanted in transcript.chars() {
            if let Some(after) = rest.strip_prefix(wanted) {
                rest = after;
            } else if !wanted.is_whitespace() {
                let Some(after) = rest.trim_start().strip_prefix(wanted) else {
                    return Self { in_prompt: prompt.len() - rest.len(), in_transcript, whole: false };
                };
                rest = after;
            }
            in_transcript += wanted.len_utf8();
        }
        Self { in_prompt: prompt.len() - rest.len(), in_transcript, whole: true }
    }
}

/// How fast an answer came.
pub(super) fn speed(end: &End) -> String {
    let of =
        |count, time| per_second(count, time).map_or(String::new(), |speed| format!(", {speed:.1} tokens/s"));
    format!(
        "read {} tokens{}; made {}{}",
        end.prompt_tokens,
        of(end.prompt_tokens, end.prefill),
        end.generated_tokens,
        of(end.decode_steps, end.decode)
    )
}

#[cfg(test)]
mod tests {
    use super::Matched;

    #[test]
    fn a_transcript_is_found_in_the_prompt_but_for_white_space() {
        let unread = |prompt: &str, transcript: &str| {
            let matched = Matched::new(prompt, transcript);
            matched.whole.then(|| prompt[matched.in_prompt..].to_owned())
        };
        let found = |rest: &str| Some(rest.to_owned());
        assert_eq!(unread("[INST] a [/INST] Hi</s>[INST]", "[INST] a [/INST]Hi"), found("</s>[INST]"));
        assert_eq!(unread("user a\nbot Hi<end>user b", "user a\nbot Hi \n"), found("<end>user b"));
        assert_eq!(unread("abc", ""), found("abc"));
        assert_eq!(unread("abc", "abc"), found(""));
        assert_eq!(unread("abd", "abc"), None);
        assert_eq!(unread("ab", "abc"), None);
    }

    #[test]
    fn where_they_part_is_known_on_both_sides() {
        let matched = Matched::new("user a bot <b> user", "user a bot  <think>x</think>b");
        assert_eq!((matched.in_prompt, matched.in_transcript, matched.whole), (12, 13, false));
    }
}
