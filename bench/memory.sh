#!/usr/bin/env bash
# The kernels' tests under tools that see what tests alone do not: accesses outside an allocation (AddressSanitizer,
# valgrind), and orders of events that hardly ever come about (loom).
#
#     bench/memory.sh [loom] [asan] [valgrind]      all of them without an argument
#
# loom      the thread pool's tests with every order of loads, stores and switches, up to a number of forced switches.
# asan      all unit tests with AddressSanitizer. Stable Rust has it behind `-Z`, hence RUSTC_BOOTSTRAP.
# valgrind  the properties, which call every public operation, and the tests of memory and threads. valgrind knows no
#           AVX-512; so the paths of AVX2 and of plain Rust run. It also reports decisions that depend on memory that was
#           never written, which AddressSanitizer does not.
#
# Each builds into a folder of its own below target/. PROPTEST_CASES sets how many random cases each property has; the
# numbers below keep a run short. bench/LOG.md says how long each took.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')

loom() {
    RUSTFLAGS="--cfg loom" cargo test --release -p kernels --lib --locked --target-dir target/loom exploration
}

asan() {
    # Naming the target keeps the sanitizer out of build scripts and macros.
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" PROPTEST_CASES="${PROPTEST_CASES:-16}" \
        cargo test --release -p kernels --lib --locked --target "$host" --target-dir target/asan
}

memcheck() {
    command -v valgrind >/dev/null || { echo "valgrind is not installed (apt-get install valgrind)"; exit 1; }
    local runner
    runner=CARGO_TARGET_$(echo "$host" | tr 'a-z-' 'A-Z_')_RUNNER
    # One test after the other, since valgrind runs one thread at a time.
    env "$runner=valgrind --quiet --error-exitcode=1 --fair-sched=try" PROPTEST_CASES="${PROPTEST_CASES:-2}" \
        cargo test --release -p kernels --lib --locked --target "$host" -- --test-threads 1 \
        properties pool memory scratch mapping buffer
}

[ $# -gt 0 ] || set -- loom asan valgrind
for tool in "$@"; do
    case $tool in
        loom | asan) "$tool" ;;
        valgrind) memcheck ;;
        *) echo "usage: bench/memory.sh [loom] [asan] [valgrind]" && exit 2 ;;
    esac
done
