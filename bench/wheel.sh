#!/usr/bin/env bash
# The wheel on real weights, three draws each: medical questions and charges of court cases on MiniMind2-Small, banking questions on SmolLM2-135M.
#
#   bench/wheel.sh MINIMIND_FOLDER medical/queries.jsonl judgments.jsonl SMOLLM banking/train.csv
#
# An hour and a half on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --bin ferule
ferule=target/release/ferule
found=$(mktemp)
trap 'rm -f "$found"' EXIT
"$ferule" data extract judgment "$3" "$found" --force
for draw in 1 2 3; do
    python3 bench/wheel.py "$ferule" "$1" "$2" --draw "$draw" --questions 150 300 600 900
    python3 bench/wheel.py "$ferule" "$1" "$found" --draw "$draw" --questions 200 300 350 350 --characters 120
    python3 bench/wheel.py "$ferule" "$4" "$5" --draw "$draw" --questions 300 400 500 600 --epochs 3
done
