//! Rows from JSON: one object per line, or one list of objects.

use std::path::Path;

use serde_json::Value;

use super::row::Row;
use crate::refusal::Refusal;

/// The rows with their line numbers.
///
/// # Errors
/// The first line that is not an object.
pub(super) fn lines(path: &Path, text: &str) -> Result<Vec<(usize, Row)>, Refusal> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let rows = lines.map(|(index, line)| {
        let bad = |problem: String| Refusal::new(problem, "every line is one JSON object").in_line(path, index + 1);
        match serde_json::from_str(line) {
            Ok(Value::Object(row)) => Ok((index + 1, row)),
            Ok(_) => Err(bad("not an object".into())),
            Err(error) => Err(bad(format!("no JSON: {error}"))),
        }
    });
    rows.collect()
}

/// # Errors
/// The line where the text is not a list of objects.
pub(super) fn list(path: &Path, text: &str) -> Result<Vec<Row>, Refusal> {
    serde_json::from_str(text).map_err(|error| {
        let hint = "mend the line, or write one object a line";
        Refusal::new(format!("no list of JSON objects: {error}"), hint).in_line(path, error.line())
    })
}
