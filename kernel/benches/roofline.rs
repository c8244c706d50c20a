//! `cargo bench -p a2ats-kernel --bench roofline`: the suite on every backend that this CPU has.

mod suite;

fn main() -> std::process::ExitCode {
    suite::run(&["avx512bf16", "avx512", "avx2", "neonbf16", "neon", "portable"])
}
