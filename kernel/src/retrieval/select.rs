//! The codes that one query head takes: a weighted selection by thresholds.
//!
//! A look at the scores' mean and deviation tells a threshold that a few more codes reach than are taken, as a rule; one
//! pass collects those, and a bisection among them, some ten looks at two hundred codes, ends at the boundary. Where
//! scores are spread in another way than the guess assumes, more codes are collected, in the worst case all.
//!
//! For the four heads of a group and 4096 codes on Zen 4, AVX-512: sorting all codes takes 55–78 µs, histograms of the
//! scores' bits 60 µs (scattered additions wait for each other), bisection over all codes 11 µs, this 6 µs. On Emerald
//! Rapids it takes 8 µs, and 14 µs with a branch per register of scores and per code collected.

use crate::simd::{MAX_LANES, Simd};

/// The bisection ends when the codes between the thresholds hold as many tokens as this many codes on average.
const FEW_CODES: u64 = 4;

/// Steps that halve the distance of the thresholds; further ones, after outliers, halve the numbers between them.
const STEPS_BY_DISTANCE: usize = 12;

/// By how many standard deviations the guess of the boundary is lowered, in turn, until enough codes reach it.
const MARGINS: [f32; 2] = [0.15, 1.0];

/// Where a head's taking ends. Only this crate makes one, so that nobody else calls `Internals::select_codes`, which trusts its
/// arguments.
#[derive(Debug, Clone)]
pub struct Boundary {
    /// The codes that score exactly as the last one taken, which have tokens.
    pub codes: Vec<u32>,
    /// Tokens that are left to take from them, the lowest positions first.
    pub left: u32,
    collected: Collected,
    /// Codes between the thresholds, by score.
    close: Vec<(f32, u32)>,
}

impl Boundary {
    /// Of nothing.
    pub(crate) fn none() -> Self {
        Self { codes: Vec::new(), left: 0, collected: Collected::default(), close: Vec::new() }
    }
}

/// Codes that may be taken, side by side; registers are filled up with codes that score −∞ and have no tokens.
#[derive(Debug, Clone, Default)]
struct Collected {
    scores: Vec<f32>,
    counts: Vec<u32>,
    codes: Vec<u32>,
    tokens: u32,
    /// What all of them score at least.
    threshold: f32,
}

/// Raises `prefixes`, `[codes]`, to all of the tokens of the codes that a head with these `scores` takes whole, and
/// describes the rest in `boundary`. `counts` are the codes' tokens; `take` is above 0 and below their sum.
#[inline(never)]
pub(crate) fn select<S: Simd>(
    s: S,
    scores: &[f32],
    counts: &[u32],
    take: u32,
    prefixes: &mut [u32],
    boundary: &mut Boundary,
) {
    s.vectorize(
        #[inline(always)]
        || select_here(s, scores, counts, take, prefixes, boundary),
    );
}

#[inline(always)]
fn select_here<S: Simd>(
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
    close.resize(collected.codes.len(), (0.0, 0));
    let mut len = 0;
    // Without branches: which way they go is anyone's guess.
    for ((&score, &count), &code) in collected.scores.iter().zip(&collected.counts).zip(&collected.codes) {
        let prefix = &mut prefixes[code as usize];
        *prefix = if score >= above { count } else { *prefix };
        close[len] = (score, code);
        // `above` may be NaN, which no score reaches.
        let reaches_above = score >= above;
        len += usize::from(score >= lowest && !reaches_above && count > 0);
    }
    close.truncate(len);
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
    /// The codes that score `threshold` or more.
    #[inline(always)]
    fn collect<S: Simd>(&mut self, s: S, scores: &[f32], counts: &[u32], threshold: f32) {
        self.threshold = threshold;
        collect_at_least(s, scores, threshold, &mut self.codes);
        self.scores.clear();
        self.counts.clear();
        self.scores.extend(self.codes.iter().map(|&code| scores[code as usize]));
        self.counts.extend(self.codes.iter().map(|&code| counts[code as usize]));
        self.tokens = self.counts.iter().sum();
        let padded = self.scores.len().next_multiple_of(S::LANES);
        self.scores.resize(padded, f32::NEG_INFINITY);
        self.counts.resize(padded, 0);
    }

    /// The best score.
    #[inline(always)]
    fn highest<S: Simd>(&self, s: S) -> f32 {
        let mut highest = s.splat(f32::NEG_INFINITY);
        for scores in self.scores.chunks_exact(S::LANES) {
            highest = s.max(highest, s.load(scores));
        }
        s.reduce_max(highest)
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
    let whole = scores.len() / S::LANES * S::LANES;
    // Scores that are no multiple of a register leave some out, unless that would be all.
    let sample = if whole > 0 { &scores[..whole] } else { &[0.0; MAX_LANES][..S::LANES] };
    // Four sums of each, so that additions do not wait for each other.
    let (mut sums, mut squares) = ([s.splat(0.0); 4], [s.splat(0.0); 4]);
    for scores in sample.chunks(4 * S::LANES) {
        for ((scores, sum), square) in scores.chunks_exact(S::LANES).zip(&mut sums).zip(&mut squares) {
            let scores = s.load(scores);
            (*sum, *square) = (s.add(*sum, scores), s.mul_add(scores, scores, *square));
        }
    }
    let [sum, squares] = [sums, squares].map(
        #[inline(always)]
        |[a, b, c, d]| s.add(s.add(a, b), s.add(c, d)),
    );
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
    let (mut lowest, mut highest) = (collected.threshold, collected.highest(s));
    let (mut at_lowest, mut above, mut taken) = (collected.tokens, f32::NAN, 0);
    let few = (FEW_CODES * u64::from(collected.tokens) / collected.codes.len().max(1) as u64) as u32;
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

/// Leaves in `codes` those that score `threshold` or more. Looks at 64 at once: with sixteen, and half of the looks finding
/// something, what the branches cost was a third of a selection.
#[inline(always)]
fn collect_at_least<S: Simd>(s: S, scores: &[f32], threshold: f32, codes: &mut Vec<u32>) {
    let at_least = s.splat(threshold);
    codes.clear();
    codes.resize(scores.len(), 0);
    let mut len = 0;
    for (i, scores) in scores.chunks(64).enumerate() {
        let whole = scores.len() / S::LANES * S::LANES;
        let mut mask = 0_u64;
        for (r, scores) in scores.chunks_exact(S::LANES).enumerate() {
            mask |= u64::from(s.at_least(s.load(scores), at_least)) << (r * S::LANES);
        }
        for (j, &score) in scores.iter().enumerate().skip(whole) {
            mask |= u64::from(score >= threshold) << j;
        }
        while mask != 0 {
            codes[len] = i as u32 * 64 + mask.trailing_zeros();
            len += 1;
            mask &= mask - 1;
        }
    }
    codes.truncate(len);
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
