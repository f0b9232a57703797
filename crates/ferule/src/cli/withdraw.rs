//! `ferule withdraw ID…`: excludes records from all later runs, and names the weights that they influenced.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;
use store::Runs;

use super::output::Output;

/// What `ferule withdraw` reads.
#[derive(clap::Args)]
#[command(after_help = "\
A record's id stands first in the lines of `ferule task RECIPE.toml`, and in the column case_id of the rollouts; that of a text which is
pretrained on is the first 16 digits of its BLAKE3. Runs that begin afterwards
equal, digest for digest, runs on data without the records; a run that began before is refused when it comes to one of them.
The models that the records touched are written to stdout, with the stage that made each; what becomes of those is yours to decide.

    ferule withdraw 9f86d081884c7d65 --reason \"asked by the person\"
    ferule withdraw 9f86d081884c7d65 --dry-run --json")]
pub struct Arguments {
    /// The records' ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Why; kept beside the id
    #[arg(long, default_value = "")]
    reason: String,
    /// Folder of all runs
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// Say what the records touched, and withdraw nothing
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a model
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
