//! `ferule withdraw ID…`: keeps records out of all later runs, and names the weights that learned from them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;
use store::Runs;

use super::output::Output;

/// What `ferule withdraw` reads.
#[derive(clap::Args)]
#[command(after_help = "\
The id of a record comes first in the lines of `ferule task RECIPE.toml`, and is the column case_id of the
rollouts. The id of a text for pretraining is the first 16 digits of its BLAKE3 hash. Runs that begin
afterwards equal, digest for digest, runs on data without the records; a run that began before is refused when
it reaches one of them. The command writes the models that learned from the records to stdout, with the stage
that made each. You decide what happens to them.

    ferule withdraw 9f86d081884c7d65 --reason \"asked by the person\"
    ferule withdraw 9f86d081884c7d65 --dry-run --json")]
pub struct Arguments {
    /// The records' ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
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

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runs = Runs::open(&arguments.runs);
    let mut output = Output::stdout();
    for id in &arguments.ids {
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
