//! One row of a file: named values.

use serde_json::{Map, Value};

/// Column to value. Missing cells are absent.
pub type Row = Map<String, Value>;

/// Pairs names with values; empty cells are left out.
pub(super) fn row(names: &[String], values: impl Iterator<Item = Value>) -> Row {
    let filled = |value: &Value| !value.is_null() && value.as_str() != Some("");
    names.iter().map(|name| name.trim().to_string()).zip(values).filter(|(_, value)| filled(value)).collect()
}
