//! `cargo bench -p a2ats-kernel --bench avx2`: the suite on this backend alone.

mod suite;

fn main() -> std::process::ExitCode {
    suite::run(&["avx2"])
}
