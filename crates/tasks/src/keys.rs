//! The keys of a configuration struct: name, kind, range, default and a sentence for each.
//!
//! Everything is derived from the struct itself, through `schemars`: names and defaults from serde (flattened structs
//! included), ranges from `#[schemars(range(min = 1))]` or `#[schemars(extend("exclusiveMinimum" = 0))]`, sentences
//! from the fields' doc comments. So the documentation and the checks cannot differ: [`read`] refuses an unknown key, a
//! value out of its range and a value of the wrong type, and names the key.
//!
//! Two attributes are Ferule's own. `extend("hint" = "…")` on a number is the hint of the refusal when the number is
//! out of its range. `extend("format" = "path")` marks a text as a path, because to a schema a path is a text like any
//! other.

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

/// The documentation of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDoc {
    /// Its name; dotted if it is in a table of its own, as in `columns.prompt`.
    pub name: String,
    /// The values that it takes: `integer ≥ 1`, `one of "a", "b"`, `path or list of paths`.
    pub kind: String,
    /// Whether a recipe must set it.
    pub required: bool,
    /// Its default as TOML; none for a required key, and for an optional one without a default.
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

/// Reads a table as a `T`. `foreign` gives the names that other trainers use for a key.
///
/// # Errors
/// An unknown key, a value out of its range or of the wrong type, a missing required key. The place is the key; it is
/// empty if a key is missing.
pub fn read<T: JsonSchema + DeserializeOwned>(table: Table, foreign: &[(&str, &[&str])]) -> Result<T, Refusal> {
    let schema = schema_of::<T>();
    refuse_unknown_to(&schema, &table, foreign)?;
    check(&schema, &table)?;
    serde_path_to_error::deserialize(toml::Value::Table(table.clone())).map_err(|error| {
        let path = error.path().to_string();
        let misfit = properties(&schema).find(|(key, own)| table.get(*key).is_some_and(|v| !kind::fits(own, v)));
        let problem = error.inner().message().trim();
        match misfit {
            // For a key that takes one of two kinds, serde only reports that the value is neither.
            Some((key, own)) if kind::is_either(own) => {
                Refusal::new("is of the wrong kind", format!("it takes {}", kind::name(own))).in_key(key)
            }
            // Inside a flattened struct, serde does not report which key was wrong.
            Some((key, _)) if path == "." => Refusal::new(problem, TYPES).in_key(key),
            _ if path == "." => Refusal::new(problem, TYPES),
            _ => Refusal::new(problem, TYPES).in_key(path),
        }
    })
}

/// The hint for a value of the wrong type.
const TYPES: &str = "numbers stand without quotes, words in quotes, lists in brackets";

/// Refuses the first key of a table that is not in `known`. `foreign` is as in [`read`].
///
/// # Errors
/// An unknown key, with the nearest known key or the one with the same meaning.
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
    // Only a struct with a flattened table accepts keys that it does not name.
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

/// Refuses the first number of a table that is out of its key's range or not finite. Other checks find other faults.
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
