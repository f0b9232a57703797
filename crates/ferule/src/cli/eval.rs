//! `ferule eval`: a model's accuracy on a task's held-out cases, with its interval.

use std::path::{Path, PathBuf};

use kernels::{Real, bf16};
use lm::rng::Key;
use lm::{Model, Role};
use store::Runs;
use train::codec::Codec;
use train::evaluate::evaluate;
use train::play::{Games, play};
use train::tasks::{Split, registry};

use super::model_argument::{ComputeArguments, ComputeDType};
use super::outcome::{WrongUse, failure};
use super::output::Output;
use crate::report::figures::percent;

/// What `ferule eval` reads.
#[derive(clap::Args)]
pub struct Arguments {
    /// A model's folder or .gguf file, or a run's name for the last model it made
    #[arg(long)]
    model: String,
    /// Folder of all runs
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// judgment, idiom_chain, countdown, or a .jsonl file
    #[arg(long)]
    task: String,
    /// heldout, heldout_unseen, validation or train
    #[arg(long, default_value = "heldout")]
    split: String,
    /// Cases
    #[arg(long, default_value_t = 500)]
    n: usize,
    /// Samples of each case; 1 is greedy, more give pass@k and maj@k at temperature 1
    #[arg(long, default_value_t = 1)]
    k: usize,
    /// Play a game of so many turns from every case, where the task has games (idiom_chain)
    #[arg(long, value_name = "N", conflicts_with = "k")]
    turns: Option<usize>,
    /// Longest completion in tokens
    #[arg(long, default_value_t = 64)]
    max_new_tokens: usize,
    /// Seed of the cases and the samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the figures as JSON to stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.k == 0 || arguments.n == 0 || arguments.turns == Some(0) {
        return Err(WrongUse::error("--k, --n and --turns count from 1", "leave them out for 1 sample of 500 cases"));
    }
    match arguments.compute.dtype.unwrap_or(ComputeDType::F32) {
        ComputeDType::F32 => measure::<f32>(&arguments),
        ComputeDType::Bf16 => measure::<bf16>(&arguments),
    }
}

fn measure<T: Real>(arguments: &Arguments) -> anyhow::Result<()> {
    let path = model_path(arguments)?;
    let checkpoint = lm::checkpoint::open(&path)?;
    let codec = Codec::new(checkpoint.tokenizer()?, checkpoint.template()?, &checkpoint.generation().eos_token_id)?;
    let queue = arguments.compute.queue()?;
    let mut model = Model::<T>::load(&queue, checkpoint.config(), checkpoint.tensors(), Role::Inference)?;
    let mut table = toml::Table::new();
    if arguments.task.ends_with(".jsonl") {
        table.insert("name".into(), "jsonl".into());
        table.insert("path".into(), arguments.task.clone().into());
    } else {
        table.insert("name".into(), arguments.task.clone().into());
    }
    let task = registry::build(&table, Path::new(""))?;
    let cases = task.cases(Split::parse(&arguments.split)?, arguments.n, arguments.seed)?;
    let key = Key::new(arguments.seed).word("held out");
    let mut output = Output::stdout();
    if let Some(turns) = arguments.turns {
        let games = play(&queue, &mut model, &codec, &*task, &cases, turns, arguments.max_new_tokens, key)?;
        match arguments.json {
            true => output.json_line(&games)?,
            false => output.text(&games_text(&games))?,
        }
        return output.flush();
    }
    let result = evaluate(&queue, &mut model, &codec, &*task, &cases, arguments.k, arguments.max_new_tokens, key)?;
    if arguments.json {
        output.json_line(&result)?;
    } else {
        let line = format!(
            "{} ({} to {}), n = {}\n",
            percent(result.accuracy),
            percent(result.low),
            percent(result.high),
            result.n
        );
        output.text(&line)?;
        for (name, value) in &result.parts {
            output.text(&format!("  {name} {value:.3}\n"))?;
        }
        if let (Some(pass), Some(majority)) = (result.pass_at_k, result.majority_at_k) {
            output.text(&format!("  pass@{0} {1}  maj@{0} {2}\n", result.k, percent(pass), percent(majority)))?;
        }
    }
    output.flush()
}

fn games_text(games: &Games) -> String {
    let mut text = format!(
        "{} ({} to {}) of {} games of {} turns won, mean reward {:.3}\n",
        percent(games.won),
        percent(games.low),
        percent(games.high),
        games.n,
        games.turns,
        games.mean_reward
    );
    for (ending, count) in &games.endings {
        text += &format!("  {count:5}  {ending}\n");
    }
    text
}

/// A path as it is, or the last model of a run.
fn model_path(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(&arguments.model);
    if path.exists() {
        return Ok(path);
    }
    let view = Runs::open(&arguments.runs).view(&arguments.model)?;
    let last = view.ledger().stages()?.iter().rev().find_map(|row| view.model(&row.stage));
    last.ok_or_else(|| {
        failure(format!("the run {} has made no model yet", arguments.model), "let it finish a stage first")
    })
}
