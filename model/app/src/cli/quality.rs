//! How good codebooks are: as a table, as JSON, and as a picture.

use super::{
    heat_map::heat_map,
    output::{print, print_json},
};
use a2ats_model::{
    Result,
    codebooks::write::whole,
    lab::calibrate::{HeadReport, Report},
};
use clap::Args;
use std::{fmt::Write as _, io::Write as _, path::PathBuf};

/// How to show it.
#[derive(Args)]
pub(super) struct Show {
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,

    /// Draw layers by kv heads as an SVG picture: error of scores, and recall.
    #[arg(long, value_name = "FILE")]
    heat_map: Option<PathBuf>,
}

impl Show {
    pub(super) fn show(&self, report: &Report) -> Result<()> {
        if let Some(path) = &self.heat_map {
            whole(path, |file| file.write_all(heat_map(report).as_bytes()))?;
        }
        if self.json { print_json(report) } else { print(&table(report)) }
    }
}

/// A line for each layer: the mean over its kv heads, and the worst of them.
fn table(report: &Report) -> String {
    let mut text = format!(
        "{} codewords per kv head, from {} tokens; measured on {} others, with queries and keys as retrieval compares them\n\n\
         layer   error of scores      recall of the best 1%     of the best 3%     keys of a cluster\n\
         \x20       mean    worst        mean    worst             mean    worst      least / middle / most\n",
        report.settings.codewords, report.tokens, report.held_out
    );
    for layer in report.settings.layers.clone() {
        let heads: Vec<&HeadReport> = report.heads.iter().filter(|head| head.layer == layer).collect();
        let figures = |figure: fn(&HeadReport) -> Option<f64>, worst: fn(f64, f64) -> f64| {
            let all: Vec<f64> = heads.iter().filter_map(|head| figure(head)).collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            all.iter()
                .copied()
                .reduce(worst)
                .map_or_else(|| "     –       –".to_owned(), |worst| format!("{mean:6.3}  {worst:6.3}"))
        };
        let error = figures(|head| head.quality.score_error, f64::max);
        let recall_1 = figures(|head| head.quality.recall_1, f64::min);
        let recall_3 = figures(|head| head.quality.recall_3, f64::min);
        let sizes = |at: usize| heads.iter().map(move |head| head.quality.cluster_sizes[at]);
        let least = sizes(0).min().unwrap_or_default();
        let middle = sizes(1).sum::<usize>() / heads.len().max(1);
        let most = sizes(2).max().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{layer:5}   {error}      {recall_1}           {recall_3}     {least} / {middle} / {most}"
        );
    }
    let unfinished = report.heads.iter().filter(|head| !head.converged).count();
    if unfinished > 0 {
        let _ = writeln!(
            text,
            "\nk-means of {unfinished} kv heads had not come to rest after {} iterations; --iterations lets it go on",
            report.settings.iterations
        );
    }
    text
}
