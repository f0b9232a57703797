//! `ferule run RECIPE`: runs the whole pipeline, or resumes it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kernels::{Isa, Queue, Real, bf16};
use store::Runs;
use tasks::Task;
use tasks::paths::located;
use train::TrainError;
use train::check::check;
use train::pipeline::{Extent, Finished, run_part};
use train::recipe::Recipe;

use super::dry_run;
use super::ladder;
use super::machine;
use super::model_argument::pulled;
use super::output::Output;
use super::progress::{Lines, Terminal};
use crate::outcome::failure;

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
    /// Trainer these stages and no other
    #[arg(long, value_name = "STAGE", num_args = 1..)]
    only: Vec<String>,
    /// Do this stage and those after it again, from the weights before it; their keys may have changed
    #[arg(long, value_name = "STAGE")]
    from: Option<String>,
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
    let mut sets = arguments.set.clone();
    // As one more change of a key, it is checked with the others.
    sets.extend(arguments.name.as_ref().map(|name| format!("name={}", toml::Value::String(name.clone()))));
    let mut recipe = Recipe::read(&arguments.recipe, &sets)?;
    locate_models(&mut recipe);
    let task = recipe.build_task()?;
    check(&recipe, &*task)?;
    let isa = Isa::choose().map_err(|problem| failure(problem, "unset FERULE_ISA to use the best one"))?;
    let threads = arguments.threads.map_or_else(machine::cores, std::num::NonZeroUsize::get);
    let queue = Queue::cpu(threads, isa);
    if arguments.dry_run {
        return match recipe.settings.dtype.as_str() {
            "f32" => dry_run::run::<f32>(&queue, &recipe, &*task),
            _ => dry_run::run::<bf16>(&queue, &recipe, &*task),
        };
    }
    let finished = match recipe.settings.dtype.as_str() {
        "f32" => go::<f32>(&queue, &recipe, &*task, &arguments)?,
        _ => go::<bf16>(&queue, &recipe, &*task, &arguments)?,
    };
    let view = Runs::open(&arguments.runs).view(&recipe.settings.name)?;
    let mut output = Output::stdout();
    if arguments.json {
        output.json_line(&crate::report::summary(&view)?)?;
    } else {
        output.text(&ladder::text(&view.ledger().baselines()?, &finished.rows))?;
        output.text(&format!("\n{}\n", finished.folder.display()))?;
        if task.name() == "judgment" {
            output.text(&format!("\n{}\n", tasks::judgment::honest::HONEST_WORDS))?;
        }
    }
    output.flush()
}

/// A model may be named as a repository, `path = "Qwen/Qwen3-0.6B"`: then it is the one in the cache. What is in neither place is refused with the
/// recipe's other faults.
fn locate_models(recipe: &mut Recipe) {
    let folder = &recipe.settings.folder;
    for source in recipe.settings.models.values_mut() {
        if let Some(path) = source.path()
            && !located(folder, path).exists()
            && let Ok(found) = pulled(path)
        {
            source.relocate(found);
        }
    }
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
    let extent = Extent { from: arguments.from.clone(), only: arguments.only.clone() };
    let finished = if Terminal::fits() && !arguments.quiet {
        run_part::<T>(queue, recipe, task, &runs, &extent, &mut Terminal::new(), &stop)
    } else {
        run_part::<T>(queue, recipe, task, &runs, &extent, &mut Lines::new(arguments.quiet), &stop)
    };
    match finished {
        Err(TrainError::Interrupted { stage, step }) if arguments.from.is_some() => {
            let problem = format!("stopped at stage \"{stage}\", step {step}; everything up to there is saved");
            Err(failure(problem, "the same command without --from resumes the run"))
        }
        finished => Ok(finished?),
    }
}
