//! Writes the waiting items and the signed verdicts as tables.

use std::path::Path;

use serde_json::{Map, Value, json};
use store::DataFolder;
use store::data_folder::review::Signed;

use super::blind::{blind, messages, question};
use super::sheet::{self, Column};
use crate::visible::note;

/// The columns of waiting items. The reviewer fills in `decision` and `correction`.
pub(super) const WAITING: [Column; 8] = [
    column("item", 10.0),
    column("request", 10.0),
    column("reason", 12.0),
    column("question", 60.0),
    column("answer", 40.0),
    Column { choices: &["accept", "correct", "reject", "skip"], ..column("decision", 12.0) },
    column("correction", 40.0),
    column("messages", 20.0),
];

const SIGNED: [Column; 10] = [
    column("verdict", 8.0),
    column("item", 10.0),
    column("reviewer", 12.0),
    column("decision", 12.0),
    column("correction", 40.0),
    column("question", 60.0),
    column("answer", 40.0),
    column("seconds", 8.0),
    column("at_ms", 14.0),
    column("messages", 20.0),
];

const fn column(name: &'static str, width: f64) -> Column {
    Column { name, width, choices: &[] }
}

/// Writes the items that wait for a person.
pub(super) fn waiting(data: &DataFolder, person: &str, file: &Path) -> anyhow::Result<()> {
    let row = |item| -> anyhow::Result<Map<String, Value>> {
        let mut row = blind(item)?;
        (row["decision"], row["correction"]) = (Value::Null, Value::Null);
        Ok(object(row))
    };
    let queue = data.queue(person, i64::MAX as usize)?;
    write(file, &WAITING, queue.iter().map(row).collect::<Result<Vec<_>, _>>()?)
}

/// Writes the verdicts that were not revoked.
pub(super) fn signed(data: &DataFolder, file: &Path) -> anyhow::Result<()> {
    let row = |signed: &Signed| -> anyhow::Result<Map<String, Value>> {
        let messages = messages(&signed.messages)?;
        Ok(object(json!({
            "verdict": signed.id, "item": signed.item, "reviewer": signed.reviewer, "decision": signed.decision, "correction": signed.correction,
            "question": question(&messages), "answer": signed.completion, "seconds": signed.seconds, "at_ms": signed.at_ms,
            "messages": messages,
        })))
    };
    write(file, &SIGNED, data.verdicts()?.iter().map(row).collect::<Result<Vec<_>, _>>()?)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn write(file: &Path, columns: &[Column], rows: Vec<Map<String, Value>>) -> anyhow::Result<()> {
    let left_out = sheet::write(file, columns, &rows)?;
    note!("wrote {}: {} rows", file.display(), rows.len() - left_out);
    if left_out > 0 {
        eprintln!(
            "warning: {left_out} rows left out, as a cell of Excel cannot hold their text; export them as .jsonl"
        );
    }
    Ok(())
}
