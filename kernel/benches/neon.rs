//! `cargo bench -p a2ats-kernel --bench neon`: the suite on this backend alone.

mod suite;

fn main() -> std::process::ExitCode {
    suite::run(&["neon"])
}
