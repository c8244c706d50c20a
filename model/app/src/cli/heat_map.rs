//! Layers by kv heads in colours.

use a2ats_model::lab::calibrate::{HeadReport, Report};
use std::fmt::Write;

/// A cell, and the room around the panels.
const CELL: usize = 18;
const LEFT: usize = 52;
const TOP: usize = 56;
const GAP: usize = 40;

/// Two panels side by side: error of scores, recall of the best 3%. Light is good.
pub(super) fn heat_map(report: &Report) -> String {
    let heads = report.heads.iter().map(|head| head.kv_head + 1).max().unwrap_or(1);
    let layers = report.settings.layers.len();
    let panel = (heads * CELL).max(150);
    let (width, height) = (LEFT + 2 * panel + GAP + 20, TOP + layers * CELL + 40);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\">{} codewords per kv head, tokens kept apart: {}</text>\n",
        report.settings.codewords, report.held_out
    );
    let error: fn(&HeadReport) -> Option<f64> = |head| head.quality.score_error;
    let recall: fn(&HeadReport) -> Option<f64> = |head| head.quality.recall_3;
    draw(&mut svg, report, LEFT, "error of scores", error, |x| x);
    draw(&mut svg, report, LEFT + panel + GAP, "recall of the best 3%", recall, |x| 1.0 - x);
    for layer in report.settings.layers.clone() {
        let y = TOP + (layer - report.settings.layers.start) * CELL + 13;
        put(&mut svg, LEFT - 8, y, "end", &layer.to_string());
    }
    put(&mut svg, LEFT - 8, TOP - 8, "end", "layer");
    svg.push_str("</svg>\n");
    svg
}

/// A panel; `darkness` of a figure is 0 for the best and 1 for the worst.
fn draw(
    svg: &mut String,
    report: &Report,
    x: usize,
    title: &str,
    figure: fn(&HeadReport) -> Option<f64>,
    darkness: fn(f64) -> f64,
) {
    put(svg, x, TOP - 8, "start", title);
    for head in &report.heads {
        let (left, top) = (x + head.kv_head * CELL, TOP + (head.layer - report.settings.layers.start) * CELL);
        let (fill, said) = match figure(head) {
            Some(value) => {
                let light = (255.0 * (1.0 - darkness(value).clamp(0.0, 1.0))) as u8;
                (format!("rgb({light},{},255)", 128 + light / 2), format!("{value:.3}"))
            }
            None => ("#ddd".to_owned(), "not measured".to_owned()),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{top}\" width=\"{0}\" height=\"{0}\" fill=\"{fill}\"><title>layer {1}, kv head {2}: {said}</title></rect>",
            CELL - 1,
            head.layer,
            head.kv_head
        );
    }
    let bottom = TOP + report.settings.layers.len() * CELL + 16;
    let figures: Vec<f64> = report.heads.iter().filter_map(figure).collect();
    if let (Some(least), Some(most)) =
        (figures.iter().copied().reduce(f64::min), figures.iter().copied().reduce(f64::max))
    {
        put(svg, x, bottom, "start", &format!("{least:.3} to {most:.3}"));
    }
}

fn put(svg: &mut String, x: usize, y: usize, anchor: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>");
}
