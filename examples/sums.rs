//! What the examples share: sums of two numbers up to 50, a recipe that fine-tunes a tiny model on 300 of them, and a
//! function that runs a recipe.

#![allow(dead_code, reason = "every example uses its own part")]

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use kernels::{Isa, Queue, bf16};
use store::{Runs, StageRow};
use train::recipe::Recipe;
use train::trainer::{Observer, StepView};
use train::{check, pipeline};

const RECIPE: &str = r#"
seed = 1
dtype = "bf16"
eval = { cases = 200, max_new_tokens = 40, baseline_demonstrations = 300 }

[task]
name = "jsonl"
path = "sums.jsonl"
rules = [{ rule = "format", weight = 0.1 }, { rule = "number", weight = 0.9 }]

[models.student]
hidden_size = 64
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 128

[[stages]]
kind = "tokenizer"
vocab_size = 266

[[stages]]
kind = "sft"
model = "student"
demonstrations = 300
epochs = 30
demonstrations_per_step = 30
learning_rate = 3e-3
schedule = "constant"
"#;

/// Writes the cases and the recipe into a folder, and reads the recipe.
pub fn recipe(folder: &Path) -> Result<Recipe, Box<dyn Error>> {
    let mut lines = String::new();
    for (a, b) in (1..=50).flat_map(|a| (1..=50).map(move |b| (a, b))) {
        let (ones, tens) = (a % 10 + b % 10, a + b - a % 10 - b % 10);
        let reasoning = format!("{} + {} = {ones}, {} + {} = {tens}", a % 10, b % 10, a - a % 10, b - b % 10);
        let demonstration = format!("<think>{reasoning}</think><answer>{}</answer>", a + b);
        let answer = (a + b).to_string();
        let case =
            serde_json::json!({ "prompt": format!("{a} + {b} ="), "answer": answer, "demonstration": demonstration });
        writeln!(lines, "{case}")?;
    }
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("sums.jsonl"), lines)?;
    std::fs::write(folder.join("sums.toml"), RECIPE)?;
    Ok(Recipe::read(&folder.join("sums.toml"), &[])?)
}

/// Runs or resumes a recipe in the folder `runs`, and returns the rows of its ladder.
pub fn run(recipe: &Recipe, runs: &Path) -> Result<Vec<StageRow>, Box<dyn Error>> {
    let task = recipe.build_task()?;
    // Refuses a recipe that cannot work, before anything is written.
    check::check(recipe, task.as_ref())?;
    let queue = Queue::cpu(std::thread::available_parallelism()?.get(), Isa::choose()?);
    // If another thread sets this flag, the run stops at the next step and can be resumed.
    let stop = AtomicBool::new(false);
    Ok(pipeline::run::<bf16>(&queue, recipe, task.as_ref(), &Runs::open(runs), &mut Screen, &stop)?.rows)
}

/// Writes what happens to stderr.
struct Screen;

impl Observer for Screen {
    fn stage(&mut self, name: &str, from_step: u64) {
        eprintln!("{name} from step {from_step}");
    }
    fn step(&mut self, _: &StepView) {}
    fn notice(&mut self, text: &str) {
        eprintln!("{text}");
    }
    fn finished(&mut self, row: &StageRow) {
        eprintln!("{} is done: accuracy {:?}", row.stage, row.accuracy);
    }
}
