//! `tokenizer.json`: text to token ids, and token ids back to text as they come.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use tokenizers::DecoderWrapper;

use crate::error::{Error, Result};

/// A Hugging Face tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    decoding: Decoding,
    file: PathBuf,
}

/// How tokens become text, as far as a stream has to know.
#[derive(Clone, Copy)]
enum Decoding {
    /// Tokens spell bytes, which are then read as UTF-8.
    ByteLevel,
    /// Tokens spell text that depends on their neighbours at most.
    Text {
        /// Whether `<0x41>` is a byte; runs of bytes are read as UTF-8, all or nothing.
        bytes: bool,
        /// A token that has some text wherever it stands: in front of others, it stands for a longer past.
        anchor: Option<u32>,
    },
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read, and those of [`Tokenizer::from_bytes`].
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::from_bytes(&std::fs::read(path).map_err(Error::io(path))?, path)
    }

    /// Reads the text of a `tokenizer.json`; `label` is the file name that errors give.
    ///
    /// Truncation and padding are switched off whatever the file says: a prompt is encoded whole.
    ///
    /// # Errors
    /// [`Error::File`] where it is not a tokenizer, or has a decoder that does not work token by token.
    pub fn from_bytes(bytes: &[u8], label: &Path) -> Result<Self> {
        let failed = |error: tokenizers::Error| {
            let problem = format!("not a tokenizer: {}", one_line(&error));
            Error::file(label, problem, "download it again, or save it anew with AutoTokenizer")
        };
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(failed)?;
        inner.with_truncation(None).map_err(failed)?.with_padding(None);
        let decoding = decoding(inner.get_decoder()).map_err(|problem| {
            Error::file(label, problem, "use a tokenizer with a ByteLevel, Metaspace or ByteFallback decoder")
        })?;
        let mut tokenizer = Self { inner, decoding, file: label.to_owned() };
        tokenizer.find_anchor()?;
        Ok(tokenizer)
    }

    /// The token ids of `text`, with the tokens that begin or end a text where `add_special_tokens` is set.
    /// Special tokens spelled out in the text become those tokens.
    ///
    /// # Errors
    /// [`Error::File`] where the vocabulary has no way to spell the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        match self.inner.encode_fast(text, add_special_tokens) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => {
                let problem = format!("cannot encode the text: {}", one_line(&error));
                Err(Error::file(&self.file, problem, "use the tokenizer that came with the model"))
            }
        }
    }

    /// The text of `ids` without special tokens. Unknown ids are left out; bytes that are not UTF-8 become
    /// U+FFFD.
    ///
    /// # Errors
    /// [`Error::File`] where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if ids.iter().all(|&id| self.piece(id).is_none()) {
            return Ok(String::new()); // Some decoders cannot take an empty list.
        }
        self.inner.decode(ids, true).map_err(|error| {
            let problem = format!("cannot decode tokens: {}", one_line(&error));
            Error::file(&self.file, problem, "use the tokenizer that came with the model")
        })
    }

    /// A stream that turns token ids into text as they come.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream {
            tokenizer: self,
            pending: Vec::new(),
            ids: Vec::new(),
            shown: String::new(),
            begun: false,
        }
    }

    /// The spelling of a token that has text: neither special nor unknown.
    fn piece(&self, id: u32) -> Option<String> {
        let special = |token: &String| self.inner.get_added_vocabulary().is_special_token(token);
        self.inner.id_to_token(id).filter(|token| !special(token))
    }

    fn find_anchor(&mut self) -> Result<()> {
        let Decoding::Text { bytes, .. } = self.decoding else { return Ok(()) };
        let mut ids: Vec<u32> = self.inner.get_vocab(true).into_values().collect();
        ids.sort_unstable();
        for id in ids {
            if !self.decode(&[id])?.is_empty() {
                self.decoding = Decoding::Text { bytes, anchor: Some(id) };
                break;
            }
        }
        Ok(())
    }
}

/// Turns token ids into text as they come.
///
/// The texts of all pushes and of the finish, put together, are [`Tokenizer::decode`] of all the ids. Text
/// is held back while it may still change: bytes of an unfinished character and, with a ByteFallback
/// decoder, the whole run of byte tokens, since one wrong byte undoes all of it. Special tokens have no text.
///
/// A push costs as much as its token: two tokens of the past stand for all of it.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Byte-level: the bytes of an unfinished character.
    pending: Vec<u8>,
    /// Otherwise: tokens that stand for the past, then those without text so far.
    ids: Vec<u32>,
    /// The text of the former.
    shown: String,
    /// Whether there has been any text yet.
    begun: bool,
}

impl TextStream<'_> {
    /// Takes the next token and returns the text that is now certain, if there is any.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        let Some(piece) = self.tokenizer.piece(id) else { return Ok(None) };
        let text = match self.tokenizer.decoding {
            Decoding::ByteLevel => {
                push_bytes(&piece, &mut self.pending);
                take_certain(&mut self.pending)
            }
            Decoding::Text { bytes, anchor } => {
                self.ids.push(id);
                if bytes && is_byte(&piece) {
                    return Ok(None);
                }
                let text = self.flush()?;
                self.forget(anchor, id)?;
                text
            }
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Ends the stream and returns the text held back, U+FFFD standing for what is not UTF-8.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn finish(mut self) -> Result<String> {
        match self.tokenizer.decoding {
            Decoding::ByteLevel => Ok(String::from_utf8_lossy(&self.pending).into_owned()),
            Decoding::Text { .. } => self.flush(),
        }
    }

    /// The text by which the ids have grown.
    fn flush(&mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids)?;
        let Some(new) = text.strip_prefix(self.shown.as_str()).map(str::to_owned) else {
            let problem = format!("the text {:?} turned into {text:?} with one more token", self.shown);
            return Err(Error::file(
                &self.tokenizer.file,
                problem,
                "use the tokenizer that came with the model",
            ));
        };
        self.begun |= !new.is_empty();
        self.shown = text;
        Ok(new)
    }

    /// Replaces the past by the anchor and the last token, once leading spaces cannot be stripped any more.
    fn forget(&mut self, anchor: Option<u32>, last: u32) -> Result<()> {
        if let Some(anchor) = anchor.filter(|_| self.begun) {
            self.ids = vec![anchor, last];
            self.shown = self.tokenizer.decode(&self.ids)?;
        }
        Ok(())
    }
}

/// Finds out how a stream must treat a decoder, or what keeps it from being streamed.
fn decoding(decoder: Option<&DecoderWrapper>) -> Result<Decoding, String> {
    let mut steps = Vec::new();
    decoder.into_iter().for_each(|decoder| flatten(decoder, &mut steps));
    let is_fuse = |step: &&DecoderWrapper| matches!(step, DecoderWrapper::Fuse(_));
    if let [DecoderWrapper::ByteLevel(_), rest @ ..] = &steps[..]
        && rest.iter().all(is_fuse)
    {
        return Ok(Decoding::ByteLevel);
    }
    let (mut fused, mut bytes) = (false, false);
    for step in steps {
        match step {
            DecoderWrapper::Strip(strip) if strip.stop > 0 => {
                return Err(format!("its decoder strips {} characters from the end", strip.stop));
            }
            DecoderWrapper::Strip(_) => (),
            DecoderWrapper::Fuse(_) => fused = true,
            DecoderWrapper::ByteLevel(_) => {
                return Err("its decoder uses ByteLevel for some steps only".into());
            }
            _ if fused => return Err("its decoder works on the whole text after its Fuse step".into()),
            DecoderWrapper::CTC(_) => return Err("its decoder is CTC, made for speech".into()),
            DecoderWrapper::ByteFallback(_) => bytes = true,
            _ => (),
        }
    }
    Ok(Decoding::Text { bytes, anchor: None })
}

/// The steps of a decoder, in order.
fn flatten<'a>(decoder: &'a DecoderWrapper, steps: &mut Vec<&'a DecoderWrapper>) {
    match decoder {
        DecoderWrapper::Sequence(sequence) => {
            sequence.get_decoders().iter().for_each(|decoder| flatten(decoder, steps));
        }
        step => steps.push(step),
    }
}

/// Appends the bytes that a byte-level token spells; a token with other characters spells itself.
fn push_bytes(piece: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for character in piece.chars() {
        match byte_of(character) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend_from_slice(piece.as_bytes());
                return;
            }
        }
    }
}

/// The byte that a character stands for in a byte-level vocabulary: printable Latin-1 characters for
/// themselves, and those from U+0100 on for the other bytes in order.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// Takes everything but an unfinished character at the end, with U+FFFD for what can never be UTF-8.
fn take_certain(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        taken += chunk.valid().len();
        let unfinished = taken + chunk.invalid().len() == bytes.len()
            && std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
        if !chunk.invalid().is_empty() && !unfinished {
            text.push(char::REPLACEMENT_CHARACTER);
            taken += chunk.invalid().len();
        }
    }
    bytes.drain(..taken);
    text
}

/// Whether ByteFallback reads a token as a byte; the test is the one that it makes.
fn is_byte(piece: &str) -> bool {
    piece.len() == 6
        && piece.starts_with("<0x")
        && piece.ends_with('>')
        && u8::from_str_radix(&piece[3..5], 16).is_ok()
}

/// An error message without line breaks.
fn one_line(error: &tokenizers::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
