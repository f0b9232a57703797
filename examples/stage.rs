//! Add a stage: read a recipe, append a stage that is not part of Ferule, and run all of it.
//!
//!     cargo run --release -p train --example stage
//!
//! Read next: `imitate.rs`, the stage.

mod imitate;
mod sums;

use std::error::Error;
use std::path::Path;

use imitate::Imitate;
use store::StageRow;
use train::recipe::Optimisation;
use train::recipe::resolved::{Recipe, RecipeStage};

/// Fine-tunes on demonstrations, runs the new stage, and returns the rows of the ladder.
pub fn train(folder: &Path) -> Result<Vec<StageRow>, Box<dyn Error>> {
    let Recipe { settings, mut stages, .. } = sums::recipe(folder)?;
    let optimisation = Optimisation { learning_rate: 3e-4, ..Optimisation::default() };
    let model = "student".to_string();
    let imitate = Imitate { model, steps: 40, prompts_per_step: 32, samples: 4, max_new_tokens: 40, optimisation };
    stages.push(RecipeStage::new("imitate-student", Box::new(imitate)));
    sums::run(&Recipe::new(settings, stages), &folder.join("runs"))
}

#[allow(dead_code, reason = "the tests call `train`")]
fn main() -> Result<(), Box<dyn Error>> {
    train(Path::new("sums"))?.iter().for_each(|row| println!("{:<16} {:?}", row.stage, row.accuracy));
    Ok(())
}
