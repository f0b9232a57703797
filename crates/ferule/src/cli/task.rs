//! `ferule task NAME`: a task's cases as JSON lines.

use std::path::Path;

use tasks::{Split, Task, registry};
use train::recipe::Recipe;

use super::output::Output;

/// What `ferule task` reads.
#[derive(clap::Args)]
pub struct Arguments {
    /// judgment, idiom_chain or countdown; a recipe, whose task is then used; or a file of cases
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

/// The task of a recipe, of a file of cases, or of that name.
pub fn named(name: &str) -> anyhow::Result<Box<dyn Task>> {
    if name.ends_with(".toml") {
        return Ok(Recipe::read(Path::new(name), &[])?.build_task()?);
    }
    let mut table = toml::Table::new();
    if Path::new(name).is_file() {
        table.insert("name".into(), "jsonl".into());
        table.insert("path".into(), name.into());
    } else {
        table.insert("name".into(), name.into());
    }
    Ok(registry::build(&table, Path::new("")).map_err(|refusal| refusal.in_key("task"))?)
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let task = named(&arguments.name)?;
    let mut output = Output::stdout();
    for case in task.cases(Split::parse(&arguments.split)?, arguments.n, arguments.seed)? {
        output.json_line(&case)?;
    }
    output.flush()
}
