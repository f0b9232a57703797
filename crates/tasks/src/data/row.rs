//! One row of a file: named values.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::limits;
use crate::refusal::Refusal;

/// Column to value. Missing cells are absent.
pub type Row = Map<String, Value>;

/// What takes the rows that a reader finds, each with its place. Its refusal ends the reading.
pub(super) type Each<'a> = dyn FnMut(usize, Row) -> Result<(), Refusal> + 'a;

/// The names of columns as they are used: without surrounding blanks, and `column 3` for a third one without a name.
///
/// # Errors
/// Two columns of one name, or too many columns.
pub(super) fn column_names(names: impl Iterator<Item = String>) -> Result<Vec<String>, Refusal> {
    let names: Vec<String> = (1..)
        .zip(names)
        .map(|(number, name)| match name.trim() {
            "" => format!("column {number}"),
            name => name.to_string(),
        })
        .collect();
    if names.len() > limits::COLUMNS {
        return Err(too_many_columns());
    }
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(name) => Err(Refusal::new(format!("two columns are named `{name}`"), "rename one of them")),
        None => Ok(names),
    }
}

pub(super) fn too_many_columns() -> Refusal {
    let problem = format!("more than {} columns", limits::COLUMNS);
    Refusal::new(problem, "leave out what nothing uses, or put what varies into one column as a list of objects")
}

/// A row of named values; empty cells are left out.
pub(super) fn row<'a>(cells: impl Iterator<Item = (&'a String, Value)>) -> Row {
    let filled = |value: &Value| !value.is_null() && value.as_str() != Some("");
    let cells: Vec<(&String, Value)> = cells.filter(|(_, value)| filled(value)).collect();
    let mut row = Row::with_capacity(cells.len());
    row.extend(cells.into_iter().map(|(name, value)| (name.clone(), value)));
    row
}

/// A number, which is a missing cell if it is NaN. JSON has no infinite numbers, so these become text.
pub(super) fn number(value: f64) -> Value {
    match value.is_infinite() {
        true => Value::String(value.to_string()),
        false => Value::from(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_columns_have_one_name() {
        let names = |names: &[&str]| column_names(names.iter().map(|name| name.to_string()));
        assert_eq!(names(&["", " a ", ""]).unwrap(), ["column 1", "a", "column 3"]);
        assert_eq!(names(&["a", "b", "a "]).unwrap_err().problem, "two columns are named `a`");
        assert!(names(&vec!["a"; limits::COLUMNS + 1]).unwrap_err().problem.contains("more than 16384 columns"));
    }
}
