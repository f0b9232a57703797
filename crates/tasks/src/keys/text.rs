//! Values and sentences of a schema in readable form.

use serde_json::Value;

/// A number without a needless `.0`. A number of an `f32` is written in its shortest form as an `f32`.
pub(super) fn number(value: &Value, schema: &Value) -> String {
    match value.as_f64() {
        Some(float) if value.is_f64() && is_f32(schema) => (float as f32).to_string(),
        Some(float) if value.is_f64() => float.to_string(),
        _ => value.to_string(),
    }
}

/// A default as TOML; none for null, which TOML does not have.
pub(super) fn toml(value: &Value, schema: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Number(_) if value.is_f64() => match value.as_f64()? {
            float if is_f32(schema) => format!("{:?}", float as f32),
            float => format!("{float:?}"),
        },
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().filter_map(|item| toml(item, schema)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(keys) => {
            let keys = keys.iter().filter_map(|(key, value)| Some(format!("{key} = {}", toml(value, schema)?)));
            format!("{{ {} }}", keys.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    })
}

pub(super) fn is_f32(schema: &Value) -> bool {
    schema.get("format").is_some_and(|format| format == "float")
}

/// A doc comment as running text; links to code lose their brackets.
pub(super) fn sentences(comment: &str) -> String {
    comment.split_whitespace().collect::<Vec<_>>().join(" ").replace("[`", "`").replace("`]", "`")
}
