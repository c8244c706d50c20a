//! Ledgers like the ones that the demo model was trained on, any number of them: the text that its codebooks are made from.

use crate::error::{Error, Result};
use rand::{RngExt, SeedableRng, seq::IndexedRandom, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use std::collections::HashMap;

/// Sentences of a ledger: some 4000 tokens.
const SENTENCES: usize = 450;

/// Questions at the end of a ledger.
const QUESTIONS: usize = 8;

/// The words of the generator, those of `model/demo/train.py`.
#[derive(Debug, Deserialize)]
struct Words {
    names: Vec<String>,
    values: Vec<String>,
    /// What a question asks for, and what an answer states.
    verbs: Vec<(String, String)>,
    leads: Vec<String>,
    /// Words that a letter in a sentence stands for.
    slots: HashMap<String, Vec<String>>,
    sentences: Vec<String>,
}

/// Writes one ledger after the other.
#[derive(Debug)]
pub struct Ledgers {
    words: Words,
    random: ChaCha8Rng,
}

impl Ledgers {
    /// The sequence of a seed.
    ///
    /// # Errors
    /// None but those of a damaged program.
    pub fn new(seed: u64) -> Result<Self> {
        let words = serde_json::from_str(include_str!("../../demo/words.json"))
            .map_err(|error| Error::io("demo/words.json")(error.into()))?;
        Ok(Self { words, random: ChaCha8Rng::seed_from_u64(seed) })
    }

    /// One of some words.
    fn one_of<'w>(random: &mut ChaCha8Rng, words: &'w [String]) -> &'w str {
        words.choose(random).map_or("", String::as_str)
    }

    /// A sentence that states nothing.
    fn noise(&mut self) -> String {
        let sentence = Self::one_of(&mut self.random, &self.words.sentences);
        let mut text = String::new();
        for word in sentence.split(' ') {
            let word = match self.words.slots.get(word) {
                Some(words) => Self::one_of(&mut self.random, words),
                None => word,
            };
            if !text.is_empty() && word != "." {
                text.push(' ');
            }
            text.push_str(word);
        }
        text
    }

    /// The next ledger: facts among noise, then questions with their answers.
    pub fn next_ledger(&mut self) -> String {
        let mut names = self.words.names.clone();
        names.shuffle(&mut self.random);
        let mut facts = Vec::new();
        let mut text = String::new();
        for _ in 0..SENTENCES {
            let sentence = match (self.random.random_range(0..2), names.pop()) {
                (0, Some(name)) => {
                    let lead = Self::one_of(&mut self.random, &self.words.leads);
                    let value = Self::one_of(&mut self.random, &self.words.values);
                    let verbs = &self.words.verbs;
                    let (asked, stated) = &verbs[self.random.random_range(0..verbs.len())];
                    facts.push((asked.clone(), format!("{name} {stated} {value}."), name.clone()));
                    format!("{lead} {name} {stated} {value}.")
                }
                (_, unused) => {
                    names.extend(unused);
                    self.noise()
                }
            };
            text.push_str(&sentence);
            text.push(if self.random.random_range(0..10) == 0 { '\n' } else { ' ' });
        }
        facts.shuffle(&mut self.random);
        for (asked, fact, name) in facts.iter().take(QUESTIONS) {
            text.push_str(&format!("\nQuestion: what does the {name} {asked}? Answer: the {fact}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Ledgers;
    use crate::demo;

    #[test]
    fn ledgers_are_of_the_words_that_the_model_knows() {
        let tokenizer = demo::tokenizer().unwrap();
        let mut ledgers = Ledgers::new(7).unwrap();
        let (first, second) = (ledgers.next_ledger(), ledgers.next_ledger());
        assert_ne!(first, second);
        assert_eq!(first, Ledgers::new(7).unwrap().next_ledger());
        let words = first.split_whitespace().count() + first.matches(['.', '?', ':']).count();
        let tokens = tokenizer.encode(&first, false).unwrap().len();
        let lines = first.matches('\n').count();
        assert!(tokens <= words + 2 * lines, "{tokens} tokens for {words} words");
        assert!((3000..6000).contains(&tokens), "{tokens}");
        // A question's answer is stated before.
        let (_, answer) = first.rsplit_once("Answer: the ").unwrap();
        assert!(first.matches(answer).count() >= 2, "{answer}");
    }
}
