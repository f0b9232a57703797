//! The range of a number: its words and its check.

use serde_json::Value;
use toml::Value as Toml;

use super::text;
use crate::refusal::Refusal;

/// An end of a range.
struct Bound<'a> {
    value: &'a Value,
    /// Whether the bound itself is excluded.
    exclusive: bool,
}

fn least(schema: &Value) -> Option<Bound<'_>> {
    bound(schema, "minimum", "exclusiveMinimum")
}

fn most(schema: &Value) -> Option<Bound<'_>> {
    bound(schema, "maximum", "exclusiveMaximum")
}

/// If a schema has both an inclusive and an exclusive bound, the exclusive one was written by hand and counts; the
/// other comes with an unsigned type.
fn bound<'a>(schema: &'a Value, inclusive: &str, exclusive: &str) -> Option<Bound<'a>> {
    let inside = || schema.get(inclusive).map(|value| Bound { value, exclusive: false });
    schema.get(exclusive).map(|value| Bound { value, exclusive: true }).or_else(inside)
}

/// The words after "integer" or "number": ` ≥ 1`, ` from 0 to 1`, ` > 0 and ≤ 1`; empty without a range.
pub(super) fn name(schema: &Value) -> String {
    let shown = |bound: &Bound| text::number(bound.value, schema);
    let from = |bound: &Bound| format!(" {} {}", if bound.exclusive { ">" } else { "≥" }, shown(bound));
    let to = |bound: &Bound| format!(" {} {}", if bound.exclusive { "<" } else { "≤" }, shown(bound));
    match (least(schema), most(schema)) {
        (None, None) => String::new(),
        (Some(least), None) => from(&least),
        (None, Some(most)) => to(&most),
        (Some(least), Some(most)) if least.exclusive || most.exclusive => format!("{} and{}", from(&least), to(&most)),
        (Some(least), Some(most)) => format!(" from {} to {}", shown(&least), shown(&most)),
    }
}

/// Refuses a number that is not finite or out of the schema's range. Other values pass. `key` is the schema of the key,
/// with its default and hint; `kind` is the key's kind in words.
pub(super) fn check(schema: &Value, value: &Toml, key: &Value, kind: &str) -> Result<(), Refusal> {
    let written = match value {
        Toml::Integer(integer) => *integer as f64,
        Toml::Float(float) => *float,
        _ => return Ok(()),
    };
    // What counts is the number that the struct will hold: 1e-300 is 0 in 32 bits.
    let held = if text::is_f32(schema) { f64::from(written as f32) } else { written };
    let Some(problem) = problem(schema, if held.is_finite() && held != 0.0 { written } else { held }) else {
        return Ok(());
    };
    let default = key.get("default").and_then(|default| text::toml(default, key));
    let hint = match key.get("hint").and_then(Value::as_str) {
        Some(hint) => hint.to_string(),
        None if problem == IS_ZERO && default.is_some() => "it counts from 1; leave it out for the default".into(),
        None if problem == IS_ZERO => "it counts from 1".into(),
        None => {
            let default = default.map(|default| format!("; {default} is the default")).unwrap_or_default();
            format!("it takes {kind}{default}")
        }
    };
    Err(Refusal::new(problem, hint))
}

/// The problem of a count that is 0.
const IS_ZERO: &str = "is 0";

fn problem(schema: &Value, number: f64) -> Option<String> {
    if !number.is_finite() {
        return Some(format!("{number} is not finite"));
    }
    let end = |bound: &Bound| bound.value.as_f64().unwrap_or(f64::NAN);
    if let Some(least) = least(schema) {
        let (bound, shown) = (end(&least), text::number(least.value, schema));
        if number == 0.0 && bound == 1.0 && !least.exclusive {
            return Some(IS_ZERO.to_string());
        }
        if least.exclusive && number <= bound {
            return Some(format!("{number} is not above {shown}"));
        }
        if number < bound {
            return Some(format!("{number} is below {shown}"));
        }
    }
    let most = most(schema)?;
    let (bound, shown) = (end(&most), text::number(most.value, schema));
    if most.exclusive && number >= bound {
        return Some(format!("{number} is not below {shown}"));
    }
    (number > bound).then(|| format!("{number} is above {shown}"))
}
