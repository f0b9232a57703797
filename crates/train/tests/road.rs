//! The whole road on a toy task in seconds: it learns, and what is interrupted goes on to the same bits.
//!
//! The task: the prompt is two letters, the answer the second one. Demonstrations teach the format with little practice;
//! reinforcement learning has to find the rule.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kernels::{Isa, Queue};
use store::{Runs, StageRow};
use train::TrainError;
use train::recipe::Recipe;
use train::rewards::{Evidence, Reads, Rule, RuleSet, Verdict};
use train::rng::Key;
use train::road::walk;
use train::tasks::{Case, Completion, Grade, Prompt, Split, Task, TaskError};
use train::walk::{Observer, StepView};

const LETTERS: &[u8] = b"abcdefgh";

struct SecondLetter;

struct IsSecond;

impl Rule for IsSecond {
    fn name(&self) -> &str {
        "is_second"
    }
    fn reads(&self) -> Reads {
        Reads::Prompt
    }
    fn judge(&self, evidence: &Evidence) -> Verdict {
        let right = evidence.prompt.chars().nth(1).map(|letter| format!("={letter}"));
        let passed = evidence.completion.finished && Some(evidence.completion.text) == right.as_deref();
        Verdict::pass(passed, evidence.completion.text)
    }
}

impl Task for SecondLetter {
    fn name(&self) -> &str {
        "second_letter"
    }
    fn cases(&self, split: Split, n: usize, seed: u64) -> Result<Vec<Case>, TaskError> {
        let mut draws = Key::new(seed).word(split.name()).stream();
        let mut case = |index: usize| {
            let pair = [*draws.pick(LETTERS), *draws.pick(LETTERS)].map(char::from);
            let text: String = pair.iter().collect();
            let id = format!("{}-{index}", split.name());
            Case { id, prompt: Prompt::Text(text), answer: Some(pair[1].to_string()), record: serde_json::Value::Null }
        };
        Ok((0..n).map(&mut case).collect())
    }
    fn demonstration(&self, case: &Case) -> Option<String> {
        Some(format!("={}", case.answer.as_ref()?))
    }
    fn bare_answer(&self, case: &Case) -> Option<String> {
        self.demonstration(case)
    }
    fn corpus(&self, index: u64, seed: u64) -> Option<String> {
        let mut draws = Key::new(seed).word("corpus").number(index).stream();
        Some((0..12).map(|_| char::from(*draws.pick(LETTERS))).chain(['=']).collect())
    }
    fn grade(&self, case: &Case, completion: &Completion) -> Grade {
        let correct = completion.finished && Some(completion.text) == self.demonstration(case).as_deref();
        Grade { correct, parts: BTreeMap::new(), reason: String::new(), answer_key: Some(completion.text.to_string()) }
    }
    fn rules(&self, _: &str) -> Result<RuleSet, TaskError> {
        Ok(RuleSet::new().with(Arc::new(IsSecond), 1.0))
    }
}

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
checkpoint_every_steps = 2

# Without a rate nothing changes: the copy must still be what SFT made, whatever became of the teacher since.
[[stages]]
kind = "dialogue"
model = "twin"
teacher = "teacher"
steps = 2
max_new_tokens = 4
learning_rate = 0.0
"#;

/// Counts steps, and asks to stop at a chosen one.
struct Stopper<'a> {
    steps: usize,
    stop_at: Option<usize>,
    stop: &'a AtomicBool,
}

impl Observer for Stopper<'_> {
    fn stage(&mut self, _: &str, _: &str, _: u64) {}
    fn step(&mut self, _: &StepView) {
        self.steps += 1;
        if self.stop_at == Some(self.steps) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
    fn notice(&mut self, _: &str) {}
    fn finished(&mut self, _: &StageRow) {}
}

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
    let finished = walk::<f32>(&queue, &recipe(folder), &SecondLetter, &runs, &mut observer, &stop);
    (finished.map(|finished| finished.rows), observer.steps)
}

/// What must be equal between two runs: everything but the clock.
fn comparable(rows: &[StageRow]) -> Vec<serde_json::Value> {
    let of = |row: &StageRow| {
        let mut row = serde_json::to_value(row).expect("a row is JSON");
        for timing in ["seconds", "cost"] {
            row.as_object_mut().expect("an object").remove(timing);
        }
        row
    };
    rows.iter().map(of).collect()
}

fn metrics(folder: &Path) -> Vec<store::StepMetrics> {
    let view = Runs::open(folder.join("runs")).view("toy").expect("a run");
    view.metrics().expect("metrics").into_iter().map(store::StepMetrics::without_timings).collect()
}

#[test]
fn reward_rises_and_an_interrupted_run_ends_in_the_same_bits() {
    let whole = tempfile::tempdir().expect("a folder");
    let (rows, steps) = go(whole.path(), 2, None);
    let rows = rows.expect("the road is walked");
    let accuracy =
        |stage: &str| rows.iter().find(|row| row.stage == stage).and_then(|row| row.accuracy).expect("a row");
    let (before, after, student) = (accuracy("sft-teacher"), accuracy("grpo-teacher"), accuracy("dialogue-student"));
    let digest = |stage: &str| rows.iter().find(|row| row.stage == stage).and_then(|row| row.digest.clone());
    assert_eq!(digest("dialogue-twin"), digest("sft-teacher"), "a copy is what the stage made");
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
}
