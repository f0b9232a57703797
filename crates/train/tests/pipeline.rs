//! A whole pipeline on a toy task in seconds: it learns, and a run that is interrupted and resumed ends in the same bits.

mod toy;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use kernels::{Isa, Queue};
use store::{Runs, StageRow};
use toy::{SecondLetter, Stopper, comparable, without_clock};
use train::TrainError;
use train::pipeline::{Extent, run, run_part};
use train::recipe::Recipe;

const RECIPE: &str = r#"
seed = 3
dtype = "f32"
task = { name = "second_letter" }
eval = { cases = 100, max_new_tokens = 4 }

[models.teacher]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 64
initializer_range = 0.15
tie_word_embeddings = true

[models.student]
hidden_size = 24
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 64
initializer_range = 0.15

[models.twin]
from = "sft-teacher"

[[stages]]
kind = "tokenizer"
vocab_size = 263
documents = 50
prompts = 50

[[stages]]
kind = "pretrain"
model = "teacher"
tokens = 3000
tokens_per_step = 300
context = 64
checkpoint_every_steps = 3

[[stages]]
kind = "sft"
model = "teacher"
demonstrations = 20
epochs = 20
demonstrations_per_step = 10
learning_rate = 5e-3
warmup_steps = 3
checkpoint_every_steps = 3

[[stages]]
kind = "grpo"
model = "teacher"
steps = 50
prompts_per_step = 16
completions_per_prompt = 8
max_new_tokens = 4
learning_rate = 5e-3
checkpoint_every_steps = 7
validate_every_steps = 25
validation_cases = 40

[[stages]]
kind = "sample"
model = "teacher"
cases = 300
max_new_tokens = 4

[[stages]]
kind = "distill"
model = "student"
teacher = "teacher"
data = "sample-teacher"
soft_weight = 1.0
hard_weight = 0.5
learning_rate = 5e-3
epochs = 12
checkpoint_every_steps = 4

[[stages]]
kind = "dialogue"
model = "student"
teacher = "teacher"
steps = 6
max_new_tokens = 4
lora_rank = 4
validate_every_steps = 2
validation_cases = 20
checkpoint_every_steps = 2

# With a learning rate of 0 nothing changes. The copy must have the weights of SFT although the teacher was trained further since.
[[stages]]
kind = "dialogue"
model = "twin"
teacher = "teacher"
steps = 2
max_new_tokens = 4
learning_rate = 0.0

[[stages]]
kind = "grpo"
name = "game"
model = "twin"
turns = 2
steps = 12
prompts_per_step = 16
max_new_tokens = 4
learning_rate = 5e-3
checkpoint_every_steps = 5
validate_every_steps = 4
validation_cases = 20

[[stages]]
kind = "eval"
model = "twin"
cases = 100
samples = 8
"#;

fn recipe(folder: &Path) -> Recipe {
    let path = folder.join("toy.toml");
    std::fs::write(&path, RECIPE).expect("a writable folder");
    Recipe::read(&path, &[]).expect("a valid recipe")
}

fn go(folder: &Path, threads: usize, stop_at: Option<usize>) -> (Result<Vec<StageRow>, TrainError>, usize) {
    let stop = AtomicBool::new(false);
    let mut observer = Stopper { steps: 0, stop_at, stop: &stop };
    let queue = Queue::cpu(threads, Isa::available()[0]);
    let runs = Runs::open(folder.join("runs"));
    let finished = run::<f32>(&queue, &recipe(folder), &SecondLetter, &runs, &mut observer, &stop);
    (finished.map(|finished| finished.rows), observer.steps)
}

fn go_part(folder: &Path, extent: &Extent) -> Result<Vec<StageRow>, TrainError> {
    let stop = AtomicBool::new(false);
    let mut observer = Stopper { steps: 0, stop_at: None, stop: &stop };
    let queue = Queue::cpu(2, Isa::available()[0]);
    let runs = Runs::open(folder.join("runs"));
    let finished = run_part::<f32>(&queue, &recipe(folder), &SecondLetter, &runs, extent, &mut observer, &stop);
    finished.map(|finished| finished.rows)
}

/// The baselines without the clock.
fn baselines(folder: &Path) -> Vec<store::BaselineRow> {
    let rows = Runs::open(folder.join("runs")).view("toy").expect("a run").ledger().baselines().expect("a ledger");
    rows.into_iter().map(|row| store::BaselineRow { seconds: 0.0, ..row }).collect()
}

fn metrics(folder: &Path) -> Vec<store::StepMetrics> {
    let view = Runs::open(folder.join("runs")).view("toy").expect("a run");
    view.metrics().expect("metrics").into_iter().map(without_clock).collect()
}

fn notices(folder: &Path) -> Vec<store::Notice> {
    Runs::open(folder.join("runs")).view("toy").expect("a run").ledger().notices().expect("a ledger")
}

#[test]
fn reward_rises_and_an_interrupted_run_ends_in_the_same_bits() {
    let whole = tempfile::tempdir().expect("a folder");
    let (rows, steps) = go(whole.path(), 2, None);
    let rows = rows.expect("the pipeline runs");
    let accuracy =
        |stage: &str| rows.iter().find(|row| row.stage == stage).and_then(|row| row.accuracy).expect("a row");
    let (before, after, student) = (accuracy("sft-teacher"), accuracy("grpo-teacher"), accuracy("dialogue-student"));
    let digest = |stage: &str| rows.iter().find(|row| row.stage == stage).and_then(|row| row.digest.clone());
    assert_eq!(digest("dialogue-twin"), digest("sft-teacher"), "a copy is what the stage made");
    let episodes = |step: usize| metrics(whole.path()).into_iter().filter(|m| m.stage == "game").nth(step);
    let (first, last) = (episodes(0).unwrap().get("reward").unwrap(), episodes(11).unwrap().get("reward").unwrap());
    assert!(last > first, "the reward of episodes went from {first} to {last}");
    let drawn = &rows.iter().find(|row| row.stage == "eval-twin").expect("a row");
    let pass_at_k = drawn.extra["evaluation"]["pass_at_k"].as_f64().expect("samples were drawn");
    assert_eq!((drawn.n, drawn.rollouts, &drawn.digest), (100, 800, &None));
    assert!(pass_at_k > drawn.accuracy.expect("measured") + 0.1, "one of eight is right in {pass_at_k}");
    assert!(after > before + 0.2, "reinforcement learning moved accuracy from {before} to {after}");
    assert!(student > 0.5, "the student reached {student}");
    let reward = |step: usize| metrics(whole.path()).into_iter().filter(|m| m.stage == "grpo-teacher").nth(step);
    let (first, last) = (reward(0).unwrap().get("reward").unwrap(), reward(49).unwrap().get("reward").unwrap());
    assert!(last > first, "reward went from {first} to {last}");

    let broken = tempfile::tempdir().expect("a folder");
    let mut stops = 0;
    let rows_broken = loop {
        // Stops everywhere: inside every stage, and between them; with other numbers of threads.
        match go(broken.path(), 1 + stops % 3, Some(1 + (stops * 7) % 11)) {
            (Ok(rows), _) => break rows,
            (Err(TrainError::Interrupted { .. }), _) => stops += 1,
            (Err(error), _) => panic!("{error}"),
        }
    };
    assert!(stops > 5 && steps > 80, "{stops} stops in {steps} steps");
    assert_eq!(comparable(&rows), comparable(&rows_broken));
    assert_eq!(metrics(whole.path()), metrics(broken.path()));
    assert_eq!(baselines(whole.path()), baselines(broken.path()));
    assert_eq!(notices(whole.path()), notices(broken.path()));
    assert_eq!(baselines(whole.path()).last().expect("three").name, "base model, few-shot");
    let calibration = &rows.last().expect("a row").extra["calibration"];
    assert!(calibration["ece"].as_f64().is_some_and(|ece| ece < 1.0), "{calibration}");
}

#[test]
fn parts_of_a_pipeline_make_the_whole_and_a_repeated_part_ends_in_the_same_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let only = |names: &[&str]| Extent { only: names.iter().map(|name| name.to_string()).collect(), from: None };
    let from = |name: &str| Extent { from: Some(name.into()), only: Vec::new() };
    let refused = |extent: &Extent, message: &str| {
        let error = go_part(folder.path(), extent).expect_err("it cannot be done").to_string();
        assert!(error.contains(message), "{error}");
    };
    refused(&only(&["sft-teacher"]), "\"tokenizer\" comes before \"sft-teacher\" and is not done");
    refused(&from("sft-teacher"), "no run at");
    assert!(!folder.path().join("runs").exists(), "nothing was begun");

    let begun = go_part(folder.path(), &only(&["tokenizer", "pretrain-teacher"])).expect("the first two");
    assert_eq!(begun.len(), 2);
    refused(&only(&["grpo-teacher"]), "\"sft-teacher\" comes before \"grpo-teacher\" and is not done");
    refused(&from("distill-student"), "holds no end of stage \"sample-teacher\"");
    let whole = go_part(folder.path(), &Extent::default()).expect("the rest");
    assert_eq!(whole.len(), 10);
    assert_eq!(go_part(folder.path(), &only(&["tokenizer"])).expect("done already").len(), 10);

    let measured = metrics(folder.path());
    let one = Extent { from: Some("sample-teacher".into()), ..only(&["sample-teacher"]) };
    assert_eq!(go_part(folder.path(), &one).expect("one stage again").len(), 5);
    let again = go_part(folder.path(), &from("distill-student")).expect("the rest again");
    assert_eq!(comparable(&again), comparable(&whole));
    assert_eq!(metrics(folder.path()), measured);
}
