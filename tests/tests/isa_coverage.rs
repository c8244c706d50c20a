//! That the instruction sets which a test run is meant for were really there.

use a2ats_kernel::{ISA_VARIABLE, available, by_name, select};
use a2ats_tests::backends::{ALL, on_every_backend};

/// Names of instruction sets, separated by commas, that this run must cover.
const EXPECTED: &str = "A2ATS_EXPECT_ISA";

/// If set, no others may be available: for emulated CPUs that lack instructions the program was built with.
const NO_OTHERS: &str = "A2ATS_EXPECT_ONLY";

fn available_names() -> Vec<&'static str> {
    available().into_iter().map(|kernels| kernels.name()).collect()
}

#[test]
fn every_expected_instruction_set_is_available() {
    println!("available: {}", available_names().join(", "));
    let Ok(expected) = std::env::var(EXPECTED) else { return };
    for name in expected.split(',').map(str::trim) {
        assert!(ALL.contains(&name), "{EXPECTED} names {name:?}, which is no backend; there are {ALL:?}");
        let here = available_names();
        assert!(here.contains(&name), "{EXPECTED} names {name}, which is not available here; {here:?} are");
    }
    if std::env::var_os(NO_OTHERS).is_some() {
        let named = |name: &&str| expected.split(',').any(|other| other.trim() == *name);
        assert!(
            available_names().iter().all(named),
            "only {expected} may be available, but {:?} are",
            available_names()
        );
    }
}

#[test]
fn tests_run_on_everything_available_and_the_portable_backend_is() {
    let (mut seen, mut available) = (Vec::new(), available_names());
    on_every_backend(|kernels| seen.push(kernels.name()));
    assert_eq!(available.last(), Some(&"portable"));
    // Which of two of a width is best depends on the CPU.
    let rank =
        |name: &&str| ["avx512", "avx2", "neon", "portable"].iter().position(|kind| name.starts_with(kind));
    assert!(available.is_sorted_by_key(rank), "{available:?}");
    seen.sort_unstable();
    available.sort_unstable();
    assert_eq!(seen, available);
}

#[test]
fn available_backends_are_found_by_their_names() {
    for kernels in available() {
        assert_eq!(by_name(kernels.name()).unwrap().name(), kernels.name());
        assert_eq!(format!("{kernels:?}"), kernels.name());
    }
}

#[test]
fn other_names_are_errors_that_say_what_would_work() {
    let unavailable = ALL.into_iter().filter(|name| !available_names().contains(name));
    for name in unavailable.chain(["", "AVX2", "avx2 ", "sse2", "portable,avx2"]) {
        let message = by_name(name).unwrap_err().to_string();
        assert!(message.contains(&format!("'{name}'")), "{message}");
        assert!(message.ends_with(&format!("available here: {}", available_names().join(", "))), "{message}");
    }
}

#[test]
fn the_best_backend_is_chosen_unless_the_variable_names_one() {
    let chosen = select().map(|kernels| kernels.name()).map_err(|error| error.to_string());
    match std::env::var(ISA_VARIABLE) {
        Ok(name) => assert_eq!(
            chosen,
            by_name(&name).map(|kernels| kernels.name()).map_err(|error| error.to_string())
        ),
        Err(_) => assert_eq!(chosen.as_deref(), Ok(available_names()[0])),
    }
}
