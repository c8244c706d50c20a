//! `cargo bench -p a2ats-kernel --bench avx512`: the suite on this backend alone.

mod suite;

fn main() -> std::process::ExitCode {
    suite::run(&["avx512"])
}
