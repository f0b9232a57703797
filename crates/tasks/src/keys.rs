//! The keys of a configuration struct: names, kinds, ranges, defaults and a sentence each.
//!
//! Everything comes from the struct itself, through `schemars`: names and defaults as serde knows them (flattened structs
//! included), ranges from `#[schemars(range(min = 1))]` or `#[schemars(extend("exclusiveMinimum" = 0))]`, sentences from the
//! fields' comments. So what a user is shown is what is checked: [`read`] refuses an unknown key, a value out of its range
//! and a value of the wrong type, and names the key.
//!
//! Two marks are ours. `extend("hint" = "…")` on a number is what to say when it is out of its range. `extend("format" =
//! "path")` on a text makes it a path; to a schema a path is a text like any other.

mod kind;
mod range;
mod text;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::Table;

use crate::refusal::Refusal;
use crate::suggest;

/// One key, for a person to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDoc {
    /// Dotted where it lies in a table of its own, as in `columns.prompt`.
    pub name: String,
    /// What it takes: `integer ≥ 1`, `one of "a", "b"`, `path or list of paths`.
    pub kind: String,
    /// Whether it must be written.
    pub required: bool,
    /// What holds where it is not written, as TOML; none for a required key, and for one that may simply be absent.
    pub default: Option<String>,
    /// What it means.
    pub doc: String,
}

/// Every key of `T`, in the struct's order; the keys of a table in it follow the table.
pub fn keys_of<T: JsonSchema>() -> Vec<KeyDoc> {
    let mut keys = Vec::new();
    describe(&schema_of::<T>(), "", &mut keys);
    keys
}

/// The names of the keys of `T`, in the struct's order.
pub fn names_of<T: JsonSchema>() -> Vec<String> {
    properties(&schema_of::<T>()).map(|(name, _)| name.clone()).collect()
}

/// The table as a `T`; `foreign` says of a key what other trainers call it.
///
/// # Errors
/// An unknown key, a value out of its range or of the wrong type, a required key that is missing. The place is the key; it is
/// empty where one is missing.
pub fn read<T: JsonSchema + DeserializeOwned>(table: Table, foreign: &[(&str, &[&str])]) -> Result<T, Refusal> {
    let schema = schema_of::<T>();
    refuse_unknown_to(&schema, &table, foreign)?;
    check(&schema, &table)?;
    serde_path_to_error::deserialize(toml::Value::Table(table.clone())).map_err(|error| {
        let path = error.path().to_string();
        let misfit = properties(&schema).find(|(key, own)| table.get(*key).is_some_and(|v| !kind::fits(own, v)));
        let problem = error.inner().message().trim();
        match misfit {
            // Of a key that takes one thing or another serde only says that it is neither.
            Some((key, own)) if kind::is_either(own) => {
                Refusal::new("is of the wrong kind", format!("it takes {}", kind::name(own))).in_key(key)
            }
            // Inside a flattened struct serde forgets which key was wrong.
            Some((key, _)) if path == "." => Refusal::new(problem, TYPES).in_key(key),
            _ if path == "." => Refusal::new(problem, TYPES),
            _ => Refusal::new(problem, TYPES).in_key(path),
        }
    })
}

/// The mend for a value of the wrong type.
const TYPES: &str = "numbers stand without quotes, words in quotes, lists in brackets";

/// Refuses the first key of a table that is none of `known`; `foreign` as in [`read`].
///
/// # Errors
/// An unknown key, with the nearest known one or the one that means the same.
pub fn refuse_unknown(table: &Table, known: &[&str], foreign: &[(&str, &[&str])]) -> Result<(), Refusal> {
    let Some(unknown) = table.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
    let meant = foreign.iter().find(|(ours, theirs)| theirs.contains(&unknown.as_str()) && known.contains(ours));
    let hint = match meant {
        Some((ours, _)) => format!("here it is called \"{ours}\""),
        None => suggest::hint(unknown, known.iter().copied()),
    };
    Err(Refusal::new("unknown key", hint).in_key(unknown))
}

/// As [`refuse_unknown`], for all tables that a schema describes.
fn refuse_unknown_to(schema: &Value, table: &Table, foreign: &[(&str, &[&str])]) -> Result<(), Refusal> {
    // Only a struct with a flattened table takes keys that it does not name.
    if schema.get("additionalProperties") != Some(&Value::Bool(true)) {
        let known: Vec<&str> = properties(schema).map(|(name, _)| name.as_str()).collect();
        refuse_unknown(table, &known, foreign)?;
    }
    for (name, own) in properties(schema).filter(|(_, own)| properties(own).next().is_some()) {
        if let Some(toml::Value::Table(inner)) = table.get(name) {
            refuse_unknown_to(own, inner, foreign).map_err(|refusal| refusal.in_key(name))?;
        }
    }
    Ok(())
}

/// Refuses the first number of a table that is out of its key's range, or not finite. Other faults are another check's business.
fn check(schema: &Value, table: &Table) -> Result<(), Refusal> {
    for (name, own) in properties(schema) {
        match table.get(name) {
            Some(toml::Value::Table(inner)) => check(own, inner).map_err(|refusal| refusal.in_key(name))?,
            Some(value) => {
                let kind = kind::name(own);
                range::check(kind::meant(own, value), value, own, &kind).map_err(|refusal| refusal.in_key(name))?;
            }
            None => {}
        }
    }
    Ok(())
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn describe(schema: &Value, place: &str, keys: &mut Vec<KeyDoc>) {
    let required = schema.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (name, own) in properties(schema) {
        let is_table = properties(own).next().is_some();
        keys.push(KeyDoc {
            name: format!("{place}{name}"),
            kind: kind::name(own),
            required: required.iter().any(|required| required == name),
            default: own.get("default").and_then(|default| text::toml(default, own)).filter(|_| !is_table),
            doc: text::sentences(own.get("description").and_then(Value::as_str).unwrap_or_default()),
        });
        describe(own, &format!("{place}{name}."), keys);
    }
}

#[cfg(test)]
mod tests;
