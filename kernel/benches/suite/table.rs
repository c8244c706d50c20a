//! The run as a table in the terminal.

use super::results::{Measurement, Run, Shape};
use std::fmt::Write;

/// The walls, then a line per result.
pub fn render(run: &Run) -> String {
    let machine = &run.machine;
    let mut out = format!(
        "\n{}, {} threads: reads {:.1} GB/s on one, {:.1} on all; rows here and there {:.1} and {:.1}\n",
        machine.cpu,
        machine.threads,
        machine.read_bandwidth_1 / 1e9,
        machine.read_bandwidth_all / 1e9,
        machine.gather_bandwidth_1 / 1e9,
        machine.gather_bandwidth_all / 1e9
    );
    for peak in &machine.peaks {
        let (one, all) = (peak.flops_per_second_1 / 1e9, peak.flops_per_second_all / 1e9);
        let _ = writeln!(
            out,
            "{:<11}{} {one:.0} GFLOP/s on one thread, {all:.0} on all",
            peak.backend, peak.instruction
        );
    }
    let _ = writeln!(
        out,
        "\n{:<18} {:<11} {:>7}  {:<44} {:>10} {:>10} {:>9}  {:>6}",
        "operation", "backend", "threads", "shape", "best µs", "median µs", "rate", "ratio"
    );
    for result in &run.results {
        let _ = writeln!(
            out,
            "{:<18} {:<11} {:>7}  {:<44} {:>10.2} {:>10.2} {:>9}  {:>6}",
            result.operation,
            result.backend,
            result.threads,
            in_words(&result.shape),
            result.seconds * 1e6,
            result.median_seconds * 1e6,
            rate(result),
            result.roofline_ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        );
        if let Some(parts) = result.parts {
            let _ = writeln!(
                out,
                "{:>40}score {:.1}, retrieve {:.1}, attend {:.1} µs",
                "",
                parts.score * 1e6,
                parts.retrieve * 1e6,
                parts.attend * 1e6
            );
        }
    }
    out
}

fn rate(result: &Measurement) -> String {
    match (result.bytes_per_second, result.flops_per_second) {
        (Some(bytes), _) => format!("{:.1} GB/s", bytes / 1e9),
        (_, Some(flops)) => format!("{:.0} GF/s", flops / 1e9),
        _ => String::new(),
    }
}

/// A shape as a reader of the table wants it.
pub fn in_words(shape: &Shape) -> String {
    let Shape {
        dtype,
        tokens,
        attended,
        kv_heads,
        group,
        head_dim,
        codewords,
        rows,
        cols,
        inputs,
        precision,
    } = shape;
    let numbers = [
        (tokens, "tokens"),
        (attended, "attended"),
        (kv_heads, "heads"),
        (group, "group"),
        (head_dim, "dim"),
        (codewords, "codewords"),
        (rows, "rows"),
        (cols, "cols"),
        (inputs, "inputs"),
    ];
    let mut words: Vec<String> = dtype.iter().chain(precision).map(|&word| word.to_owned()).collect();
    words.extend(
        numbers.into_iter().filter_map(|(number, name)| Some(format!("{name} {}", short((*number)?)))),
    );
    words.join(" ")
}

/// 131072 as 128K.
fn short(number: usize) -> String {
    match number {
        n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{}M", n >> 20),
        n if n >= 1 << 13 && n % (1 << 10) == 0 => format!("{}K", n >> 10),
        n => n.to_string(),
    }
}
