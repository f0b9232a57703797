//! `ferule run RECIPE`: walks the whole road, or goes on with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kernels::{Isa, Queue, Real, bf16};
use serde_json::json;
use store::Runs;
use train::recipe::{ModelSource, Recipe, located};
use train::road::{Finished, walk};
use train::tasks::{Task, registry};

use super::ladder;
use super::machine;
use super::model_argument::pulled;
use super::outcome::failure;
use super::output::Output;
use super::progress::{Lines, Terminal};

/// What `ferule run` reads.
#[derive(clap::Args)]
pub struct Arguments {
    /// The recipe, such as recipes/judgment.toml
    recipe: PathBuf,
    /// Folder of all runs
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// The run's name [default: the recipe's]
    #[arg(long)]
    name: Option<String>,
    /// Change a key of the recipe: `seed=3`, `stages.sft-teacher.epochs=4`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Threads to compute on [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// Show the resolved recipe and what it will cost, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Write the finished ladder as JSON to stdout
    #[arg(long)]
    json: bool,
    /// Say nothing while working
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut recipe = Recipe::read(&arguments.recipe, &arguments.set)?;
    if let Some(name) = &arguments.name {
        recipe.name.clone_from(name);
    }
    locate_models(&mut recipe)?;
    let task = registry::build(&recipe.task, &recipe.folder)?;
    if arguments.dry_run {
        return dry_run(&recipe);
    }
    let isa = Isa::choose().map_err(|problem| failure(problem, "unset FERULE_ISA to use the best one"))?;
    let threads = arguments.threads.map_or_else(machine::cores, std::num::NonZeroUsize::get);
    let queue = Queue::cpu(threads, isa);
    let finished = match recipe.dtype.as_str() {
        "f32" => go::<f32>(&queue, &recipe, &*task, &arguments)?,
        _ => go::<bf16>(&queue, &recipe, &*task, &arguments)?,
    };
    let view = Runs::open(&arguments.runs).view(&recipe.name)?;
    let mut output = Output::stdout();
    if arguments.json {
        output.json_line(&crate::report::summary(&view)?)?;
    } else {
        output.text(&ladder::text(&view.ledger().baselines()?, &finished.rows))?;
        output.text(&format!("\n{}\n", finished.folder.display()))?;
        if task.name() == "judgment" {
            output.text(&format!("\n{}\n", train::tasks::judgment::honest::HONEST_WORDS))?;
        }
    }
    output.flush()
}

/// A model may be named as a repository, `path = "Qwen/Qwen3-0.6B"`: then it is the one in the cache.
fn locate_models(recipe: &mut Recipe) -> anyhow::Result<()> {
    for source in recipe.models.values_mut() {
        if let ModelSource::Path { path } = source
            && !located(&recipe.folder, path).exists()
        {
            *path = pulled(path)?;
        }
    }
    Ok(())
}

fn go<T: Real>(queue: &Queue, recipe: &Recipe, task: &dyn Task, arguments: &Arguments) -> anyhow::Result<Finished> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    // A second signal means now: the run's files survive that too.
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nfinishing the step and saving; once more to stop at once");
    })?;
    let runs = Runs::open(&arguments.runs);
    let finished = if Terminal::fits() && !arguments.quiet {
        walk::<T>(queue, recipe, task, &runs, &mut Terminal::new(), &stop)
    } else {
        walk::<T>(queue, recipe, task, &runs, &mut Lines::new(arguments.quiet), &stop)
    };
    Ok(finished?)
}

/// The resolved recipe on stdout, so that it can be kept; what it means on stderr.
fn dry_run(recipe: &Recipe) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    output.text(&recipe.resolved())?;
    output.flush()?;
    for (name, source) in &recipe.models {
        let line = match source {
            ModelSource::Path { path } => json!({ "model": name, "path": path }),
            ModelSource::Stage { from } => json!({ "model": name, "from": from }),
            ModelSource::Random(shape) => {
                json!({ "model": name, "hidden_size": shape.hidden_size, "num_hidden_layers": shape.num_hidden_layers })
            }
        };
        eprintln!("{line}");
    }
    eprintln!("{} stages", recipe.stages.len());
    Ok(())
}
