//! `ferule eval`: a model's accuracy on a task's held-out cases, with its interval.

use std::path::Path;

use kernels::rng::Key;
use kernels::{Real, bf16};
use lm::{Model, Role};
use tasks::judgment::honest::HONEST_WORDS;
use tasks::{Split, registry};
use train::episodes::{EpisodeEvaluation, evaluate_episodes};
use train::evaluate::{Calibration, Evaluation, Ungraded, evaluate, gradable};
use train::prompting::Prompting;

use super::model_argument::{ComputeDType, ModelArguments, OpenModel};
use super::output::Output;
use crate::outcome::WrongUse;
use crate::report::figures::percent;
use crate::visible::note;

/// What `ferule eval` reads.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// judgment, idiom_chain, countdown, or a .jsonl file
    #[arg(long)]
    task: String,
    /// heldout, heldout_unseen, validation or train
    #[arg(long, default_value = "heldout")]
    split: String,
    /// How many cases
    #[arg(long, default_value_t = 500)]
    n: usize,
    /// Samples of each case; 1 is greedy, more give pass@k and maj@k at temperature 1
    #[arg(long, default_value_t = 1)]
    k: usize,
    /// Run a multi-turn episode of N turns from every case, if the task has an environment (idiom_chain)
    #[arg(long, value_name = "N", conflicts_with = "k")]
    turns: Option<usize>,
    /// The most tokens in a completion
    #[arg(long, default_value_t = 64)]
    max_new_tokens: usize,
    /// Seed of the cases and the samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the figures as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.k == 0 || arguments.n == 0 || arguments.turns == Some(0) {
        return Err(WrongUse::error("--k, --n and --turns count from 1", "leave them out for 1 sample of 500 cases"));
    }
    match arguments.model.compute.dtype.unwrap_or(ComputeDType::F32) {
        ComputeDType::F32 => measure::<f32>(&arguments),
        ComputeDType::Bf16 => measure::<bf16>(&arguments),
    }
}

fn measure<T: Real>(arguments: &Arguments) -> anyhow::Result<()> {
    let OpenModel { checkpoint, queue, task: own, .. } = arguments.model.open()?;
    let prompting =
        Prompting::new(checkpoint.tokenizer()?, checkpoint.template()?, &checkpoint.generation().eos_token_id)?;
    let mut model = Model::<T>::load(&queue, checkpoint.config(), checkpoint.tensors(), Role::Inference)?;
    let task =
        registry::build(&table(&arguments.task, own), Path::new("")).map_err(|refusal| refusal.in_key("task"))?;
    let cases = task.cases(Split::parse(&arguments.split)?, arguments.n, arguments.seed)?;
    let key = Key::new(arguments.seed).word("held out");
    if task.name() == "judgment" {
        eprintln!("{HONEST_WORDS}");
    }
    let mut output = Output::stdout();
    if let Some(turns) = arguments.turns {
        let result =
            evaluate_episodes(&queue, &mut model, &prompting, &*task, &cases, turns, arguments.max_new_tokens, key)?;
        match arguments.json {
            true => output.json_line(&result)?,
            false => output.text(&episodes_text(&result))?,
        }
        return output.flush();
    }
    let (cases, ungraded) = gradable(&*task, cases);
    if let Some(Ungraded { count, reason }) = ungraded {
        if cases.is_empty() {
            let hint = "a file is graded by the `rules` of the [task] with which the model was trained";
            return Err(WrongUse::error(format!("none of the {count} cases can be graded: {reason}"), hint));
        }
        note!("{count} cases are left out: {reason}");
    }
    let result = evaluate(&queue, &mut model, &prompting, &*task, &cases, arguments.k, arguments.max_new_tokens, key)?;
    if arguments.json {
        output.json_line(&result)?;
    } else {
        output.text(&text(&result))?;
    }
    output.flush()
}

/// The task that is asked for. A file is read and graded with the rules, columns and template of the run that made the model.
fn table(task: &str, own: Option<toml::Table>) -> toml::Table {
    let is_file = task.ends_with(".jsonl");
    let name = if is_file { "jsonl" } else { task };
    let same = own.filter(|own| is_file && own.get("name").and_then(toml::Value::as_str) == Some(name));
    let mut table = same.unwrap_or_default();
    table.insert("name".into(), name.into());
    if is_file {
        table.insert("path".into(), task.into());
        table.remove("heldout");
    }
    table
}

fn episodes_text(result: &EpisodeEvaluation) -> String {
    let mut text = format!(
        "{} ({} to {}) of {} episodes of {} turns won, mean reward {:.3}\n",
        percent(result.won),
        percent(result.low),
        percent(result.high),
        result.n,
        result.turns,
        result.mean_reward
    );
    for (ending, count) in &result.endings {
        text += &format!("  {count:5}  {ending}\n");
    }
    text
}

fn text(result: &Evaluation) -> String {
    let Evaluation { accuracy, low, high, n, k, .. } = *result;
    let name = if k == 1 { "accuracy, greedy" } else { "pass@1" };
    let figure = |name: &str, value: f64, [low, high]: [f64; 2]| {
        format!("{name:<18} {:>5} ({} to {})\n", percent(value), percent(low), percent(high))
    };
    let mut text = figure(name, accuracy, [low, high]);
    let sampled = [
        (format!("pass@{k}"), result.pass_at_k, result.pass_at_k_interval),
        (format!("maj@{k}"), result.majority_at_k, result.majority_at_k_interval),
    ];
    for (name, value, interval) in sampled {
        if let (Some(value), Some(interval)) = (value, interval) {
            text += &figure(&name, value, interval);
        }
    }
    text += &format!("in %, with 95% intervals over {n} cases; {} completions never ended\n", result.unfinished);
    let Calibration { confidence, ece, target_accuracy, coverage, threshold, .. } = &result.calibration;
    text += &format!("calibration error  {:>5} (confidence: {})\n", percent(*ece), confidence.replace('_', " "));
    text += &match threshold {
        Some(threshold) => format!(
            "coverage           {:>5} at {} accuracy, answering at a confidence of {threshold:.3} or more\n",
            percent(*coverage),
            percent(*target_accuracy)
        ),
        None => format!(
            "coverage           {:>5} at {} accuracy: the model is never sure enough\n",
            percent(0.0),
            percent(*target_accuracy)
        ),
    };
    result.parts.iter().for_each(|(name, value)| text += &format!("  {name} {value:.3}\n"));
    text
}
