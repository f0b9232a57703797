//! Verdicts that people filled in in a table. The whole table is checked before any of them is signed.

use std::collections::HashMap;
use std::path::Path;

use store::data_folder::review::{Decision, Submission};
use store::{DataFolder, StoreError};
use tasks::data::row::Row;
use tasks::data::table::{self, Format};
use tasks::refusal::Refusal;

use super::decision::decision;
use super::sheet;

/// The result of importing a table.
pub(super) struct Imported {
    /// Signed verdicts.
    pub signed: usize,
    /// Rows without a decision.
    pub blank: usize,
}

/// Signs the verdicts of a table, all or none.
///
/// # Errors
/// A table that `ferule review export` did not write; the first row that cannot be signed, with its column.
pub(super) fn import(data: &DataFolder, person: &str, file: &Path) -> anyhow::Result<Imported> {
    let table = table::read(file)?;
    for (column, problem) in [
        ("item", Some("the table has no such column").filter(|_| !table.columns.iter().any(|name| name == "item"))),
        (
            "verdict",
            Some("the table lists verdicts that are already signed")
                .filter(|_| table.columns.iter().any(|name| name == "verdict")),
        ),
    ] {
        if let Some(problem) = problem {
            let hint = "give a table that `ferule review export` wrote without --signed";
            return Err(Refusal::new(problem, hint).in_key(column).in_file(file).into());
        }
    }
    let cell = |row: &Row, column: &str| {
        let text = row.get(column).map(sheet::text).unwrap_or_default();
        match table.format {
            Format::Csv => sheet::without_guard(&text).to_string(),
            _ => text,
        }
    };
    let (mut submissions, mut places, mut first) = (Vec::new(), Vec::new(), HashMap::new());
    for (row, place) in table.rows.iter().zip(&table.places) {
        let refuse = |column: &str, problem: String, hint: &str| {
            Refusal::new(problem, hint).in_key(column).in_line(file, *place)
        };
        let (word, correction) = (cell(row, "decision"), cell(row, "correction"));
        let (word, correction) = (word.trim(), correction.trim());
        if word.is_empty() && correction.is_empty() {
            continue;
        }
        let item = cell(row, "item").trim().to_string();
        if item.is_empty() {
            return Err(refuse("item", "it is empty".into(), "leave this column as it was exported").into());
        }
        let decided = decision(word).map_err(|words| match word {
            "" => refuse("decision", "it is empty, and there is a correction".into(), "write \"correct\""),
            word => refuse("decision", format!("unknown decision {word:?}"), &words),
        })?;
        match (decided, correction.is_empty()) {
            (Decision::Correct, true) => {
                let hint = "write the right answer, or choose another decision";
                return Err(refuse("correction", "it is empty, and the decision is \"correct\"".into(), hint).into());
            }
            (Decision::Accept | Decision::Reject | Decision::Skip, false) => {
                let problem = format!("the decision \"{}\" takes no correction", decided.word());
                return Err(
                    refuse("correction", problem, "change the decision to \"correct\", or empty this cell").into()
                );
            }
            _ => {}
        }
        if let Some(before) = first.insert(item.clone(), *place) {
            let hint = "keep one of the rows";
            return Err(refuse("item", format!("{item} is also in row {before}"), hint).into());
        }
        let request = Some(cell(row, "request").trim().to_string()).filter(|request| !request.is_empty());
        // Otherwise a person who corrects the answer in its own cell would sign the uncorrected one.
        if let (Some(request), Some(_)) = (&request, row.get("answer")) {
            let served = data.exchange(request)?.map(|exchange| exchange.completion);
            if served.is_some_and(|served| !sheet::same(&served, &cell(row, "answer"))) {
                let hint = "leave this column as it was exported, and write the right answer into `correction`";
                return Err(refuse("answer", "it differs from the answer that the model gave".into(), hint).into());
            }
        }
        let correction = Some(correction.to_string()).filter(|text| !text.is_empty());
        submissions.push(Submission { item, request, decision: decided, correction, seconds: 0.0 });
        places.push(*place);
    }
    let signed = data.submit_all(person, &submissions).map_err(|(at, error)| match error {
        StoreError::NotPossible { problem, hint } => {
            anyhow::Error::from(Refusal::new(problem, hint).in_key("item").in_line(file, places[at]))
        }
        other => other.into(),
    })?;
    Ok(Imported { signed: signed.len(), blank: table.rows.len() - signed.len() })
}
