//! A run without a withdrawn record has the same digests as a run that never had the record. This holds for every kind
//! of stage that would have used it.

mod toy;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use kernels::{Isa, Queue};
use store::{Runs, StageRow};
use tasks::{Split, registry};
use toy::{Stopper, comparable};
use train::TrainError;
use train::pipeline::run;
use train::recipe::Recipe;

const RECIPE: &str = r#"
seed = 3
dtype = "f32"
task = { name = "jsonl", path = "cases.jsonl", rules = [{ rule = "format" }, { rule = "exact" }] }
eval = { cases = 20, max_new_tokens = 8, baseline_demonstrations = 20 }

[models.teacher]
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 64

[models.student]
hidden_size = 24
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 64

[[stages]]
kind = "tokenizer"
vocab_size = 263
prompts = 50

[[stages]]
kind = "sft"
model = "teacher"
demonstrations = 20
epochs = 6
demonstrations_per_step = 10
learning_rate = 1e-2
warmup_steps = 2

[[stages]]
kind = "grpo"
model = "teacher"
steps = 6
prompts_per_step = 8
completions_per_prompt = 4
max_new_tokens = 8
validate_every_steps = 3
validation_cases = 5

[[stages]]
kind = "dpo"
model = "teacher"
path = "pairs.csv"
pairs_per_step = 8
learning_rate = 1e-3

[[stages]]
kind = "kto"
model = "teacher"
path = "thumbs.csv"
thumbs_per_step = 8
learning_rate = 1e-3

[[stages]]
kind = "sample"
model = "teacher"
cases = 40
max_new_tokens = 8

[[stages]]
kind = "distill"
model = "student"
teacher = "teacher"
data = "sample-teacher"
soft_weight = 1.0
epochs = 1
completions_per_step = 10

[[stages]]
kind = "dialogue"
model = "student"
teacher = "teacher"
steps = 6
prompts_per_step = 8
max_new_tokens = 8
"#;

/// Writes the cases and the recipe. A prompt is a pair of letters, and the answer is the second. The prompt `left_out` is left out.
fn prepare(folder: &Path, left_out: Option<&str>) -> Recipe {
    let letters = || "abcdefgh".chars();
    let pairs = letters().flat_map(|a| letters().map(move |b| (format!("{a}{b}"), b)));
    let line = |(prompt, b): (String, char)| {
        format!(
            "{{\"prompt\": \"{prompt}\", \"answer\": \"{b}\", \"demonstration\": \"<think></think><answer>{b}</answer>\"}}\n"
        )
    };
    let kept: Vec<(String, char)> = pairs.filter(|(prompt, _)| left_out != Some(prompt)).collect();
    let lines: String = kept.iter().cloned().map(line).collect();
    std::fs::write(folder.join("cases.jsonl"), lines).expect("a writable folder");
    let rows =
        |row: &dyn Fn(&str, char) -> String| -> String { kept.iter().map(|(prompt, b)| row(prompt, *b)).collect() };
    let pairs = rows(&|prompt, b| format!("{prompt},<answer>{b}</answer>,?\n"));
    std::fs::write(folder.join("pairs.csv"), format!("prompt,chosen,rejected\n{pairs}")).expect("a writable folder");
    let thumbs = rows(&|prompt, b| format!("{prompt},<answer>{b}</answer>,up\n{prompt},?,down\n"));
    std::fs::write(folder.join("thumbs.csv"), format!("prompt,completion,label\n{thumbs}")).expect("a writable folder");
    let path = folder.join("toy.toml");
    std::fs::write(&path, RECIPE).expect("a writable folder");
    Recipe::read(&path, &[]).expect("a valid recipe")
}

fn go(folder: &Path, recipe: &Recipe, stop_at: Option<usize>) -> Result<Vec<StageRow>, TrainError> {
    let stop = AtomicBool::new(false);
    let mut observer = Stopper { steps: 0, stop_at, stop: &stop };
    let task = registry::build(&recipe.settings.task, &recipe.settings.folder).expect("the task");
    let queue = Queue::cpu(2, Isa::available()[0]);
    run::<f32>(&queue, recipe, &*task, &Runs::open(folder.join("runs")), &mut observer, &stop).map(|done| done.rows)
}

fn digests(rows: &[StageRow]) -> Vec<String> {
    rows.iter().filter_map(|row| row.digest.clone()).collect()
}

#[test]
fn a_run_without_a_withdrawn_record_never_saw_it() {
    let [seen, withdrawn, never] = std::array::from_fn(|_| tempfile::tempdir().expect("a folder"));
    let recipe = prepare(seen.path(), None);
    let task = registry::build(&recipe.settings.task, &recipe.settings.folder).expect("the task");
    // One record that every stage would use, and one that accuracies depend on.
    let case = |split| task.cases(split, 1, recipe.settings.seed).expect("cases").remove(0);
    for case in [case(Split::Train), case(Split::Heldout)] {
        let folder = withdrawn.path();
        let _ = std::fs::remove_dir_all(folder.join("runs"));
        Runs::open(folder.join("runs")).withdraw(&case.id, "asked by the person").expect("a writable folder");
        let rows = go(folder, &prepare(folder, None), None).expect("the pipeline runs");
        let touched = |folder: &Path| Runs::open(folder.join("runs")).touched_by(&case.id).expect("readable runs");
        assert!(touched(folder).is_empty());

        let folder = never.path();
        let _ = std::fs::remove_dir_all(folder.join("runs"));
        let rows_never = go(folder, &prepare(folder, Some(&case.prompt_text())), None).expect("the pipeline runs");
        assert_eq!(comparable(&rows), comparable(&rows_never));

        let folder = seen.path();
        let rows_seen = go(folder, &recipe, None).expect("the pipeline runs");
        let found: BTreeSet<String> = touched(folder).into_iter().map(|(_, digest)| digest).collect();
        if case.id == task.cases(Split::Train, 1, recipe.settings.seed).expect("cases")[0].id {
            let digests = digests(&rows_seen);
            assert!(digests.iter().zip(self::digests(&rows)).all(|(seen, without)| *seen != without));
            assert_eq!(found, digests.into_iter().collect(), "every model learned from it or from one that did");
        } else {
            assert_eq!(digests(&rows_seen), digests(&rows), "no weight depends on a held-out case");
            assert!(found.is_empty());
        }
    }
}

#[test]
fn a_run_that_began_before_the_withdrawal_does_not_resume() {
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = prepare(folder.path(), None);
    let task = registry::build(&recipe.settings.task, &recipe.settings.folder).expect("the task");
    let first = task.cases(Split::Train, 1, recipe.settings.seed).expect("cases").remove(0);
    let interrupted = go(folder.path(), &recipe, Some(3)).expect_err("stopped");
    assert!(matches!(interrupted, TrainError::Interrupted { .. }), "{interrupted}");
    Runs::open(folder.path().join("runs")).withdraw(&first.id, "asked by the person").expect("a writable folder");
    let error = go(folder.path(), &recipe, None).expect_err("refused").to_string();
    assert!(error.contains(&first.id) && error.contains("\nhint: a run under a new name"), "{error}");
}
