//! The figures as text.

use super::{Figure, Way};
use a2ats_kernel::decode::Estimate;
use std::fmt::Write;

/// A Markdown table per context: rows are shares and codewords, columns layers, each without the estimate, with it, and with averaged
/// scores; and the KiB that a step of a layer reads without and with it.
pub fn write_table(figures: &[Figure]) -> String {
    let mut out = String::new();
    let mut contexts: Vec<usize> = figures.iter().map(|figure| figure.tokens).collect();
    contexts.dedup();
    for tokens in contexts {
        let here: Vec<&Figure> = figures.iter().filter(|figure| figure.tokens == tokens).collect();
        let layers = here.iter().map(|figure| figure.layer + 1).max().unwrap_or(0);
        // Writing to a string cannot fail.
        let _ = write!(out, "\n{tokens} tokens\n\n| codewords | retrieved |");
        for layer in 0..layers {
            let _ = write!(out, " layer {layer} | with estimate | averaged |");
        }
        let _ =
            write!(out, " KiB read | with estimate |\n|---|---|{}---|---|\n", "---|---|---|".repeat(layers));
        let ways = here
            .iter()
            .filter(|figure| figure.layer == 0 && figure.way.estimate == Estimate::Off)
            .map(|figure| figure.way);
        for way in ways {
            row(&mut out, &here, way, layers);
        }
    }
    out
}

fn row(out: &mut String, figures: &[&Figure], way: Way, layers: usize) {
    let _ = write!(out, "| {} | {}% |", way.codewords, (way.retrieve * 1e4).round() / 100.0);
    let of = |layer: usize, estimate: Estimate| {
        figures.iter().find(|figure| figure.layer == layer && figure.way == Way { estimate, ..way })
    };
    for layer in 0..layers {
        for estimate in [Estimate::Off, Estimate::Fixed, Estimate::Averaged] {
            let _ = write!(out, " {:.3} |", of(layer, estimate).map_or(f64::NAN, |figure| figure.error));
        }
    }
    for estimate in [Estimate::Off, Estimate::Fixed] {
        let bytes: f64 = (0..layers).filter_map(|layer| of(layer, estimate)).map(|figure| figure.bytes).sum();
        let _ = write!(out, " {:.0} |", bytes / layers as f64 / 1024.0);
    }
    out.push('\n');
}
