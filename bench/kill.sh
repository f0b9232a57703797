#!/usr/bin/env bash
# Kills runs of bench/kill.toml with SIGKILL at random moments, resumes each until it is done, and compares weights (digests),
# rollouts and metrics (timing columns aside) with those of a run that was not disturbed.
#
#     bench/kill.sh [KILLS] [SEED]        50 kills and seed 1 by default; FERULE names the binary, THREADS how many threads
#
# A run that is done before all kills have fallen is compared, and the next one begins. Exits with 1 at the first difference.
set -euo pipefail
cd "$(dirname "$0")/.."

kills=${1:-50}
RANDOM=${2:-1}
ferule=${FERULE:-target/release/ferule}
threads=${THREADS:-2}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

go() { exec "$ferule" run bench/kill.toml --quiet --runs "$place/runs" --name "$1" --threads "$threads"; }

# Everything that must be equal, as text: the ladder's digests, every step's metrics, every rollout file's hash.
facts() {
    "$ferule" report "$1" --runs "$place/runs" --json | grep -o '"\(stage\|digest\|accuracy\)":[^,]*'
    sed 's/,"step_seconds":[^,}]*//' "$place/runs/$1/metrics.jsonl"
    (cd "$place/runs/$1/rollouts" && find . -name '*.parquet' | sort | xargs sha256sum)
}

began=$(date +%s%N)
(go peace) >/dev/null
took_ms=$((($(date +%s%N) - began) / 1000000))
facts peace >"$place/peace"
echo "undisturbed: $took_ms ms, $(wc -l <"$place/runs/peace/metrics.jsonl") steps"

fallen=0 runs=0
: >"$place/places"
while [ "$fallen" -lt "$kills" ]; do
    runs=$((runs + 1))
    while :; do
        # Up to a sixth of the whole: some hit a process before it has begun to work, some far inside it.
        delay_ms=$((RANDOM * took_ms / 6 / 32768 + 20))
        (go "run-$runs") >/dev/null 2>>"$place/errors" &
        child=$!
        sleep "$((delay_ms / 1000)).$(printf %03d $((delay_ms % 1000)))"
        if [ "$fallen" -ge "$kills" ] || ! kill -KILL "$child" 2>/dev/null; then
            wait "$child"
            break
        fi
        wait "$child" 2>/dev/null || true
        fallen=$((fallen + 1))
        "$ferule" ls --runs "$place/runs" | grep "^run-$runs " | sed 's/.*stages done *//; s/, step.*//' >>"$place/places"
    done
    facts "run-$runs" | diff "$place/peace" - >"$place/difference" || {
        echo "run $runs differs after $fallen kills:"
        head -20 "$place/difference"
        exit 1
    }
done
echo "$fallen kills in $runs runs, each equal to the undisturbed one. The last checkpoint before a kill was of:"
sort "$place/places" | uniq -c
