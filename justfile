# Everything that must hold before a change lands.
check:
    .ci/run

# The property tests, longer.
search cases="2000":
    A2ATS_TEST_CASES={{cases}} cargo test -p a2ats-tests

# How far each backend is from the recorded runs.
replay:
    for case in tests/golden/*/; do cargo run --quiet --release -p a2ats-tests --bin replay -- $case; done
