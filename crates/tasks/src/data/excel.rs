//! Rows from the first sheet of a workbook; its first row names the columns.

use std::path::Path;

use calamine::{Data, Reader};
use serde_json::Value;

use super::row::{Row, row};
use crate::refusal::Refusal;

/// The rows with their row numbers in the sheet.
///
/// # Errors
/// Bytes that are not a workbook, or a workbook without a sheet.
pub(super) fn rows(path: &Path, bytes: Vec<u8>) -> Result<Vec<(usize, Row)>, Refusal> {
    let bad = |problem: String| {
        Refusal::new(problem, "save the sheet with the cases as the first one, as .xlsx or .csv").in_file(path)
    };
    let mut book = calamine::open_workbook_auto_from_rs(std::io::Cursor::new(bytes))
        .map_err(|error| bad(format!("no workbook: {error}")))?;
    let name = book.sheet_names().first().cloned().ok_or_else(|| bad("a workbook without sheets".into()))?;
    let sheet = book.worksheet_range(&name).map_err(|error| bad(format!("sheet {name}: {error}")))?;
    let mut rows = sheet.rows();
    let names: Vec<String> = rows.next().unwrap_or_default().iter().map(|cell| cell.to_string()).collect();
    // The range begins at the first filled cell, whose row holds the names. Row numbers of a sheet count from 1.
    let first = sheet.start().map_or(0, |(row, _)| row as usize) + 2;
    let numbered = (first..).zip(rows.map(|cells| row(&names, cells.iter().map(cell))));
    Ok(numbered.filter(|(_, row)| !row.is_empty()).collect())
}

fn cell(data: &Data) -> Value {
    match data {
        Data::Empty | Data::Error(_) => Value::Null,
        Data::Bool(value) => Value::Bool(*value),
        Data::Int(value) => Value::from(*value),
        // Excel stores whole numbers as floats.
        Data::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => Value::from(*value as i64),
        Data::Float(value) => Value::from(*value),
        other => Value::String(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_where_they_are() {
        assert_eq!(cell(&Data::Float(36.0)), Value::from(36));
        assert_eq!(cell(&Data::Float(0.5)), Value::from(0.5));
        assert_eq!(cell(&Data::Empty), Value::Null);
    }
}
