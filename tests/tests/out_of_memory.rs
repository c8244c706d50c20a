//! Memory that runs out leaves a store as it was. A process whose address space is limited runs the test of this file again.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use a2ats_kernel::{
    Dtype, Error, available,
    decode::{Choice, Sparsity},
    store::Store,
};
use a2ats_tests::inputs::Noise;
use std::process::Command;

/// Set in the process whose address space is limited.
const LIMITED: &str = "A2ATS_LIMITED";

/// What it may have, in KiB.
const LIMIT: usize = 1 << 20;

#[test]
fn memory_that_runs_out_leaves_a_store_as_it_was() {
    if std::env::var_os(LIMITED).is_some() {
        return run_out();
    }
    let program = std::env::current_exe().unwrap();
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("ulimit -v {LIMIT}; exec \"$0\" --exact memory_that_runs_out_leaves_a_store_as_it_was"));
    let ran = shell.arg(program).env(LIMITED, "1").output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

fn run_out() {
    let (kernels, sparsity, head_dim) = (available()[0], Sparsity::default(), 128);
    let layout = sparsity.layout(Dtype::Bf16, head_dim, 64);
    let is_memory = |error: &Error| matches!(error, Error::Memory { .. });
    assert!(is_memory(&Store::new(layout, 4 << 20).unwrap_err()));

    // Rows of some 600 MiB, which do not fit twice.
    let tokens = 1_200_000;
    let mut store = Store::new(layout, tokens + 10).unwrap();
    let mut noise = Noise::new(1);
    let numbers = noise.vector(10_000 * head_dim, 1.0);
    for _ in 0..tokens / 10_000 {
        store.append(&numbers, &numbers, &noise.codes(10_000, 64)).unwrap();
    }
    let before = (store.len(), store.memory(), store.codes());
    let scores = noise.vector(64, 1.0);
    let chosen = |store: &mut Store| {
        let mut choice = Choice::default();
        choice.choose(kernels, store, &sparsity, &scores).unwrap();
        store.positions(choice.runs()).unwrap()
    };
    let positions = chosen(&mut store);
    let entered = store.memory();
    assert!(is_memory(&store.sort(kernels).unwrap_err()));
    assert!(is_memory(&store.sort_some(kernels, 10).unwrap_err()));
    assert!(is_memory(&store.fork().unwrap_err()));
    assert_eq!((store.len(), store.memory(), store.codes()), (before.0, entered, before.2));
    assert!(store.bases().is_empty());
    assert_eq!(chosen(&mut store), positions);
    // And goes on: what it has room for fits, and no more.
    store.append(&numbers[..10 * head_dim], &numbers[..10 * head_dim], &[5; 10]).unwrap();
    assert!(store.append(&numbers[..head_dim], &numbers[..head_dim], &[5]).is_err());
    store.truncate(kernels, 1000).unwrap();
    assert_eq!(store.codes()[..], before_codes(&store));
}

fn before_codes(store: &Store) -> Vec<u16> {
    let mut noise = Noise::new(1);
    noise.vector(10_000 * 128, 1.0);
    noise.codes(10_000, 64)[..store.len()].to_vec()
}
