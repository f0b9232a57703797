#!/usr/bin/env bash
# Damaged and hostile input through the binary: every class of crates/ferule/tests/attack, each tried thousands of times, two classes at
# once. The seed is printed; a class that fails names its try, which the same seed repeats.
#
#   bench/attack.sh [TRIES [SEED]]
#
# With 2,000 tries, the default, it takes about five minutes on two cores. A line for each class says how many tries were refused, and how long the
# slowest command took.
set -euo pipefail
cd "$(dirname "$0")/.."
export FERULE_ATTACKS=${1:-2000} FERULE_ATTACK_SEED=${2:-1}
cargo test --release --workspace --locked --test attack -- --nocapture --test-threads 2 2>&1 | grep -E '^attack |panicked at|^test result'
