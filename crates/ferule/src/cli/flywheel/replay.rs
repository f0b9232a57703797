//! `ferule flywheel replay`: runs the recorded turns again, without what was forgotten since.
//!
//! A turn's result depends only on its records, its file and the model that it began from. So a replay gives the same weights as if the forgotten records had
//! never been there. A turn that neither lost a record nor begins from a replayed model is not run again: it would give the same weights.

use std::collections::BTreeMap;

use serde_json::json;
use store::DataFolder;
use store::data_folder::service::ServedModel;
use train::flywheel::turn::outcome;

use super::super::data_argument::DataArguments;
use super::super::interrupt::stopped_by_signal;
use super::super::model_argument::ComputeArguments;
use super::super::output::Output;
use super::run_turn::{file_of, prepare, records};
use crate::people;

/// What `ferule flywheel replay` reads.
#[derive(clap::Args)]
#[command(after_help = "\
Writes one line for each turn: the recorded digest and the replayed one. Nothing is put into service; `ferule
promote DIGEST` does that.")]
pub struct Arguments {
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    compute: ComputeArguments,
    /// Write JSON lines
    #[arg(long)]
    json: bool,
    /// Print nothing while working
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data = DataFolder::open_existing(&arguments.data.data)?;
    people::signed_in_or_operator(&data)?;
    let (queue, stop) = (arguments.compute.queue()?, stopped_by_signal()?);
    let mut replayed: BTreeMap<String, ServedModel> = BTreeMap::new();
    let mut output = Output::stdout();
    for turn in data.turns()?.into_iter().filter(|turn| turn.candidate.is_some()) {
        let recorded = turn.candidate.clone().unwrap_or_default();
        let file = file_of(&turn)?;
        let (then, now) = (data.turn_records(turn.id)?, records(&data, &file, turn.id, turn.at_ms)?);
        let lost = then.len() != now.len() || then.iter().any(|record| !now.contains(record));
        let begun_from = replayed.get(&turn.incumbent).cloned();
        let digest = if lost || begun_from.is_some() {
            let incumbent = begun_from.map_or_else(|| data.model(&turn.incumbent), Ok)?;
            let folder = data.turn_folder(turn.id).join("replay");
            let prepared = prepare(&data, &file, now, turn.at_ms, &incumbent, folder)?;
            let view = prepared.run(&queue, arguments.quiet, &stop)?;
            let (candidate, _) = outcome(&view)?;
            let digest = candidate.digest.clone().unwrap_or_default();
            let path = view.model(&candidate.stage).map(|path| data.relative(&path)).unwrap_or_default();
            data.note_model(&digest, &path, Some(turn.id))?;
            replayed.insert(recorded.clone(), data.model(&digest)?);
            digest
        } else {
            recorded.clone()
        };
        match arguments.json {
            true => output.json_line(&json!({ "turn": turn.id, "recorded": recorded, "replayed": digest }))?,
            false => output.text(&format!("turn {}: {recorded} → {digest}\n", turn.id))?,
        }
        output.flush()?;
    }
    Ok(())
}
