//! The codes that one query head takes: a weighted selection by thresholds.
//!
//! A look at the scores' mean and deviation tells a threshold that a few more codes reach than are taken, as a rule; one
//! pass collects those, and a bisection among them, some ten looks at two hundred codes, ends at the boundary. Where
//! scores are spread in another way than the guess assumes, more codes are collected, in the worst case all.
//!
//! For the four heads of a group and 4096 codes on Zen 4, AVX-512: sorting all codes takes 55–78 µs, histograms of the
//! scores' bits 60 µs (scattered additions wait for each other), bisection over all codes 11 µs.

use crate::simd::{MAX_LANES, Simd};

/// The bisection ends when the codes between the thresholds hold as many tokens as this many codes on average.
const FEW_CODES: u64 = 4;

/// Steps that halve the distance of the thresholds; further ones, after outliers, halve the numbers between them.
const STEPS_BY_DISTANCE: usize = 12;

/// By how many standard deviations the guess of the boundary is lowered, in turn, until enough codes reach it.
const MARGINS: [f32; 2] = [0.15, 1.0];

/// Where a head's taking ends.
#[derive(Debug, Clone, Default)]
pub struct Boundary {
    /// The codes that score exactly as the last one taken, which have tokens.
    pub codes: Vec<u32>,
    /// Tokens that are left to take from them, the lowest positions first.
    pub left: u32,
    collected: Collected,
    /// Codes between the thresholds, by score.
    close: Vec<(f32, u32)>,
}

/// Codes that may be taken, side by side; registers are filled up with codes that score −∞ and have no tokens.
#[derive(Debug, Clone, Default)]
struct Collected {
    scores: Vec<f32>,
    counts: Vec<u32>,
    codes: Vec<u32>,
    tokens: u32,
}

/// Raises `prefixes`, `[codes]`, to all of the tokens of the codes that a head with these `scores` takes whole, and
/// describes the rest in `boundary`. `counts` are the codes' tokens; `take` is above 0 and below their sum.
#[inline(always)]
pub(crate) fn select<S: Simd>(
    s: S,
    scores: &[f32],
    counts: &[u32],
    take: u32,
    prefixes: &mut [u32],
    boundary: &mut Boundary,
) {
    let Boundary { codes, left, collected, close } = boundary;
    collect_enough(s, scores, counts, take, collected);
    let (lowest, above, taken) = bisect(s, collected, take);
    close.clear();
    for ((&score, &count), &code) in collected.scores.iter().zip(&collected.counts).zip(&collected.codes) {
        if score >= above {
            prefixes[code as usize] = count;
        } else if score >= lowest {
            close.push((score, code));
        }
    }
    close.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    *left = take - taken;
    codes.clear();
    // Codes of equal score are taken together or not at all.
    for tied in close.chunk_by(|a, b| a.0 == b.0) {
        let tokens: u64 = tied.iter().map(|&(_, code)| u64::from(counts[code as usize])).sum();
        if tokens >= u64::from(*left) {
            codes.extend(tied.iter().map(|&(_, code)| code));
            return;
        }
        *left -= tokens as u32;
        for &(_, code) in tied {
            prefixes[code as usize] = counts[code as usize];
        }
    }
}

/// Collects the best codes, until they hold `take` tokens or there are no more.
#[inline(always)]
fn collect_enough<S: Simd>(s: S, scores: &[f32], counts: &[u32], take: u32, collected: &mut Collected) {
    let (mean, deviation) = mean_and_deviation(s, scores);
    let tokens: u32 = counts.iter().sum();
    let guess = mean + deviation * normal_quantile(take as f32 / tokens as f32);
    for margin in MARGINS {
        collected.collect(s, scores, counts, guess - margin * deviation);
        if collected.tokens >= take {
            return;
        }
    }
    collected.collect(s, scores, counts, f32::NEG_INFINITY);
}

impl Collected {
    /// The codes that have tokens and score `threshold` or more.
    #[inline(always)]
    fn collect<S: Simd>(&mut self, s: S, scores: &[f32], counts: &[u32], threshold: f32) {
        self.scores.clear();
        self.counts.clear();
        self.codes.clear();
        self.tokens = 0;
        for_each_at_least(
            s,
            scores,
            threshold,
            #[inline(always)]
            |code| {
                if counts[code] > 0 {
                    self.scores.push(scores[code]);
                    self.counts.push(counts[code]);
                    self.codes.push(code as u32);
                    self.tokens += counts[code];
                }
            },
        );
        let padded = self.scores.len().next_multiple_of(S::LANES);
        self.scores.resize(padded, f32::NEG_INFINITY);
        self.counts.resize(padded, 0);
    }

    /// Tokens of the codes that score `threshold` or more.
    #[inline(always)]
    fn tokens_at_least<S: Simd>(&self, s: S, threshold: f32) -> u32 {
        let at_least = s.splat(threshold);
        let mut tokens = s.splat(0.0);
        for (scores, counts) in self.scores.chunks_exact(S::LANES).zip(self.counts.chunks_exact(S::LANES)) {
            tokens = s.add_where_at_least(tokens, s.load(scores), at_least, counts);
        }
        let mut lanes = [0.0; MAX_LANES];
        s.store(tokens, &mut lanes);
        lanes.iter().map(|x| x.to_bits()).sum()
    }
}

/// Mean and standard deviation of the scores; they are only used to guess with.
#[inline(always)]
fn mean_and_deviation<S: Simd>(s: S, scores: &[f32]) -> (f32, f32) {
    let (mut sum, mut squares) = (s.splat(0.0), s.splat(0.0));
    let whole = scores.len() / S::LANES * S::LANES;
    // Scores that are no multiple of a register leave some out, unless that would be all.
    let sample = if whole > 0 { &scores[..whole] } else { &[0.0; MAX_LANES][..S::LANES] };
    for scores in sample.chunks_exact(S::LANES) {
        let scores = s.load(scores);
        (sum, squares) = (s.add(sum, scores), s.mul_add(scores, scores, squares));
    }
    let count = sample.len() as f32;
    let mean = s.reduce_add(sum) / count;
    (mean, (s.reduce_add(squares) / count - mean * mean).max(0.0).sqrt())
}

/// The number that a normally distributed one is above with this probability (Abramowitz and Stegun 26.2.23).
fn normal_quantile(above: f32) -> f32 {
    let t = (-2.0 * above.min(1.0 - above).max(1e-9).ln()).sqrt();
    let numerator = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let denominator = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let quantile = t - numerator / denominator;
    if above <= 0.5 { quantile } else { -quantile }
}

/// Two thresholds: codes that score `lowest` or more hold enough tokens, those that score `above` or more (none if that
/// is NaN) do not, and how many they hold.
#[inline(always)]
fn bisect<S: Simd>(s: S, collected: &Collected, take: u32) -> (f32, f32, u32) {
    let known = &collected.scores[..collected.codes.len()];
    let mut lowest = known.iter().copied().fold(f32::INFINITY, f32::min);
    let mut highest = known.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut at_lowest, mut above, mut taken) = (collected.tokens, f32::NAN, 0);
    let few = (FEW_CODES * u64::from(collected.tokens) / known.len().max(1) as u64) as u32;
    for step in 0.. {
        if at_lowest.saturating_sub(taken) <= few {
            break;
        }
        let Some(middle) = between(lowest, highest, step < STEPS_BY_DISTANCE) else { break };
        let tokens = collected.tokens_at_least(s, middle);
        if tokens >= take {
            (lowest, at_lowest) = (middle, tokens);
        } else {
            (highest, above, taken) = (middle, middle, tokens);
        }
    }
    (lowest, above, taken)
}

/// A number between two others, if there is one: halfway by distance, or in the order of all numbers.
fn between(low: f32, high: f32, by_distance: bool) -> Option<f32> {
    let middle = 0.5 * low + 0.5 * high;
    if by_distance && low < middle && middle < high {
        return Some(middle);
    }
    let (low, high) = (key(low), key(high));
    (low.saturating_add(1) < high).then(|| number(low + (high - low) / 2))
}

/// An integer that orders as numbers do.
fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// The number of a [`key`].
fn number(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// Calls `visit` with each code that scores `threshold` or more.
#[inline(always)]
fn for_each_at_least<S: Simd>(s: S, scores: &[f32], threshold: f32, mut visit: impl FnMut(usize)) {
    let at_least = s.splat(threshold);
    let whole = scores.len() / S::LANES * S::LANES;
    for (i, scores) in scores.chunks_exact(S::LANES).enumerate() {
        let mut mask = s.at_least(s.load(scores), at_least);
        while mask != 0 {
            visit(i * S::LANES + mask.trailing_zeros() as usize);
            mask &= mask - 1;
        }
    }
    for (i, &score) in scores[whole..].iter().enumerate() {
        if score >= threshold {
            visit(whole + i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{between, key, normal_quantile, number};

    #[test]
    fn keys_order_as_numbers_do_and_lead_back() {
        let ascending =
            [f32::NEG_INFINITY, f32::MIN, -1.0, -1e-45, 0.0, 1e-45, f32::MIN_POSITIVE, 1.0, f32::MAX];
        for pair in ascending.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
            assert_eq!(number(key(pair[0])), pair[0]);
        }
    }

    #[test]
    fn halving_ends_between_neighbours() {
        for (low, high) in [(f32::NEG_INFINITY, f32::INFINITY), (-1.0, f32::MAX), (0.0, 1e-45), (-0.0, 0.0)] {
            for by_distance in [false, true] {
                let (mut low, mut steps) = (low, 0);
                while let Some(middle) = between(low, high, by_distance && steps < 40) {
                    assert!(low <= middle && middle <= high, "{middle} is not within {low} and {high}");
                    (low, steps) = (middle, steps + 1);
                }
                assert!(steps < 80);
            }
        }
    }

    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        for (above, quantile) in [(0.5, 0.0), (0.158_655_25, 1.0), (0.022_750_13, 2.0), (0.977_249_87, -2.0)]
        {
            assert!((normal_quantile(above) - quantile).abs() < 1e-3, "{above}");
        }
    }
}
