//! Numbers and shapes as words.

use crate::suite::results::Shape;

/// What stands for a number that is not there.
pub const NONE: &str = "–";

/// Three significant digits, thousands set apart.
pub fn significant(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let rounded = format!("{value:.2e}");
    let exponent =
        rounded.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok()).unwrap_or(0);
    match exponent {
        -4..=2 => format!("{value:.*}", usize::try_from(2 - exponent).unwrap_or(0)),
        3..=14 => grouped(&format!("{:.0}", rounded.parse::<f64>().unwrap_or(value))),
        _ => rounded,
    }
}

/// A digit times a power of ten, as axes have it: 0.01, 0.5, 1, 20, …
pub fn power_of_ten(digit: f64, exponent: i32) -> String {
    match exponent {
        -6..=-1 => format!("{:.*}", exponent.unsigned_abs() as usize, digit * 10_f64.powi(exponent)),
        0..=5 => grouped(&format!("{:.0}", digit * 10_f64.powi(exponent))),
        _ => format!("{digit}e{exponent}"),
    }
}

/// [`significant`], or a dash.
pub fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), significant)
}

/// A duration in the unit that suits it.
pub fn duration(seconds: f64) -> String {
    let (unit, scale) = match seconds.abs() {
        s if s < 0.999_5e-6 => ("ns", 1e9),
        s if s < 0.999_5e-3 => ("µs", 1e6),
        s if s < 0.999_5 => ("ms", 1e3),
        _ => ("s", 1.0),
    };
    format!("{}\u{a0}{unit}", significant(seconds * scale))
}

/// A length of context: 4096 is 4K, 1048576 is 1M.
pub fn tokens(count: usize) -> String {
    match count {
        n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{}M", n >> 20),
        n if n >= 1 << 10 && n % (1 << 10) == 0 => format!("{}K", n >> 10),
        n => n.to_string(),
    }
}

/// So many of something.
pub fn count(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// What an operation ran on, in words.
pub fn words(shape: &Shape) -> String {
    let weights = match (shape.rows, shape.cols) {
        (Some(rows), Some(cols)) => Some(format!("{rows} × {cols}")),
        (Some(rows), None) => Some(count(rows, "row")),
        (None, cols) => cols.map(|cols| count(cols, "column")),
    };
    let parts = [
        shape.dtype.map(str::to_owned),
        weights,
        shape.inputs.map(|inputs| count(inputs, "input")),
        shape.tokens.map(|length| format!("{} tokens", tokens(length))),
        shape.attended.map(|rows| format!("{rows} attended")),
        shape.kv_heads.map(|heads| count(heads, "kv head")),
        shape.group.map(|group| format!("group {group}")),
        shape.head_dim.map(|dim| format!("head_dim {dim}")),
        shape.codewords.map(|codes| count(codes, "codeword")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What there is to say, set apart by dots.
pub fn dotted(words: &[&str]) -> String {
    let there: Vec<&str> = words.iter().copied().filter(|words| !words.is_empty()).collect();
    there.join(" · ")
}

/// The name of an operation as words.
pub fn operation(name: &str) -> String {
    name.replace('_', " ")
}

/// Text that HTML and SVG take as text.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML has no way to write these.
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Digits in threes.
fn grouped(digits: &str) -> String {
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        let left = digits.len() - i;
        if i > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}
