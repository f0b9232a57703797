//! Train a policy for countdown from Rust: read a recipe, change its keys, run it, look at the ladder.
//!
//!     cargo run --release -p train --example countdown
//!
//! `SMALL` reduces the recipe's sizes so that it ends in seconds; with so little training the policy solves almost nothing.
//! To train at the recipe's own sizes, read it without `SMALL`.
//!
//! Read next: `sums.rs`, where a recipe is run, then `stage.rs`, which adds a new stage.

mod sums;

use std::error::Error;
use std::path::Path;

use store::StageRow;
use train::recipe::Recipe;

/// Changes of keys, written as after `--set` on the command line.
const SMALL: [&str; 8] = [
    "eval.cases=50",
    "models.policy.hidden_size=48",
    "models.policy.num_hidden_layers=2",
    "stages.pretrain-policy.tokens=400_000",
    "stages.grpo-policy.steps=6",
    "stages.grpo-policy.prompts_per_step=8",
    "stages.grpo-policy.completions_per_prompt=8",
    "stages.grpo-policy.validate_every_steps=0",
];

/// Trains or resumes the run `countdown` in the folder `runs`, and returns the rows of its ladder.
pub fn train(runs: &Path) -> Result<Vec<StageRow>, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/countdown.toml");
    sums::run(&Recipe::read(&path, &SMALL.map(String::from))?, runs)
}

#[allow(dead_code, reason = "the tests call `train`")]
fn main() -> Result<(), Box<dyn Error>> {
    for row in train(Path::new("runs"))? {
        let accuracy = row.accuracy.map_or("not measured".into(), |accuracy| format!("{:.1} %", 100.0 * accuracy));
        println!("{:<18} {accuracy:>12} {:>6} rollouts, {} answers", row.stage, row.rollouts, row.answers_read);
    }
    Ok(())
}
