# Everything that must hold before a change lands.
check:
    .ci/run

# The property tests, longer.
search cases="2000":
    A2ATS_TEST_CASES={{cases}} cargo test -p a2ats-tests

# How far each backend is from the recorded runs.
replay:
    for case in tests/golden/*/; do cargo run --quiet --release -p a2ats-tests --bin replay -- $case; done

# Every kernel on every backend against the machine's memory and arithmetic: a table, and a report to look at.
bench *options="--quick --report ../target/roofline.html":
    cargo bench -p a2ats-kernel --bench roofline -- {{options}}

# Whether the emitted assembly of the kernels has calls, spills or scalar leftovers where it must not.
codegen *options:
    cargo run --release -p a2ats-tests --bin codegen -- {{options}}

# The fuzz targets, for some seconds each.
fuzz seconds="60":
    fuzz/run {{seconds}}

# How far sparse attention is from dense attention by what it reads: docs/estimate.md and docs/estimate.svg.
attention-error:
    cargo run --release -p a2ats-tests --bin attention_error

# Everything that takes a GPU: tests, compute-sanitizer, timings.
gpu-figures:
    cuda-kmeans/take-figures
