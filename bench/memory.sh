#!/usr/bin/env bash
# The kernels' tests under tools that see what tests alone do not: reads and writes outside an allocation
# (AddressSanitizer, valgrind), and orders of events that hardly ever come about (loom).
#
#     bench/memory.sh [loom] [asan] [valgrind]      all of them without an argument
#
# * loom: the thread pool's tests with every order of loads, stores and switches, up to a number of forced switches.
# * asan: all unit tests with the compiler's AddressSanitizer. Stable Rust has it behind `-Z`, hence RUSTC_BOOTSTRAP.
# * valgrind: all unit tests under memcheck. It knows no AVX-512, so the paths of AVX2 and of plain Rust run; and it
#   also reports decisions that hang on memory that was never written, which AddressSanitizer does not.
#
# Each builds into a folder of its own below target/. PROPTEST_CASES sets the number of random cases of each property;
# the number below keeps a run short. bench/LOG.md says how long each took.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')

loom() {
    RUSTFLAGS="--cfg loom" cargo test --release -p kernels --lib --locked --target-dir target/loom exploration
}

asan() {
    # A target of its own keeps the sanitizer out of build scripts and macros.
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" PROPTEST_CASES="${PROPTEST_CASES:-16}" \
        cargo test --release -p kernels --lib --locked --target "$host" --target-dir target/asan
}

valgrind_() {
    command -v valgrind >/dev/null || { echo "valgrind is not installed (apt-get install valgrind)"; exit 1; }
    # One test at a time: valgrind runs one thread at a time, whatever the machine.
    PROPTEST_CASES="${PROPTEST_CASES:-2}" CARGO_BUILD_TARGET="$host" \
        CARGO_TARGET_RUNNER="" \
        env "CARGO_TARGET_$(echo "$host" | tr 'a-z-' 'A-Z_')_RUNNER=valgrind --quiet --error-exitcode=1 --fair-sched=try" \
        cargo test --release -p kernels --lib --locked --target-dir target/valgrind -- --test-threads 1
}

for tool in "${@:-loom asan valgrind}"; do
    for one in $tool; do
        case $one in
            loom | asan) "$one" ;;
            valgrind) valgrind_ ;;
            *) echo "usage: bench/memory.sh [loom] [asan] [valgrind]"; exit 2 ;;
        esac
    done
done
