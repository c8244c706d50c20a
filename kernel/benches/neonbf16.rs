//! `cargo bench -p a2ats-kernel --bench neonbf16`: the suite on this backend alone.

mod suite;

fn main() -> std::process::ExitCode {
    suite::run(&["neonbf16"])
}
