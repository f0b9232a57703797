//! `ferule withdraw ID…`: keeps records out of all later runs, and names the weights that learned from them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;
use store::Runs;
use tasks::{Case, Split, Task, partition};

use super::output::Output;
use super::task;
use crate::outcome::WrongUse;

/// What `ferule withdraw` reads.
#[derive(clap::Args)]
#[command(after_help = "\
The id of a record comes first in the lines of `ferule task RECIPE.toml`, and is the column case_id of the
rollouts. The id of a text for pretraining is the first 16 digits of its BLAKE3 hash; --text computes it. Runs that
begin afterwards equal, digest for digest, runs on data without the records; a run that began before is refused when
it reaches one of them. The command writes the models that learned from the records to stdout, with the stage
that made each. You decide what happens to them.

    ferule withdraw 9f86d081884c7d65 --reason \"asked by the person\"
    ferule withdraw --task recipe.toml --text \"lost my card in Lisbon\"
    ferule withdraw 9f86d081884c7d65 --dry-run --json
    ferule withdraw 9f86d081884c7d65 --undo")]
pub struct Arguments {
    /// The records' ids
    #[arg(required_unless_present = "text", value_name = "ID")]
    ids: Vec<String>,
    /// Withdraw the record with this text: the case of --task whose prompt contains it, or the text itself
    #[arg(long)]
    text: Option<String>,
    /// Where to look for the records besides the ledgers of the runs: a recipe, or its file of cases
    #[arg(long, value_name = "DATA")]
    task: Option<String>,
    /// Withdraw ids that no run has used and --task does not hold
    #[arg(long)]
    unseen: bool,
    /// Take withdrawals back: later runs use the records again
    #[arg(long, conflicts_with_all = ["dry_run", "unseen", "json"])]
    undo: bool,
    /// The reason, which is kept beside the id
    #[arg(long, default_value = "")]
    reason: String,
    /// Folder of all runs
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// Only name the models that learned from the records
    #[arg(long)]
    dry_run: bool,
    /// Write one JSON object for each model
    #[arg(long)]
    json: bool,
}

/// The most cases of a split that are looked through.
const MOST_CASES: usize = 1_000_000;

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runs = Runs::open(&arguments.runs);
    let cases = match &arguments.task {
        Some(name) => cases(&*task::named(name)?)?,
        None => Vec::new(),
    };
    let mut ids = arguments.ids.clone();
    ids.extend(arguments.text.as_deref().map(|text| of_text(text, &cases)).transpose()?);
    if arguments.undo {
        return undo(&runs, &ids);
    }
    if !arguments.dry_run && !arguments.unseen {
        // All ids are looked up before any is withdrawn.
        let known: BTreeSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
        for id in ids.iter().filter(|id| !known.contains(id.as_str())) {
            if !runs.knows(id)? {
                let problem = format!("no run in {} has used the record {id}", arguments.runs.display());
                let hint =
                    "give --task RECIPE.toml to look for it in the data, or --unseen to withdraw it all the same";
                return Err(WrongUse::error(problem, hint));
            }
        }
    }
    let mut output = Output::stdout();
    for id in &ids {
        if !arguments.dry_run {
            runs.withdraw(id, &arguments.reason)?;
            eprintln!("withdrawn: {id}");
        }
        let touched = runs.touched_by(id)?;
        if touched.is_empty() {
            eprintln!("no model in {} has learned from {id}", arguments.runs.display());
        }
        let mut stages = BTreeMap::new();
        for (run, digest) in touched {
            if !stages.contains_key(&run) {
                let rows = runs.view(&run)?.ledger().stages()?;
                stages.insert(run.clone(), rows);
            }
            let row = stages[&run].iter().find(|row| row.digest.as_ref() == Some(&digest));
            let stage = &row.context("a model of the lineage has no row in the ladder")?.stage;
            match arguments.json {
                true => output.json_line(&json!({ "id": id, "run": run, "stage": stage, "digest": digest }))?,
                false => output.text(&format!("{id}  {run}  {stage}  {digest}\n"))?,
            }
        }
    }
    output.flush()
}

fn undo(runs: &Runs, ids: &[String]) -> anyhow::Result<()> {
    let withdrawn = runs.withdrawn()?;
    if let Some(id) = ids.iter().find(|id| !withdrawn.contains(*id)) {
        return Err(WrongUse::error(
            format!("the record {id} is not withdrawn"),
            "see withdrawals.jsonl in the folder of runs",
        ));
    }
    for id in ids {
        runs.restore(id)?;
        eprintln!("no longer withdrawn: {id}");
        for run in runs.without(id)? {
            eprintln!("the run {run} began without it and stays so");
        }
    }
    Ok(())
}

/// Every case of a task, in any of its splits.
fn cases(task: &dyn Task) -> anyhow::Result<Vec<Case>> {
    // A split without cases is an error, and no fault here.
    let found: Vec<Case> =
        Split::ALL.into_iter().filter_map(|split| task.cases(split, MOST_CASES, 0).ok()).flatten().collect();
    match found.is_empty() {
        true => Err(WrongUse::error("--task holds no cases", "give the recipe or the file that holds the record")),
        false => Ok(found),
    }
}

/// The id of the one case whose prompt contains the text. Without cases it is the id of the text itself.
fn of_text(text: &str, cases: &[Case]) -> anyhow::Result<String> {
    if cases.is_empty() {
        return Ok(partition::id(text));
    }
    let found: BTreeSet<&str> =
        cases.iter().filter(|case| case.prompt_text().contains(text)).map(|case| case.id.as_str()).collect();
    match found.iter().collect::<Vec<_>>().as_slice() {
        [one] => Ok((**one).to_owned()),
        [] => Err(WrongUse::error(
            "no case of --task contains that text",
            "give a part of it exactly as it is in the data",
        )),
        [first, ..] => {
            let problem = format!("{} cases of --task contain that text, the first is {first}", found.len());
            Err(WrongUse::error(problem, "give a longer part of it, or the id itself"))
        }
    }
}
