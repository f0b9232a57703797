#!/usr/bin/env bash
# The wheel on real weights: three draws each of medical questions on MiniMind2-Small and banking questions on SmolLM2-135M.
#
#   bench/wheel.sh MINIMIND_FOLDER medical/queries.jsonl SMOLLM_FOLDER banking/test.csv
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --bin ferule
for draw in 1 2 3; do
    python3 bench/wheel.py target/release/ferule "$1" "$2" --draw "$draw"
    python3 bench/wheel.py target/release/ferule "$3" "$4" --draw "$draw"
done
