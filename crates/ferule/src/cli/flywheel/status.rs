//! `ferule flywheel status`: the state of the flywheel.

use serde_json::json;
use store::DataFolder;
use train::flywheel::gate::{self, Looks};
use train::flywheel::turn::FlywheelKeys;

use super::super::data_argument::DataArguments;
use super::super::output::Output;
use super::run_turn::learned_before;
use super::turn::discordant;

/// What `ferule flywheel status` reads.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    data: DataArguments,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data = DataFolder::open_to_read(&arguments.data.data)?;
    let (verdicts, turns, models) = (data.verdicts()?, data.turns()?, data.models()?);
    let learned = learned_before(&data, i64::MAX)?;
    let right = |gate: bool| verdicts.iter().filter(move |v| v.gate == gate && v.right_answer().is_some());
    let new = right(false).filter(|verdict| !learned.contains(&verdict.item)).count();
    let looks = Looks { look: turns.len() as u64 + 1, planned: FlywheelKeys::default().planned_looks };
    let reach = gate::reach(right(true).count(), discordant(&data)?, looks);
    let (in_service, waiting) = (data.in_service()?, data.waiting_for("")?);
    let mut output = Output::stdout();
    if arguments.json {
        output.json_line(&json!({
            "in_service": in_service,
            "collected": data.collected()?,
            "waiting": waiting,
            "verdicts": verdicts.len(),
            "new_verdicts": new,
            "found_labels": data.found_at(i64::MAX)?.len(),
            "reach": reach,
            "turns": turns,
            "models": models,
            "served": data.is_served(),
        }))?;
        return output.flush();
    }
    let mut text = match &in_service {
        Some(model) => format!("in service  {}  {}\n", &model.id, model.path),
        None => "in service  none\n".to_string(),
    };
    for model in models.iter().filter(|model| model.flag.is_some()) {
        text += &format!("flagged     {}  {}\n", model.id, model.flag.as_deref().unwrap_or_default());
    }
    text += &format!(
        "collected   {}\nwaiting     {waiting}\nverdicts    {}, of which {new} are new to train on and {} are of the gate\n",
        data.collected()?,
        verdicts.len(),
        reach.items
    );
    for turn in &turns {
        let decision = turn.decision.as_deref().unwrap_or("not finished");
        let reason = turn.outcome.as_ref().and_then(|outcome| outcome["reason"].as_str()).unwrap_or_default();
        text += &format!("turn {:<6} {decision}: {reason}\n", turn.id);
    }
    output.text(&text)?;
    output.flush()
}
