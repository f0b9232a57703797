//! A run is reported as "without labels" only if it used no label and no answer. This tests what reinforcement learning meters as answers
//! read.

mod toy;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use kernels::{Isa, Queue};
use store::Runs;
use tasks::Task;
use tasks::countdown::Countdown;
use toy::{SecondLetter, Stopper};
use train::pipeline::run;
use train::recipe::Recipe;

/// The labels and answers that a short GRPO stage meters. It starts from random weights and is validated on 7 cases.
fn labels_and_answers(folder: &Path, task: &dyn Task) -> (u64, u64) {
    let text = format!(
        r#"
dtype = "f32"
task = {{ name = "{}" }}
eval = {{ cases = 3, max_new_tokens = 4, baseline_demonstrations = 0 }}
[models.policy]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 64
[[stages]]
kind = "tokenizer"
vocab_size = 263
documents = 20
prompts = 20
[[stages]]
kind = "grpo"
model = "policy"
rules = "answer_free"
steps = 2
cases = 5
prompts_per_step = 2
completions_per_prompt = 2
max_new_tokens = 4
validate_every_steps = 1
validation_cases = 7
"#,
        task.name()
    );
    let path = folder.join(format!("{}.toml", task.name()));
    std::fs::write(&path, text).expect("a writable folder");
    let recipe = Recipe::read(&path, &[]).expect("a valid recipe");
    let (queue, stop) = (Queue::cpu(1, Isa::available()[0]), AtomicBool::new(false));
    let mut observer = Stopper { steps: 0, stop_at: None, stop: &stop };
    let runs = Runs::open(folder.join("runs"));
    let rows = run::<f32>(&queue, &recipe, task, &runs, &mut observer, &stop).expect("the pipeline runs").rows;
    let row = rows.last().expect("a row");
    (row.labels, row.answers_read)
}

#[test]
fn cases_without_an_answer_cost_none_and_validation_on_answers_costs_them() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(labels_and_answers(folder.path(), &Countdown::default()), (0, 0));
    assert_eq!(labels_and_answers(folder.path(), &SecondLetter), (0, 7));
}
