//! From logits to the next token.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};

/// How the next token is chosen. The default is greedy decoding.
///
/// The filters apply in the order of Hugging Face's `generate`: repetition penalty, temperature, `top_k`,
/// `top_p`, `min_p`. Each keeps at least the most probable token.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits; 0 takes the most probable token and ignores the filters below. At least 0.
    pub temperature: f32,
    /// Keeps the fewest most probable tokens whose probabilities add up to this. From 0 to 1; 1 keeps all.
    pub top_p: f32,
    /// Keeps this many of the most probable tokens, and those equal to the last of them. 0 keeps all.
    pub top_k: usize,
    /// Keeps tokens at least this probable relative to the most probable one. From 0 to 1; 0 keeps all.
    pub min_p: f32,
    /// Divides the positive logits of tokens seen before, multiplies the negative ones. Above 0; 1 is off.
    pub repetition_penalty: f32,
    /// Starts the random numbers: the same seed, options and logits give the same tokens.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl SamplingOptions {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the command-line flag, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        let at_least_zero = |value: f32| value.is_finite() && value >= 0.0;
        let fraction = |value: f32| (0.0..=1.0).contains(&value);
        let above_zero = |value: f32| value.is_finite() && value > 0.0;
        let repetition = self.repetition_penalty;
        for (flag, value, allowed, range) in [
            ("temperature", self.temperature, at_least_zero(self.temperature), "a number of at least 0"),
            ("top-p", self.top_p, fraction(self.top_p), "a number from 0 to 1"),
            ("min-p", self.min_p, fraction(self.min_p), "a number from 0 to 1"),
            ("repetition-penalty", repetition, above_zero(repetition), "a number above 0"),
        ] {
            if !allowed {
                return Err(Error::Usage(format!("--{flag} {value} is out of range; give {range}")));
            }
        }
        Ok(())
    }
}

/// Chooses tokens, one per call of [`Sampler::next`].
///
/// The random numbers come from ChaCha with eight rounds, which gives the same sequence on every machine.
#[derive(Debug)]
pub struct Sampler {
    options: SamplingOptions,
    random: ChaCha8Rng,
    /// One bit per token; all zero between calls.
    seen: Vec<u64>,
    /// Room for the selection of `top_k`.
    logits: Vec<f32>,
    /// The tokens that can be drawn, by increasing id.
    candidates: Vec<Candidate>,
    /// Room for the selection of `top_p`.
    ranked: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// Probability relative to the most probable token, from 0 to 1.
    weight: f64,
    id: u32,
}

impl Candidate {
    /// More probable first, lower ids first among equals.
    fn rank(&self, other: &Self) -> Ordering {
        other.weight.total_cmp(&self.weight).then(self.id.cmp(&other.id))
    }
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    ///
    /// # Errors
    /// Those of [`SamplingOptions::validate`].
    pub fn new(options: SamplingOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            random: ChaCha8Rng::seed_from_u64(options.seed),
            options,
            seen: Vec::new(),
            logits: Vec::new(),
            candidates: Vec::new(),
            ranked: Vec::new(),
        })
    }

    /// Chooses a token from `logits` `[vocabulary]`, given the tokens before it; the repetition penalty is
    /// applied to `logits` in place.
    ///
    /// Greedy decoding takes the lowest id among the largest logits. Logits of minus infinity are never
    /// chosen. The cost is O(vocabulary), plus O(history) with a repetition penalty: `top_k` and `top_p`
    /// select without sorting. Memory is reused from call to call.
    ///
    /// # Errors
    /// [`Error::Numerics`] where a logit is undefined or plus infinity, or where none is finite;
    /// [`Error::Usage`] where a penalized token of the history lies outside the vocabulary.
    pub fn next(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32> {
        check(logits)?;
        self.penalize(logits, history)?;
        let best = argmax(logits);
        if self.options.temperature == 0.0 {
            return Ok(best as u32);
        }
        self.gather(logits, logits[best]);
        self.keep_nucleus();
        let least = f64::from(self.options.min_p);
        self.candidates.retain(|candidate| candidate.weight >= least);
        Ok(self.draw(best as u32))
    }

    /// The repetition penalty, once per distinct token.
    fn penalize(&mut self, logits: &mut [f32], history: &[u32]) -> Result<()> {
        let penalty = self.options.repetition_penalty;
        if penalty == 1.0 {
            return Ok(());
        }
        if let Some(id) = history.iter().find(|&&id| id as usize >= logits.len()) {
            let count = logits.len();
            return Err(Error::Usage(format!(
                "token {id} of the history is outside the vocabulary of {count}; use this model's tokenizer"
            )));
        }
        self.seen.resize(logits.len().div_ceil(64).max(self.seen.len()), 0);
        for &id in history {
            let (word, bit) = (&mut self.seen[id as usize / 64], 1 << (id % 64));
            if *word & bit == 0 {
                *word |= bit;
                let logit = &mut logits[id as usize];
                *logit = penalized(*logit, penalty);
            }
        }
        for &id in history {
            self.seen[id as usize / 64] = 0;
        }
        Ok(())
    }

    /// Fills the candidates with the tokens that `top_k` keeps, weighed at the temperature.
    fn gather(&mut self, logits: &[f32], largest: f32) {
        let count = self.options.top_k;
        let mut least = f32::MIN;
        if count > 0 && count < logits.len() {
            self.logits.clear();
            self.logits.extend_from_slice(logits);
            let (_, last, _) = self.logits.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
            least = last.max(f32::MIN);
        }
        let (largest, temperature) = (f64::from(largest), f64::from(self.options.temperature));
        let weight = |logit: f32| ((f64::from(logit) - largest) / temperature).exp();
        self.candidates.clear();
        self.candidates.extend(
            (0u32..)
                .zip(logits)
                .filter(|&(_, &logit)| logit >= least)
                .map(|(id, &logit)| Candidate { weight: weight(logit), id }),
        );
    }

    /// Drops the candidates that `top_p` does not keep: those before which the others already add up to it.
    ///
    /// A binary search over the rank of the last candidate kept, halving by selection: O(candidates).
    fn keep_nucleus(&mut self) {
        if self.options.top_p >= 1.0 {
            return;
        }
        let ranked = &mut self.ranked;
        ranked.clone_from(&self.candidates);
        let needed = f64::from(self.options.top_p) * mass(ranked);
        let (mut low, mut high, mut before) = (0, ranked.len() - 1, 0.0);
        while low < high {
            let middle = (low + high) / 2;
            ranked[low..=high].select_nth_unstable_by(middle - low, Candidate::rank);
            let with_middle = before + mass(&ranked[low..=middle]);
            if with_middle >= needed {
                high = middle;
            } else {
                (low, before) = (middle + 1, with_middle);
            }
        }
        let last = ranked[low];
        self.candidates.retain(|candidate| candidate.rank(&last).is_le());
    }

    /// Draws one candidate by weight; `best` stands in where rounding runs past the last.
    fn draw(&mut self, best: u32) -> u32 {
        let mut left = self.random.random::<f64>() * mass(&self.candidates);
        for candidate in &self.candidates {
            left -= candidate.weight;
            if left < 0.0 {
                return candidate.id;
            }
        }
        best
    }
}

fn mass(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| candidate.weight).sum()
}

/// One logit after the penalty; finite ones stay finite.
fn penalized(logit: f32, penalty: f32) -> f32 {
    if !logit.is_finite() {
        return logit;
    }
    let changed = if logit > 0.0 { logit / penalty } else { logit * penalty };
    changed.clamp(f32::MIN, f32::MAX)
}

/// Refuses logits to choose from that make no sense.
fn check(logits: &[f32]) -> Result<()> {
    const REMEDY: &str = "the weights are damaged or overflow: download them again";
    if let Some(id) = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
        let value = logits[id];
        return Err(Error::Numerics(format!("the model gave token {id} the logit {value}; {REMEDY}")));
    }
    if !logits.iter().any(|logit| logit.is_finite()) {
        let count = logits.len();
        return Err(Error::Numerics(format!("none of the model's {count} logits is finite; {REMEDY}")));
    }
    Ok(())
}

/// Index of the largest, the first among equals.
fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
}
