//! Text to calibrate with: documents from files, and the string of random UUIDs.

use super::LONGEST_DOCUMENT;
use crate::{
    error::{Error, Result},
    model::Model,
    sequence::longest_context,
    text::tokenizer::Tokenizer,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::{
    fmt::Write,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

/// Collects documents until there are enough tokens.
pub struct Collector<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens of a document at most.
    longest: usize,
    left: usize,
    documents: Vec<Vec<u32>>,
}

impl<'a> Collector<'a> {
    /// For so many tokens in all.
    pub fn new(model: &Model, tokenizer: &'a Tokenizer, tokens: usize) -> Self {
        let longest = LONGEST_DOCUMENT.min(longest_context(&model.spec));
        Self { tokenizer, longest, left: tokens, documents: Vec::new() }
    }

    /// Whether there are enough.
    pub const fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Tokens that are still wanted.
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Adds a text. Where it is longer than a document may be, it is cut into several.
    ///
    /// # Errors
    /// If it cannot be tokenized.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let mut rest = &self.tokenizer.encode(text, true)?[..];
        while !rest.is_empty() && self.left > 0 {
            let (document, others) = rest.split_at(rest.len().min(self.longest).min(self.left));
            self.documents.push(document.to_vec());
            self.left -= document.len();
            rest = others;
        }
        Ok(())
    }

    /// Adds the documents of a file until there are enough: of `.jsonl` the field `text` of each line, of `.parquet` (with the
    /// feature of that name) the column `text` of each row, of any other file its whole text.
    ///
    /// # Errors
    /// If it cannot be read, or is not what its name says.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "jsonl" => self.add_lines(path),
            #[cfg(feature = "parquet")]
            "parquet" => super::parquet::for_each_text(path, |text| {
                self.add(text)?;
                Ok(!self.is_full())
            }),
            #[cfg(not(feature = "parquet"))]
            "parquet" => Err(Error::file(
                path,
                "this program was built without Parquet",
                "build it with --features parquet, or convert the file to .jsonl with a field \"text\"",
            )),
            _ => {
                let bytes = std::fs::read(path).map_err(Error::io(path))?;
                let text = String::from_utf8(bytes).map_err(|error| {
                    let at = error.utf8_error().valid_up_to();
                    Error::file(
                        path,
                        format!("byte {at} is not UTF-8 text"),
                        "give .txt or .jsonl files in UTF-8",
                    )
                })?;
                self.add(&text)
            }
        }
    }

    fn add_lines(&mut self, path: &Path) -> Result<()> {
        let file = BufReader::new(File::open(path).map_err(Error::io(path))?);
        for (number, line) in (1..).zip(file.lines()) {
            if self.is_full() {
                break;
            }
            let line = line.map_err(Error::io(path))?;
            if line.trim().is_empty() {
                continue;
            }
            let value: Option<Value> = serde_json::from_str(&line).ok();
            let text = value.as_ref().and_then(|value| value.get("text")?.as_str());
            let text = text.ok_or_else(|| {
                let problem = format!("line {number} is no JSON object with a field \"text\"");
                Error::file(path, problem, "give one {\"text\": \"…\"} in each line")
            })?;
            self.add(text)?;
        }
        Ok(())
    }

    /// Adds a string of random UUIDs with commas between them, which has so many tokens (paper, section 4): what tells
    /// names apart in it is nothing but the exact token. There is no room for other text afterwards.
    ///
    /// # Errors
    /// If it cannot be tokenized.
    pub fn add_uuids(&mut self, tokens: usize, seed: u64) -> Result<()> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        self.left = tokens;
        while self.left > 0 {
            // One has more than ten tokens in any vocabulary: this much is enough for a document, or nearly.
            let uuids = (self.left.min(self.longest) / 10).max(1);
            let mut text = String::with_capacity(uuids * 37);
            for number in 0..uuids {
                let comma = if number == 0 { "" } else { "," };
                // Writing to a string cannot fail.
                let _ = write!(text, "{comma}{}", uuid(&mut random));
            }
            self.add(&text)?;
        }
        Ok(())
    }

    /// The documents.
    pub fn finish(self) -> Vec<Vec<u32>> {
        self.documents
    }
}

/// A random UUID (version 4) in the usual form.
fn uuid(random: &mut ChaCha8Rng) -> String {
    let bits: u128 = random.random();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::{Collector, uuid};
    use crate::demo;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::fs;

    fn collect(tokens: usize, fill: impl FnOnce(&mut Collector<'_>)) -> Vec<Vec<u32>> {
        let model = demo::model(a2ats_kernel::available()[0]).unwrap();
        let tokenizer = demo::tokenizer().unwrap();
        let mut collector = Collector::new(&model, &tokenizer, tokens);
        fill(&mut collector);
        collector.finish()
    }

    #[test]
    fn uuids_say_their_version() {
        let text = uuid(&mut ChaCha8Rng::seed_from_u64(1));
        let parts: Vec<&str> = text.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']), "{text}");
    }

    #[test]
    fn long_texts_are_cut_and_no_more_is_taken_than_asked_for() {
        let documents = collect(40_000, |collector| {
            collector.add(&"The falcon keeps marble. ".repeat(5000)).unwrap();
            assert!(!collector.is_full());
            collector.add(&"The otter owns tea. ".repeat(5000)).unwrap();
            assert!(collector.is_full());
        });
        let lengths: Vec<usize> = documents.iter().map(Vec::len).collect();
        assert_eq!(lengths.iter().sum::<usize>(), 40_000);
        assert!(lengths.iter().all(|&length| length <= 16384) && lengths.len() > 2, "{lengths:?}");
    }

    #[test]
    fn uuids_fill_what_is_asked_for() {
        let documents = collect(5000, |collector| collector.add_uuids(20_000, 3).unwrap());
        assert_eq!(documents.iter().map(Vec::len).sum::<usize>(), 20_000);
        assert_eq!(documents, collect(0, |collector| collector.add_uuids(20_000, 3).unwrap()));
    }

    #[test]
    fn lines_of_json_are_documents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.jsonl");
        fs::write(&path, "{\"text\": \"The falcon keeps marble.\"}\n\n{\"id\": 1, \"text\": \"Tea.\"}\n")
            .unwrap();
        assert_eq!(collect(100, |collector| collector.add_file(&path).unwrap()).len(), 2);
        fs::write(&path, "{\"text\": \"The falcon keeps marble.\"}\n{\"content\": \"Tea.\"}\n").unwrap();
        collect(100, |collector| {
            let error = collector.add_file(&path).unwrap_err().to_string();
            assert!(error.contains("lines.jsonl: line 2"), "{error}");
        });
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photo.jpg");
        fs::write(&path, b"ab\xff\xfe").unwrap();
        collect(100, |collector| {
            let error = collector.add_file(&path).unwrap_err().to_string();
            assert!(error.contains("photo.jpg: byte 2"), "{error}");
            assert!(collector.add_file(&folder.path().join("missing.txt")).is_err());
        });
    }
}
