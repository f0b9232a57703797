#!/bin/sh
# The claims about the pipeline: each arm over three seeds and 2,000 held-out cases, then every comparison, paired by case and pooled.
#
#   cargo build --release && bench/claims.sh [RUNS]
#
# It resumes where it stopped: a run that is complete is not run again. FERULE names another binary, SEEDS other seeds,
# THREADS the threads to compute on. The results are in bench/RESULTS.md, how the keys were chosen in bench/LOG.md.
set -eu
cd "$(dirname "$0")/.."
ferule=${FERULE:-target/release/ferule}
runs=${1:-runs/claims}
seeds=${SEEDS:-1 2 3}
threads=${THREADS:+--threads $THREADS}

# train RECIPE FAMILY SEED [MORE]…
train() {
    recipe=$1 name=$2-$3 seed=$3
    shift 3
    # shellcheck disable=SC2086  # the threads are two words or none
    "$ferule" run "$recipe" --runs "$runs" --name "$name" --set "seed=$seed" --set eval.cases=2000 $threads "$@" >/dev/null
}

# How often one of 64 samples of the pretrained base is right, beside one sample of it: pass64 TASK SEED
pass64() {
    kept=$runs/$1-$2.pass64.json
    [ -s "$kept" ] || {
        "$ferule" eval --model "$runs/$1-$2/models/pretrain-policy" --task "$1" --seed "$2" --dtype bf16 \
            --n 250 --k 64 --max-new-tokens 48 --json >"$kept.part"
        mv "$kept.part" "$kept"
    }
    echo "$1-$2, base: $(cat "$kept")"
}

# compare FAMILY FIRST SECOND
compare() {
    named=
    for seed in $seeds; do named="$named --run $1-$seed"; done
    # shellcheck disable=SC2086  # one --run a seed
    "$ferule" compare "$2" "$3" --runs "$runs" $named
    echo
}

for seed in $seeds; do
    train bench/claims/teacher.toml teacher "$seed"
    made=$(cd "$runs/teacher-$seed/models" && pwd)
    train bench/claims/student.toml student "$seed" \
        --set "models.teacher-sft.path=$made/sft" --set "models.teacher-grpo.path=$made/grpo"
    train recipes/countdown.toml countdown "$seed"
    train recipes/idiom_chain.toml idiom_chain "$seed"
done

echo "(a) GRPO adds to the fine-tuned model it starts from"
compare teacher sft grpo
echo "(b) at equal answers read, GRPO against fine-tuning on bare answers; against ten times the demonstrations; without answers"
compare teacher bare grpo
compare teacher sft-100 grpo
compare teacher sft-300 grpo
compare teacher sft grpo-free
echo "(c) from the pretrained base, no label and no answer read"
for task in countdown idiom_chain; do
    compare "$task" pretrain-policy grpo-policy
    for seed in $seeds; do pass64 "$task" "$seed"; done
done
# The taught teacher has read 1,000 answers: rows of its students, which take its weights from a folder, do not count them again.
echo "(d) transfer from the raw teacher < GRPO on the student < transfer from the taught teacher"
compare student transfer-from-sft student-grpo
compare student student-grpo transfer-from-grpo
echo "(e) hard against soft labels on the same completions"
compare student hard-from-grpo soft-from-grpo
echo "(f) dialogue against GRPO on the student; its FLOPs count sampling and the teacher"
compare student student-grpo student-dialogue
