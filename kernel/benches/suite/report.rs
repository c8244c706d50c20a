//! A run as a page to look at, and as a figure for the README.
//!
//! [`render`] gives a whole HTML page, [`figure`] its two drawings as one SVG. Both stand alone: no scripts, no fonts or
//! styles from elsewhere, light or dark as the reader's system has it.

mod bars;
mod number;
mod pick;
mod steps;
mod style;
mod svg;
mod tables;
mod targets;

use crate::suite::results::Run;
use svg::{Canvas, MARGIN};

/// The page around the report.
const PAGE: &str = include_str!("report/page.html");

/// The report of one run as a self-contained HTML page.
pub fn render(run: &Run) -> String {
    let sections = [
        tables::machine(&run.machine),
        section(bars::HEADING, summary(run), bars::draw(run).map(|drawing| drawing.inline(bars::HEADING))),
        section("Retrieval", tables::RETRIEVE_NOTE.to_owned(), tables::retrieve(run)),
        section(
            steps::HEADING,
            steps::NOTE.to_owned(),
            steps::draw(run).map(|drawing| drawing.inline(steps::HEADING)),
        ),
        section("Other shapes", tables::OTHERS_NOTE.to_owned(), tables::others(run)),
        section("All results", tables::ALL_NOTE.to_owned(), tables::all(run)),
    ];
    // The body comes last: nothing in it is taken for a placeholder.
    PAGE.replace("{style}", style::FIGURE).replace("{body}", &sections.concat())
}

/// The roofline bars and the decode-step plot of one run as a standalone SVG.
pub fn figure(run: &Run) -> String {
    let mut sheet = Canvas::new();
    let title = machine_line(run);
    sheet.text("title", MARGIN, 26.0, &title);
    sheet.skip(34.0);
    for (heading, drawing) in [(bars::HEADING, bars::draw(run)), (steps::HEADING, steps::draw(run))] {
        let Some(drawing) = drawing else { continue };
        sheet.text("head", MARGIN, sheet.height() + 18.0, heading);
        sheet.skip(24.0);
        sheet.stack(&drawing);
    }
    sheet.standalone(&title, style::FIGURE)
}

/// A heading, a line on what is shown, and what is shown; nothing at all where there is nothing to show.
fn section(heading: &str, note: String, content: Option<String>) -> String {
    content.map_or_else(String::new, |content| {
        format!("<section><h2>{heading}</h2>\n<p>{}</p>\n{content}</section>\n", number::escape(&note))
    })
}

/// How many of the targets are met.
fn summary(run: &Run) -> String {
    let verdicts: Vec<bool> =
        pick::headlines(run).iter().filter_map(|result| targets::met(&run.machine, result)).collect();
    let met = verdicts.iter().filter(|&&met| met).count();
    match verdicts.len() {
        0 => "No target is defined for what was measured.".to_owned(),
        all => format!("Targets met: {met} of {all}. A missed one stands next to its value."),
    }
}

/// The machine in a line.
fn machine_line(run: &Run) -> String {
    format!("{}, {}", run.machine.cpu.trim(), number::count(run.machine.threads, "thread"))
}
