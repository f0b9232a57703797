//! The kind of a key's values in words, and whether a value is of that kind.

use serde_json::Value;

use super::range;

/// A schema in words: `integer ≥ 1`, `one of "a", "b"`, `path or list of paths`.
pub(super) fn name(schema: &Value) -> String {
    let choices = choices(schema);
    if let [one] = choices.as_slice() {
        return format!("\"{one}\"");
    }
    if !choices.is_empty() {
        let quoted: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
        return format!("one of {}", quoted.join(", "));
    }
    if let Some(parts) = alternatives(schema) {
        let names: Vec<String> = parts.iter().filter(|part| !is_null(part)).map(name).collect();
        return names.join(" or ");
    }
    let types: Vec<&str> = types(schema).into_iter().filter(|kind| *kind != "null").collect();
    let names: Vec<String> = types.into_iter().map(|kind| of_type(kind, schema)).collect();
    if names.is_empty() { "any value".into() } else { names.join(" or ") }
}

fn of_type(kind: &str, schema: &Value) -> String {
    match kind {
        "integer" | "number" => format!("{kind}{}", range::name(schema)),
        "boolean" => "true or false".into(),
        "string" if schema.get("format").is_some_and(|format| format == "path") => "path".into(),
        "string" => "text".into(),
        "array" => match schema.get("items").map(name) {
            Some(item) => format!("list of {}", plural(&item)),
            None => "list".into(),
        },
        "object" => "table".into(),
        other => other.into(),
    }
}

fn plural(item: &str) -> String {
    let (noun, rest) = item.split_at(item.find(' ').unwrap_or(item.len()));
    match noun {
        "integer" | "number" | "path" | "text" | "table" | "list" => format!("{noun}s{rest}"),
        _ => item.into(),
    }
}

/// The words that a key accepts, if it is a choice.
fn choices(schema: &Value) -> Vec<&str> {
    if let Some(word) = schema.get("const").and_then(Value::as_str) {
        return vec![word];
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().filter_map(Value::as_str).collect();
    }
    let parts = alternatives(schema).unwrap_or_default();
    let words: Vec<Vec<&str>> = parts.iter().filter(|part| !is_null(part)).map(choices).collect();
    if words.iter().any(Vec::is_empty) { Vec::new() } else { words.concat() }
}

fn alternatives(schema: &Value) -> Option<&[Value]> {
    let parts = schema.get("anyOf").or_else(|| schema.get("oneOf"))?;
    parts.as_array().map(Vec::as_slice)
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_null(schema: &Value) -> bool {
    types(schema) == ["null"]
}

/// Whether a key takes one of two kinds, and the value's kind says which.
pub(super) fn is_either(schema: &Value) -> bool {
    choices(schema).is_empty() && alternatives(schema).is_some()
}

/// For a key that takes one of two kinds, the schema that a value belongs to.
pub(super) fn meant<'a>(schema: &'a Value, value: &toml::Value) -> &'a Value {
    let parts = alternatives(schema).unwrap_or_default();
    parts.iter().find(|part| fits(part, value)).map_or(schema, |part| meant(part, value))
}

/// Whether a value is of the kind. Ranges are checked elsewhere, and serde checks the content of a list of tables.
pub(super) fn fits(schema: &Value, value: &toml::Value) -> bool {
    let choices = choices(schema);
    if !choices.is_empty() {
        return value.as_str().is_some_and(|word| choices.contains(&word));
    }
    if let Some(parts) = alternatives(schema) {
        return parts.iter().any(|part| fits(part, value));
    }
    let types = types(schema);
    types.is_empty()
        || types.into_iter().any(|kind| match (kind, value) {
            ("integer" | "number", toml::Value::Integer(_)) => true,
            ("number", toml::Value::Float(_)) => true,
            ("boolean", toml::Value::Boolean(_)) => true,
            ("string", toml::Value::String(_)) => true,
            ("array", toml::Value::Array(items)) => {
                schema.get("items").is_none_or(|schema| items.iter().all(|item| fits(schema, item)))
            }
            ("object", toml::Value::Table(_)) => true,
            _ => false,
        })
}
