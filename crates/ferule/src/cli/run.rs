//! `ferule run RECIPE`: runs the whole pipeline, or resumes it; with `--seeds`, once for each of several seeds.

use std::path::PathBuf;

use anyhow::Context;
use kernels::{Isa, Queue, Real, bf16};
use store::Runs;
use tasks::Task;
use tasks::paths::located;
use train::TrainError;
use train::check::check;
use train::pipeline::{Extent, Finished, run_part};
use train::recipe::Recipe;

use super::dry_run;
use super::interrupt::stopped_by_signal;
use super::ladder;
use super::machine;
use super::model_argument::{counted, pulled};
use super::output::Output;
use super::progress::{Lines, Terminal};
use super::seeds;
use crate::outcome::failure;
use crate::visible::note;

/// What `ferule run` reads.
#[derive(clap::Args)]
#[command(after_help = "\
The same command resumes a run that was stopped or killed. Ctrl-C finishes the step and saves; a second Ctrl-C stops at once.

    ferule run recipes/judgment.toml --dry-run
    ferule run recipes/judgment.toml --seeds 3
    ferule run recipes/judgment.toml --from grpo-teacher --set stages.grpo-teacher.steps=200")]
pub struct Arguments {
    /// The recipe, such as recipes/judgment.toml
    recipe: PathBuf,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// The run's name [default: the recipe's]
    #[arg(long)]
    name: Option<String>,
    /// Change a key of the recipe: `seed=3`, `stages.sft-teacher.epochs=4`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Run the recipe with N seeds, starting at its own, and show the runs side by side
    #[arg(long, value_name = "N", long_help = SEEDS_HELP, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: Option<u64>,
    /// Run only these stages
    #[arg(long, value_name = "STAGE", num_args = 1..)]
    only: Vec<String>,
    /// Repeat this stage and the later ones, from the weights before it; their keys may have changed
    #[arg(long, value_name = "STAGE")]
    from: Option<String>,
    /// Threads to compute on [default: all cores]
    #[arg(long, value_name = "N", value_parser = counted::<1024>)]
    threads: Option<std::num::NonZeroUsize>,
    /// Show the recipe with all its defaults and what it will cost, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Write the finished ladder as JSON to stdout
    #[arg(long)]
    json: bool,
    /// Print nothing while working
    #[arg(long, short)]
    quiet: bool,
}

const SEEDS_HELP: &str = "\
Run the recipe with N seeds, starting at its own, and show the runs side by side

Each seed has a run of its own, called NAME-seed1, NAME-seed2 and so on. The table has one row for each stage and one
column for each seed, with the pooled accuracy, its interval over seeds and cases, and the spread between seeds. --from
and --only apply to every seed. You can add seeds later: the finished ones are kept.";

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let recipes = recipes(&arguments)?;
    let first = &recipes[0];
    let task = first.build_task()?;
    for recipe in &recipes {
        check(recipe, &*task)?;
    }
    let isa = Isa::choose().map_err(|problem| failure(problem, "unset FERULE_ISA to use the best one"))?;
    let threads = arguments.threads.map_or_else(machine::cores, std::num::NonZeroUsize::get);
    let queue = Queue::cpu(threads, isa);
    if arguments.dry_run {
        return match first.settings.dtype.as_str() {
            "f32" => dry_run::run::<f32>(&queue, &recipes, &*task),
            _ => dry_run::run::<bf16>(&queue, &recipes, &*task),
        };
    }
    let finished = match first.settings.dtype.as_str() {
        "f32" => go::<f32>(&queue, &recipes, &*task, &arguments)?,
        _ => go::<bf16>(&queue, &recipes, &*task, &arguments)?,
    };
    let runs = Runs::open(&arguments.runs);
    let mut output = Output::stdout();
    match (arguments.seeds, arguments.json) {
        (None, true) => output.json_line(&crate::report::summary(&runs.view(&first.settings.name)?)?)?,
        (None, false) => {
            output.text(&ladder::text(&runs.view(&first.settings.name)?.ledger().baselines()?, &finished[0].rows))?;
        }
        (Some(_), true) => output.json_line(&seeds::json(&runs, &recipes, &*task)?)?,
        (Some(_), false) => output.text(&seeds::text(&runs, &recipes, &*task)?)?,
    }
    if !arguments.json {
        let folders: String = finished.iter().map(|finished| format!("{}\n", finished.folder.display())).collect();
        output.text(&format!("\n{folders}"))?;
        if task.name() == "judgment" {
            output.text(&format!("\n{}\n", tasks::judgment::honest::HONEST_WORDS))?;
        }
    }
    output.flush()
}

/// The recipes to run: one, or one for each seed.
fn recipes(arguments: &Arguments) -> anyhow::Result<Vec<Recipe>> {
    let mut sets = arguments.set.clone();
    // The name is added as one more change of a key, so it is checked like the others.
    sets.extend(arguments.name.as_ref().map(|name| format!("name={}", toml::Value::String(name.clone()))));
    let mut recipes = match arguments.seeds {
        None => vec![Recipe::read(&arguments.recipe, &sets)?],
        Some(count) => seeds::recipes(&arguments.recipe, &sets, count)?,
    };
    recipes.iter_mut().for_each(locate_models);
    Ok(recipes)
}

/// Resolves models that are named as repositories, such as `path = "Qwen/Qwen3-0.6B"`, to their folders in the cache. A
/// path that exists in neither place is refused with the recipe's other faults.
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

/// Runs every recipe, one after the other.
fn go<T: Real>(
    queue: &Queue,
    recipes: &[Recipe],
    task: &dyn Task,
    arguments: &Arguments,
) -> anyhow::Result<Vec<Finished>> {
    let stop = stopped_by_signal()?;
    let runs = Runs::open(&arguments.runs);
    let mut extent = Extent { from: arguments.from.clone(), only: arguments.only.clone() };
    if arguments.seeds.is_some() && extent.from.is_some() {
        // All runs are rewound first. So after an interruption, the same command without --from finishes every seed.
        seeds::rewind(&runs, recipes, task, &extent)?;
        extent.from = None;
    }
    let one = |recipe: &Recipe| {
        if Terminal::fits() && !arguments.quiet {
            run_part::<T>(queue, recipe, task, &runs, &extent, &mut Terminal::new(), &stop)
        } else {
            run_part::<T>(queue, recipe, task, &runs, &extent, &mut Lines::new(arguments.quiet), &stop)
        }
    };
    let mut finished = Vec::new();
    for recipe in recipes {
        if arguments.seeds.is_some() && !arguments.quiet {
            note!("seed {}: run {}", recipe.settings.seed, recipe.settings.name);
        }
        let outcome = match one(recipe) {
            Err(TrainError::Interrupted { stage, step }) if arguments.from.is_some() => {
                let problem = format!("stopped at stage \"{stage}\", step {step}; everything up to there is saved");
                Err(failure(problem, "the same command without --from resumes the run"))
            }
            outcome => outcome.map_err(anyhow::Error::from),
        };
        finished.push(match arguments.seeds {
            Some(_) => outcome.with_context(|| format!("run {}", recipe.settings.name))?,
            None => outcome?,
        });
    }
    Ok(finished)
}
