//! `ferule flywheel turn FILE.toml`: one turn.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};
use store::DataFolder;
use store::data_folder::service::ServedModel;
use store::data_folder::turns::{RecordRole, Turn};
use train::flywheel::gate::{self, Comparison, Looks, Reach};
use train::flywheel::turn::{TurnFile, outcome};

use super::super::data_argument::DataArguments;
use super::super::interrupt::stopped_by_signal;
use super::super::model_argument::ComputeArguments;
use super::super::output::Output;
use super::run_turn::{Prepared, prepare, records};
use crate::outcome::{WrongUse, failure};
use crate::people;

/// What `ferule flywheel turn` reads.
#[derive(clap::Args)]
#[command(after_help = "\
A turn file is a recipe without data and models. Its table `[flywheel]` says how many turns may look at the
gate and how many old cases are mixed in. The same command resumes a turn that was stopped or killed. A
candidate that is not better is refused; that is not an error.

    ferule flywheel turn turn.toml --json")]
pub struct Arguments {
    /// The turn file
    file: PathBuf,
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    compute: ComputeArguments,
    /// Abandon the open turn, and begin no other
    #[arg(long)]
    abandon: bool,
    /// Write the decision as one JSON object
    #[arg(long)]
    json: bool,
    /// Print nothing while working
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data = DataFolder::open_existing(&arguments.data.data)?;
    let person = people::signed_in_or_operator(&data)?;
    if arguments.abandon {
        return abandon(&data, &person);
    }
    let file = TurnFile::read(&arguments.file)?;
    let incumbent = |id: &str| data.model(id);
    let (turn, incumbent, prepared) = match data.open_turn()? {
        Some(open) if open.recipe == file.text => {
            let incumbent = incumbent(&open.incumbent)?;
            let records = records(&data, &file, open.id, open.at_ms)?;
            let prepared = prepare(&data, &file, records, open.at_ms, &incumbent, data.turn_folder(open.id))?;
            (open, incumbent, prepared)
        }
        Some(open) => {
            let problem = format!("turn {} was begun with another turn file and is not finished", open.id);
            return Err(WrongUse::error(problem, "give that file again, or abandon the turn with --abandon"));
        }
        None => begin(&data, &person, &file)?,
    };
    let looks = Looks { look: turn.look, planned: file.keys.planned_looks };
    let reach = gate::reach(prepared.dataset.gate.len(), discordant(&data)?, looks);
    if !arguments.quiet {
        announce(&turn, &incumbent, &prepared, &reach);
    }
    let view = prepared.run(&arguments.compute.queue()?, arguments.quiet, &*stopped_by_signal()?)?;
    let (candidate, pairs) = outcome(&view)?;
    let comparison = gate::compare(&pairs, looks, kernels::rng::Key::new(0).word("gate").number(turn.id as u64));
    let digest = candidate.digest.clone().unwrap_or_default();
    let path = view.model(&candidate.stage).ok_or_else(|| {
        failure("the candidate's weights are gone", "run the turn again: it makes them from its last checkpoint")
    })?;
    let path = data.relative(&path);
    let bits = |of: fn(&(f64, f64)) -> f64| {
        pairs.iter().map(|pair| if of(pair) > 0.5 { '1' } else { '0' }).collect::<String>()
    };
    let shown = json!({
        "turn": turn.id,
        "candidate": digest,
        "incumbent": incumbent.id,
        "learned": Learned::of(&prepared),
        "comparison": comparison,
        "reach": reach,
        "decision": if comparison.promoted { "promoted" } else { "refused" },
        "reason": comparison.reason,
    });
    let mut kept = shown.clone();
    kept["right"] = json!({ "incumbent": bits(|pair| pair.0), "candidate": bits(|pair| pair.1) });
    data.decide_turn(&person, turn.id, &digest, &path, &kept, comparison.promoted)?;
    let mut output = Output::stdout();
    match arguments.json {
        true => output.json_line(&shown)?,
        false => output.text(&told(turn.id, &digest, &comparison))?,
    }
    output.flush()
}

/// Chooses the records of a new turn, writes and checks its files, and records in the ledger that it has begun.
fn begin(data: &DataFolder, person: &str, file: &TurnFile) -> anyhow::Result<(Turn, ServedModel, Prepared)> {
    let Some(incumbent) = data.in_service()? else {
        let hint = "begin with `ferule serve MODEL --collect`, or put one into service with `ferule promote MODEL`";
        return Err(failure("no model is in service", hint));
    };
    let id = data.turns()?.last().map_or(1, |turn| turn.id + 1);
    // A verdict that is signed from now on belongs to the next turn.
    let at_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64 - 1;
    let records = records(data, file, id, at_ms)?;
    let new = records.iter().filter(|record| record.role == RecordRole::Label).count();
    let gate = data.verdicts_at(at_ms)?.iter().filter(|v| v.gate && v.right_answer().is_some()).count();
    for (have, least, what, key) in [
        (new, file.keys.least_verdicts, "new verdicts with a right answer", "least_verdicts"),
        (gate, file.keys.least_gate, "items of the gate with a right answer", "least_gate"),
    ] {
        if have < least {
            let problem = format!("a turn needs {least} {what}, and there are {have}");
            return Err(failure(problem, format!("review more items, or lower flywheel.{key} in the turn file")));
        }
    }
    let prepared = prepare(data, file, records, at_ms, &incumbent, data.turn_folder(id))?;
    let begun = data.begin_turn(person, at_ms, &file.text, &incumbent.id, &prepared.records)?;
    anyhow::ensure!(begun == id, "turn {begun} was begun where {id} was expected");
    let turn =
        data.open_turn()?.ok_or_else(|| failure("the turn that was begun is gone", "give the same command again"))?;
    Ok((turn, incumbent, prepared))
}

fn abandon(data: &DataFolder, person: &str) -> anyhow::Result<()> {
    let Some(open) = data.open_turn()? else {
        return Err(WrongUse::error("no turn is open", "there is nothing to abandon"));
    };
    data.abandon_turn(person, open.id)?;
    eprintln!("turn {} is abandoned", open.id);
    Ok(())
}

/// The share of items on which candidate and incumbent differed in the last turn.
pub fn discordant(data: &DataFolder) -> anyhow::Result<f64> {
    let last = data.turns()?.into_iter().rev().find_map(|turn| turn.outcome);
    let bits = |outcome: &Value, of: &str| outcome["right"][of].as_str().map(str::to_string);
    let share = last.and_then(|outcome| {
        let (a, b) = (bits(&outcome, "incumbent")?, bits(&outcome, "candidate")?);
        let differ = a.bytes().zip(b.bytes()).filter(|(a, b)| a != b).count();
        (!a.is_empty() && differ > 0).then(|| differ as f64 / a.len() as f64)
    });
    Ok(share.unwrap_or(gate::DISCORDANT))
}

/// The counts of what a turn trains on. Found labels are counted separately, because nobody signed them here.
#[derive(Serialize)]
struct Learned {
    new_verdicts: usize,
    old_verdicts: usize,
    found_labels: usize,
}

impl Learned {
    fn of(prepared: &Prepared) -> Learned {
        let count = |role, signed: bool| {
            prepared.records.iter().filter(|record| record.role == role && record.verdict.is_some() == signed).count()
        };
        Learned {
            new_verdicts: count(RecordRole::Label, true),
            old_verdicts: count(RecordRole::Replay, true),
            found_labels: count(RecordRole::Replay, false),
        }
    }
}

fn announce(turn: &Turn, incumbent: &ServedModel, prepared: &Prepared, reach: &Reach) {
    let Learned { new_verdicts, old_verdicts, found_labels } = Learned::of(prepared);
    eprintln!(
        "turn {}: {new_verdicts} new verdicts, {old_verdicts} old ones and {found_labels} found labels; the model in service is {}",
        turn.id,
        &incumbent.id[..incumbent.id.len().min(12)]
    );
    let set_aside = prepared.dataset.train.len().saturating_sub(prepared.demonstrations);
    if set_aside > 0 {
        eprintln!(
            "{set_aside} of them are not trained on: they are kept to choose among checkpoints, or repeat others"
        );
    }
    match reach.smallest_difference {
        Some(smallest) => eprintln!(
            "the gate has {} items and can detect a difference of {:.1} points or more; half of that would need {} items",
            reach.items,
            100.0 * smallest,
            reach.items_for_half
        ),
        None => eprintln!(
            "the gate has {} items, too few to detect any difference; a difference of 10 points would need {}",
            reach.items, reach.items_for_half
        ),
    }
    if prepared.dataset.gate_unknown > 0 {
        eprintln!(
            "{} items of the gate are left out: they were rejected without a right answer",
            prepared.dataset.gate_unknown
        );
    }
}

fn told(turn: i64, candidate: &str, comparison: &Comparison) -> String {
    let Comparison {
        items,
        incumbent_accuracy,
        candidate_accuracy,
        difference,
        low,
        high,
        confidence,
        p_value,
        looks,
        ..
    } = comparison;
    let percent = |share: &f64| 100.0 * share;
    format!(
        "turn {turn}: candidate {}\n  {:.1} % → {:.1} % of {items} items, {:+.1} points ({:+.1} to {:+.1} at {:.2} %), p = {p_value:.2e}, look {} of {}\n{}: {}\n",
        &candidate[..candidate.len().min(12)],
        percent(incumbent_accuracy),
        percent(candidate_accuracy),
        percent(difference),
        percent(low),
        percent(high),
        percent(confidence),
        looks.look,
        looks.planned,
        if comparison.promoted { "promoted" } else { "refused" },
        comparison.reason
    )
}
