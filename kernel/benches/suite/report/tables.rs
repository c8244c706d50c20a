//! The report's tables.

use super::{number, pick, targets};
use crate::suite::results::{Machine, Measurement, Run};

/// What [`retrieve`] shows.
pub const RETRIEVE_NOTE: &str =
    "Choosing the tokens of one kv head is bound by neither memory nor arithmetic: its target is a time.";
/// What [`others`] shows.
pub const OTHERS_NOTE: &str =
    "Share of the roofline where storage types, head dimensions and groups are others than above.";
/// What [`all`] shows.
pub const ALL_NOTE: &str =
    "The best and the median of several samples: the further apart, the noisier the machine was.";

/// A table's columns: a heading, and whether numbers are below it.
type Columns<'a> = Vec<(&'a str, bool)>;

/// The machine and how fast it can be.
pub fn machine(machine: &Machine) -> String {
    let facts = [
        ("Threads", machine.threads.to_string()),
        ("Reads, 1 thread", format!("{} GB/s", giga(machine.read_bandwidth_1))),
        ("Reads, all threads", format!("{} GB/s", giga(machine.read_bandwidth_all))),
        ("Rows here and there, 1 thread", format!("{} GB/s", giga(machine.gather_bandwidth_1))),
        ("Rows here and there, all threads", format!("{} GB/s", giga(machine.gather_bandwidth_all))),
    ];
    let facts: Vec<String> = facts
        .iter()
        .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", number::escape(value)))
        .collect();
    let cpu = number::escape(machine.cpu.trim());
    format!("<h1>{cpu}</h1>\n<dl>{}</dl>\n{}", facts.concat(), peaks(machine).unwrap_or_default())
}

/// The fastest multiply-adds.
fn peaks(machine: &Machine) -> Option<String> {
    let columns = vec![
        ("backend", false),
        ("multiply-add", false),
        ("GFLOP/s, 1 thread", true),
        ("GFLOP/s, all threads", true),
    ];
    let rows = machine.peaks.iter().map(|peak| {
        vec![
            peak.backend.clone(),
            peak.instruction.clone(),
            giga(peak.flops_per_second_1),
            giga(peak.flops_per_second_all),
        ]
    });
    table(&columns, rows.collect())
}

/// Times of retrieval per kv head, against their targets where the shape is the one that they are for.
pub fn retrieve(run: &Run) -> Option<String> {
    let columns = vec![
        ("backend", false),
        ("threads", true),
        ("shape", false),
        ("µs per kv head", true),
        ("target", true),
        ("met", false),
    ];
    let headlines = pick::headlines(run);
    let rows = run.results.iter().filter(|result| targets::is_retrieve(result)).map(|result| {
        let headline = headlines.iter().any(|first| std::ptr::eq(*first, result));
        let target = targets::microseconds(result).filter(|_| headline);
        let taken = targets::microseconds_per_head(result);
        vec![
            result.backend.clone(),
            result.threads.to_string(),
            number::words(&result.shape),
            number::significant(taken),
            target.map_or_else(|| number::NONE.to_owned(), |most| format!("≤ {most}")),
            target.map_or("", |most| if taken <= most { "yes" } else { "no" }).to_owned(),
        ]
    });
    table(&columns, rows.collect())
}

/// Shares of the roofline of all shapes that the bars leave out, a column per backend.
pub fn others(run: &Run) -> Option<String> {
    let results = pick::others(run);
    let backends = pick::backends(&results);
    let mut columns = vec![("operation", false), ("shape", false), ("threads", true)];
    columns.extend(backends.iter().map(|backend| (*backend, true)));
    let mut lines: Vec<&Measurement> = Vec::new();
    for result in &results {
        if !lines.iter().any(|line| same_line(line, result)) {
            lines.push(result);
        }
    }
    let rows = lines.iter().map(|line| {
        let mut row =
            vec![number::operation(&line.operation), number::words(&line.shape), line.threads.to_string()];
        row.extend(backends.iter().map(|backend| {
            let cell = results.iter().find(|result| same_line(line, result) && result.backend == *backend);
            number::optional(cell.and_then(|result| result.roofline_ratio))
        }));
        row
    });
    table(&columns, rows.collect())
}

/// Every measurement of the run.
pub fn all(run: &Run) -> Option<String> {
    let columns = vec![
        ("operation", false),
        ("backend", false),
        ("threads", true),
        ("shape", false),
        ("µs, best", true),
        ("µs, median", true),
        ("rate", true),
        ("of the roofline", true),
    ];
    let rows = run.results.iter().map(|result| {
        vec![
            number::operation(&result.operation),
            result.backend.clone(),
            result.threads.to_string(),
            number::words(&result.shape),
            number::significant(result.seconds * 1e6),
            number::significant(result.median_seconds * 1e6),
            rate(result),
            number::optional(result.roofline_ratio),
        ]
    });
    table(&columns, rows.collect())
}

fn same_line(a: &Measurement, b: &Measurement) -> bool {
    a.operation == b.operation && a.threads == b.threads && a.shape == b.shape
}

/// What bounds an operation, per second.
fn rate(result: &Measurement) -> String {
    match (result.bytes_per_second, result.flops_per_second) {
        (Some(bytes), _) => format!("{} GB/s", giga(bytes)),
        (None, Some(flops)) => format!("{} GFLOP/s", giga(flops)),
        (None, None) => number::NONE.to_owned(),
    }
}

fn giga(per_second: f64) -> String {
    number::significant(per_second / 1e9)
}

/// A table, with a rule wherever the first column changes. None without rows.
fn table(columns: &Columns<'_>, rows: Vec<Vec<String>>) -> Option<String> {
    let class = |number: bool| if number { " class=\"n\"" } else { "" };
    let head = columns
        .iter()
        .map(|(name, number)| format!("<th scope=\"col\"{}>{}</th>", class(*number), number::escape(name)));
    let mut table = format!("<div class=\"wide\"><table>\n<tr>{}</tr>\n", head.collect::<String>());
    let mut last = None;
    for row in &rows {
        let first = if last == row.first() { "" } else { " class=\"first\"" };
        let cells = columns
            .iter()
            .zip(row)
            .map(|((_, number), cell)| format!("<td{}>{}</td>", class(*number), number::escape(cell)));
        table.push_str(&format!("<tr{first}>{}</tr>\n", cells.collect::<String>()));
        last = row.first();
    }
    table.push_str("</table></div>\n");
    (!rows.is_empty()).then_some(table)
}
