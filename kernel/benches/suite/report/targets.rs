//! What the kernels are built to reach.

use crate::suite::results::{Machine, Measurement};

/// The backends that targets are set for, in the order of their columns below.
const BACKENDS: [&str; 3] = ["avx512bf16", "avx512", "avx2"];

/// The thread count that a target is for.
#[derive(Debug, Clone, Copy)]
enum Threads {
    One,
    All,
}

/// Shares of the roofline.
const RATIOS: [(&str, Threads, [f64; 3]); 7] = [
    ("dense_decode", Threads::One, [0.85, 0.75, 0.60]),
    ("dense_decode", Threads::All, [0.90, 0.85, 0.75]),
    ("selective", Threads::All, [0.80, 0.75, 0.70]),
    ("codeword_scores", Threads::All, [0.90, 0.85, 0.75]),
    ("matvec", Threads::All, [0.90, 0.90, 0.90]),
    ("matmul", Threads::All, [0.75, 0.75, 0.70]),
    ("prefill_attention", Threads::All, [0.55, 0.50, 0.50]),
];

/// Microseconds per kv head of `retrieve`, which no roofline bounds.
const RETRIEVE_MICROSECONDS: [f64; 3] = [10.0, 12.0, 20.0];

/// The share of the roofline that a measurement should reach at least.
pub fn ratio(machine: &Machine, result: &Measurement) -> Option<f64> {
    let column = column(result)?;
    let (.., targets) = RATIOS.iter().find(|(operation, threads, _)| {
        *operation == result.operation
            && result.threads
                == match threads {
                    Threads::One => 1,
                    Threads::All => machine.threads,
                }
    })?;
    targets.get(column).copied()
}

/// The microseconds per kv head that a measurement of `retrieve` should take at most.
pub fn microseconds(result: &Measurement) -> Option<f64> {
    RETRIEVE_MICROSECONDS.get(column(result)?).copied().filter(|_| is_retrieve(result))
}

/// Microseconds that a measurement took per kv head.
pub fn microseconds_per_head(result: &Measurement) -> f64 {
    result.seconds * 1e6 / result.shape.kv_heads.unwrap_or(1).max(1) as f64
}

/// Whether a measurement is held against [`microseconds`] and not against a roofline.
pub fn is_retrieve(result: &Measurement) -> bool {
    result.operation == "retrieve"
}

/// Whether a measurement meets its target, if there is one.
pub fn met(machine: &Machine, result: &Measurement) -> Option<bool> {
    if let Some(most) = microseconds(result) {
        return Some(microseconds_per_head(result) <= most);
    }
    Some(result.roofline_ratio? >= ratio(machine, result)?)
}

/// Operations in the order of the table.
pub fn operations() -> impl Iterator<Item = &'static str> {
    RATIOS.iter().map(|(operation, ..)| *operation)
}

fn column(result: &Measurement) -> Option<usize> {
    BACKENDS.iter().position(|backend| *backend == result.backend)
}
