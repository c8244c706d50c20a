use proptest::prelude::*;

use super::{Sampler, SamplingOptions};

fn sampler(options: SamplingOptions) -> Sampler {
    Sampler::new(options).unwrap()
}

fn hot(seed: u64) -> SamplingOptions {
    SamplingOptions { temperature: 1.0, seed, ..Default::default() }
}

/// Probabilities by the definition: everything sorted, one filter after the other.
fn reference(logits: &[f32], options: &SamplingOptions) -> Vec<f64> {
    let mut scores: Vec<f64> =
        logits.iter().map(|&logit| f64::from(logit) / f64::from(options.temperature)).collect();
    let mut sorted = scores.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    if options.top_k > 0 {
        let least = sorted[options.top_k.min(sorted.len()) - 1];
        scores.iter_mut().filter(|score| **score < least).for_each(|score| *score = f64::NEG_INFINITY);
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let mut before = 0.0;
    let plain = softmax(&scores);
    for (rank, &id) in order.iter().enumerate() {
        if options.top_p < 1.0 && rank > 0 && before >= f64::from(options.top_p) {
            scores[id] = f64::NEG_INFINITY;
        }
        before += plain[id];
    }
    let probabilities = softmax(&scores);
    let least = f64::from(options.min_p) * probabilities.iter().fold(0.0, |a: f64, b| a.max(*b));
    let kept: Vec<f64> = probabilities.iter().map(|&p| if p >= least { p } else { 0.0 }).collect();
    let total: f64 = kept.iter().sum();
    kept.iter().map(|p| p / total).collect()
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// The distribution that the last call drew from.
fn distribution(sampler: &Sampler, count: usize) -> Vec<f64> {
    let total = super::mass(&sampler.candidates);
    let mut probabilities = vec![0.0; count];
    for candidate in &sampler.candidates {
        probabilities[candidate.id as usize] = candidate.weight / total;
    }
    probabilities
}

/// Logits with many ties: multiples of a quarter, some of them minus infinity.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![9 => (-40i32..40).prop_map(|n| n as f32 / 4.0), 1 => Just(f32::NEG_INFINITY)];
    prop::collection::vec(logit, 1..300)
        .prop_filter("one is finite", |logits| logits.iter().any(|logit| logit.is_finite()))
}

fn options() -> impl Strategy<Value = SamplingOptions> {
    (0.05f32..3.0, 0.0f32..1.2, 0usize..20, -0.2f32..1.0, any::<u64>()).prop_map(
        |(temperature, top_p, top_k, min_p, seed)| {
            let (top_p, min_p) = (top_p.min(1.0), min_p.max(0.0));
            SamplingOptions { temperature, top_p, top_k, min_p, seed, ..Default::default() }
        },
    )
}

proptest! {
    #[test]
    fn the_distribution_is_that_of_the_definition(logits in logits(), options in options()) {
        let mut sampler = sampler(options.clone());
        let token = sampler.next(&mut logits.clone(), &[]).unwrap() as usize;
        let (drawn, expected) = (distribution(&sampler, logits.len()), reference(&logits, &options));
        prop_assert!(drawn[token] > 0.0);
        // A cut may fall on either side of a token where rounding decides it; that token's mass is the error.
        let off: f64 = drawn.iter().zip(&expected).map(|(a, b)| (a - b).abs()).sum();
        let moved = drawn.iter().zip(&expected).filter(|(a, b)| (**a == 0.0) != (**b == 0.0)).count();
        prop_assert!(off < 1e-9 || moved == 1, "{off}, {moved} tokens on the other side");
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens(logits in logits(), options in options()) {
        let run = || {
            let mut sampler = sampler(options.clone());
            (0..20).map(|_| sampler.next(&mut logits.clone(), &[]).unwrap()).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest(logits in logits(), options in options()) {
        let mut greedy = sampler(SamplingOptions { temperature: 0.0, ..options });
        let token = greedy.next(&mut logits.clone(), &[]).unwrap();
        let largest = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        prop_assert_eq!(token as usize, logits.iter().position(|logit| *logit == largest).unwrap());
    }

    #[test]
    fn each_seen_token_is_penalized_once(
        logits in logits(),
        penalty in 0.1f32..4.0,
        seen in prop::collection::vec(any::<prop::sample::Index>(), 0..50),
    ) {
        let history: Vec<u32> = seen.iter().map(|index| index.index(logits.len()) as u32).collect();
        let mut sampler = sampler(SamplingOptions { repetition_penalty: penalty, ..Default::default() });
        for _ in 0..2 {
            let mut changed = logits.clone();
            sampler.next(&mut changed, &history).unwrap();
            for (id, (&before, &after)) in logits.iter().zip(&changed).enumerate() {
                let expected = match history.contains(&(id as u32)) {
                    true if before > 0.0 => before / penalty,
                    true => before * penalty,
                    false => before,
                };
                prop_assert_eq!(after, expected);
            }
        }
    }
}

/// Chi-squared of 40000 draws against the definition, with its degrees of freedom.
fn frequencies(options: &SamplingOptions, logits: &[f32]) -> (f64, usize) {
    let (mut sampler, mut counts) = (sampler(options.clone()), vec![0.0; logits.len()]);
    let draws = 40000;
    for _ in 0..draws {
        counts[sampler.next(&mut logits.to_vec(), &[]).unwrap() as usize] += 1.0;
    }
    let expected = reference(logits, options);
    let mut squares = 0.0;
    for (count, probability) in counts.iter().zip(&expected) {
        assert!(*probability > 0.0 || *count == 0.0);
        if *probability > 0.0 {
            let mean = probability * f64::from(draws);
            squares += (count - mean).powi(2) / mean;
        }
    }
    (squares, expected.iter().filter(|probability| **probability > 0.0).count() - 1)
}

#[test]
fn frequencies_are_the_probabilities() {
    let logits = [0.3, 2.0, -1.0, 1.5, 1.5, -0.5, 0.0, 1.0];
    for options in [
        hot(1),
        SamplingOptions { temperature: 0.7, top_k: 5, ..hot(2) },
        SamplingOptions { top_p: 0.8, ..hot(3) },
        SamplingOptions { temperature: 1.5, min_p: 0.3, ..hot(4) },
        SamplingOptions { top_k: 7, top_p: 0.95, min_p: 0.1, ..hot(5) },
    ] {
        let (squares, freedom) = frequencies(&options, &logits);
        // Six standard deviations above the mean of the chi-squared distribution.
        assert!(squares < freedom as f64 + 6.0 * (2.0 * freedom as f64).sqrt(), "{squares} {options:?}");
    }
}

#[test]
fn seeds_matter_and_the_sequence_is_fixed() {
    let run = |seed| {
        let mut sampler = sampler(hot(seed));
        (0..16).map(|_| sampler.next(&mut [0.0; 10], &[]).unwrap()).collect::<Vec<_>>()
    };
    assert_ne!(run(1), run(2));
    assert_eq!(run(42), SEQUENCE_42);
}

/// Sixteen draws from ten equal tokens with seed 42: they may never change, on any machine.
const SEQUENCE_42: [u32; 16] = [6, 9, 4, 6, 2, 1, 3, 8, 7, 2, 5, 9, 9, 5, 7, 1];

#[test]
fn extreme_logits_are_harmless() {
    let infinity = f32::INFINITY;
    for temperature in [f32::MIN_POSITIVE, 1.0, f32::MAX] {
        let options = SamplingOptions { temperature, top_p: 0.9, min_p: 0.1, ..hot(0) };
        let token = sampler(options.clone()).next(&mut [-1e30, 1e30, -infinity, f32::MIN], &[]).unwrap();
        assert!(token == 1 || temperature == f32::MAX && token != 2);
        assert_eq!(sampler(options.clone()).next(&mut [-infinity, f32::MIN, -infinity], &[]).unwrap(), 1);
        assert_eq!(sampler(options).next(&mut [f32::MAX], &[]).unwrap(), 0);
    }
    let penalty = SamplingOptions { repetition_penalty: 1e-30, ..Default::default() };
    let mut logits = [1e30, -1e30, -infinity];
    assert_eq!(sampler(penalty).next(&mut logits, &[0, 1, 2]).unwrap(), 0);
    assert_eq!(logits, [f32::MAX, -1e30 * 1e-30, -infinity]);
}

#[test]
fn everything_is_kept_of_a_large_flat_distribution() {
    let mut sampler = sampler(SamplingOptions { top_p: 0.5, ..hot(9) });
    sampler.next(&mut vec![0.25; 128_256], &[]).unwrap();
    assert_eq!(sampler.candidates.len(), 64_128);
    assert_eq!(sampler.candidates.last().unwrap().id, 64_127);
}

#[test]
fn broken_logits_are_reported() {
    let nan = [0.0, f32::NAN];
    let infinite = [0.0, 1.0, f32::INFINITY];
    let masked = [f32::NEG_INFINITY; 3];
    for temperature in [0.0, 1.0] {
        let mut sampler = sampler(SamplingOptions { temperature, ..Default::default() });
        let mut error = |logits: &[f32]| sampler.next(&mut logits.to_vec(), &[]).unwrap_err().to_string();
        assert!(error(&nan).contains("token 1 the logit NaN; "));
        assert!(error(&infinite).contains("token 2 the logit inf; "));
        assert!(error(&masked).contains("none of the model's 3 logits"));
        assert!(error(&[]).contains("none of the model's 0 logits"));
    }
    let options = SamplingOptions { repetition_penalty: 1.1, ..Default::default() };
    let error = sampler(options).next(&mut [0.0; 4], &[3, 4]).unwrap_err().to_string();
    assert!(error.contains("token 4") && error.contains("vocabulary of 4;"), "{error}");
}

#[test]
fn options_out_of_range_name_their_flag() {
    let greedy = SamplingOptions::default;
    let bad = [f32::NAN, f32::INFINITY, -0.5];
    for value in bad {
        for (flag, options) in [
            ("--temperature", SamplingOptions { temperature: value, ..greedy() }),
            ("--top-p", SamplingOptions { top_p: value, ..greedy() }),
            ("--min-p", SamplingOptions { min_p: value, ..greedy() }),
            ("--repetition-penalty", SamplingOptions { repetition_penalty: value, ..greedy() }),
        ] {
            let error = Sampler::new(options).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{flag} {value} is out of range; give ")), "{error}");
        }
    }
    assert!(SamplingOptions { top_p: 1.5, ..greedy() }.validate().is_err());
    assert!(SamplingOptions { min_p: 1.5, ..greedy() }.validate().is_err());
    assert!(SamplingOptions { repetition_penalty: 0.0, ..greedy() }.validate().is_err());
    assert!(SamplingOptions { top_p: 0.0, min_p: 1.0, top_k: usize::MAX, ..hot(0) }.validate().is_ok());
}
