//! `ferule task NAME`: a task's cases as JSON lines.

use std::path::Path;

use tasks::{Split, registry};
use train::recipe::Recipe;

use super::output::Output;

/// What `ferule task` reads.
#[derive(clap::Args)]
pub struct Arguments {
    /// judgment, idiom_chain or countdown; or a recipe, whose task is then used
    name: String,
    /// train, heldout, heldout_unseen or validation
    #[arg(long, default_value = "train")]
    split: String,
    /// How many cases
    #[arg(long, default_value_t = 10)]
    n: usize,
    /// Seed of the generator
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let task = match arguments.name.ends_with(".toml") {
        true => {
            let recipe = Recipe::read(Path::new(&arguments.name), &[])?;
            recipe.build_task()?
        }
        false => {
            let mut table = toml::Table::new();
            table.insert("name".into(), arguments.name.clone().into());
            registry::build(&table, Path::new("")).map_err(|refusal| refusal.in_key("task"))?
        }
    };
    let mut output = Output::stdout();
    for case in task.cases(Split::parse(&arguments.split)?, arguments.n, arguments.seed)? {
        output.json_line(&case)?;
    }
    output.flush()
}
