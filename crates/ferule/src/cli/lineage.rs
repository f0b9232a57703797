//! `ferule lineage MODEL|RECORD`: from weights to the labels, documents and people behind them, and back.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use store::DataFolder;
use store::data_folder::review::Signed;
use store::data_folder::turns::{RecordRole, Turn};

use super::data_argument::DataArguments;
use super::output::Output;
use crate::outcome::failure;
use crate::visible;

/// What `ferule lineage` reads.
#[derive(clap::Args)]
#[command(after_help = "\
    ferule lineage 9f86d081 --json          # a model: its turns, what they learned from, who signed that
    ferule lineage chatcmpl-8c1f0e… --json  # a record: the verdict on it, the turns and the models that learned from it")]
pub struct Arguments {
    /// A model's digest or the beginning of one, a completion's id, or an item
    subject: String,
    #[command(flatten)]
    data: DataArguments,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data = DataFolder::open_to_read(&arguments.data.data)?;
    let (subject, turns) = (arguments.subject.as_str(), data.turns()?);
    let shown = match data.models()?.iter().any(|model| model.id.starts_with(subject)) {
        true => of_model(&data, &data.model(subject)?.id, &turns)?,
        false => of_record(&data, subject, &turns)?,
    };
    let mut output = Output::stdout();
    match arguments.json {
        true => output.json_line(&shown)?,
        false => output.text(&format!("{}\n", visible::json(&serde_json::to_string_pretty(&shown)?)))?,
    }
    output.flush()
}

/// A model, the turns that made it, the latest first, and the records and people behind each turn.
fn of_model(data: &DataFolder, id: &str, turns: &[Turn]) -> anyhow::Result<Value> {
    let signed: BTreeMap<i64, Signed> = data.verdicts()?.into_iter().map(|verdict| (verdict.id, verdict)).collect();
    let found: BTreeMap<String, Option<String>> =
        data.found_at(i64::MAX)?.into_iter().map(|label| (label.item, label.document)).collect();
    let (mut chain, mut model) = (Vec::new(), id.to_string());
    while let Some(turn) = data.model(&model)?.turn.and_then(|id| turns.iter().find(|turn| turn.id == id)) {
        let records: Vec<Value> = data
            .turn_records(turn.id)?
            .into_iter()
            .map(|record| {
                let verdict = record.verdict.and_then(|id| signed.get(&id));
                json!({
                    "item": record.item,
                    "role": record.role,
                    "verdict": record.verdict,
                    "reviewer": verdict.map(|verdict| &verdict.reviewer),
                    "request": verdict.map(|verdict| &verdict.request),
                    "document": found.get(&record.item),
                })
            })
            .collect();
        let decision = &turn.decision;
        chain.push(json!({ "turn": turn.id, "model": model, "from": turn.incumbent, "decision": decision, "records": records }));
        if turn.incumbent == model {
            break;
        }
        model.clone_from(&turn.incumbent);
    }
    let service: Vec<Value> =
        data.service()?.into_iter().filter(|line| line.model == id).map(|line| json!(line)).collect();
    Ok(json!({ "model": data.model(id)?, "base": model, "turns": chain, "service": service }))
}

/// A record, its verdicts, and the turns that used it.
fn of_record(data: &DataFolder, subject: &str, turns: &[Turn]) -> anyhow::Result<Value> {
    let exchange = data.exchange(subject)?;
    let item = exchange.as_ref().map_or(subject.to_string(), |exchange| data.item_of(&exchange.messages));
    let verdicts: Vec<Signed> = data.verdicts()?.into_iter().filter(|verdict| verdict.item == item).collect();
    let label = data.found_at(i64::MAX)?.into_iter().find(|label| label.item == item);
    let (mut used, mut models): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    for turn in turns {
        let record = data.turn_records(turn.id)?.into_iter().find(|record| record.item == item);
        let taught = record.as_ref().is_some_and(|record| record.role != RecordRole::Gate);
        if taught || models.contains(&turn.incumbent) {
            models.extend(turn.candidate.clone());
        }
        let shown =
            |role| json!({ "turn": turn.id, "role": role, "candidate": turn.candidate, "decision": turn.decision });
        used.extend(record.map(|record| shown(record.role)));
    }
    if exchange.is_none() && verdicts.is_empty() && label.is_none() && used.is_empty() {
        let hint = "give a model's digest, a completion's id, or an item of `ferule review export`";
        return Err(failure(format!("nothing is known of {subject}"), hint));
    }
    let signed = |v: &Signed| json!({ "id": v.id, "reviewer": v.reviewer, "decision": v.decision });
    Ok(json!({
        "item": item,
        "request": exchange.map(|exchange| json!({ "id": exchange.id, "model": exchange.model, "user": exchange.user })),
        "document": label.and_then(|label| label.document),
        "verdicts": verdicts.iter().map(signed).collect::<Vec<_>>(),
        "turns": used,
        "models": models,
    }))
}
