//! Compares two resolved recipes key by key.
//!
//! Values are compared, not text: comments, order and the spelling of numbers do not matter. It knows no recipe's schema.
//!
//! Read next: `run/resume.rs`, which refuses a changed recipe.

use std::collections::BTreeMap;
use std::fmt;

use toml::{Table, Value};

/// One key whose value has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where: `stages[2].learning_rate`.
    pub key: String,
    /// The stored value as TOML, or none if the key is new.
    pub old: Option<String>,
    /// The value now, or none if the key is gone.
    pub new: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |v: &Option<String>| v.clone().unwrap_or_else(|| "(absent)".to_owned());
        write!(f, "{}: {} → {}", self.key, side(&self.old), side(&self.new))
    }
}

/// Every key whose value differs, sorted by key. Two NaNs are equal. `1` and `1.0` differ, because their types do.
pub fn differences(old: &Table, new: &Table) -> Vec<Change> {
    let (old, new) = (leaves(old), leaves(new));
    let mut changes = Vec::new();
    for (key, value) in &old {
        if new.get(key) != Some(value) {
            changes.push(Change { key: key.clone(), old: Some(value.clone()), new: new.get(key).cloned() });
        }
    }
    for (key, value) in &new {
        if !old.contains_key(key) {
            changes.push(Change { key: key.clone(), old: None, new: Some(value.clone()) });
        }
    }
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    changes
}

/// Path → value as TOML text. A list of plain values is one leaf; a list of tables has a leaf for each of their keys.
fn leaves(table: &Table) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (key, value) in table {
        flatten(key.clone(), value, &mut out);
    }
    out
}

fn flatten(path: String, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) if !table.is_empty() => {
            for (key, value) in table {
                flatten(format!("{path}.{key}"), value, out);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            for (i, item) in items.iter().enumerate() {
                flatten(format!("{path}[{i}]"), item, out);
            }
        }
        leaf => {
            out.insert(path, leaf.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(old: &str, new: &str) -> Vec<String> {
        let table = |t: &str| t.parse::<Table>().unwrap();
        differences(&table(old), &table(new)).iter().map(Change::to_string).collect()
    }

    #[test]
    fn order_comments_and_spelling_do_not_matter() {
        assert!(changes("a = 1e-3 # x\nb = [1, 2]\n", "b = [ 1,2 ]\na = 0.001\n").is_empty());
    }

    #[test]
    fn every_kind_of_change_is_named() {
        let old = "seed = 1\nname = \"a\"\n[[stages]]\nlr = 0.1\n[[stages]]\nlr = 0.2\nsteps = 3\n";
        let new = "seed = 1.0\n[[stages]]\nlr = 0.1\n[[stages]]\nlr = 0.4\nsteps = 3\n[[stages]]\nlr = 1.0\n";
        assert_eq!(
            changes(old, new),
            ["name: \"a\" → (absent)", "seed: 1 → 1.0", "stages[1].lr: 0.2 → 0.4", "stages[2].lr: (absent) → 1.0"]
        );
    }
}
