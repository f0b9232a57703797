//! `--set key=value`: changes a key of a recipe's table before it is read.

use toml::{Table, Value};

use super::source::Source;
use tasks::refusal::Refusal;
use tasks::suggest;

const HINT: &str = "write --set stages.NAME.key=value, values as in TOML";

/// Changes the key that `set` names. Dots separate tables, and a stage is named as in `stages.sft-teacher.epochs=3`.
///
/// # Errors
/// A `set` without `=`, a stage that the recipe does not have, or a key inside a value that is not a table.
pub(super) fn apply(source: &Source, table: &mut Table, set: &str) -> Result<(), Refusal> {
    let (key, value) = set.split_once('=').ok_or_else(|| source.refuse(set, "no `=` in --set", HINT))?;
    // A word that is not a TOML value is taken as a string, so `dtype=f32` needs no quotes.
    let parsed = format!("x = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("x"));
    let value = parsed.unwrap_or_else(|| Value::String(value.into()));
    let mut parts = key.trim().split('.').peekable();
    let mut at: Option<&mut Value> = None;
    while let Some(part) = parts.next() {
        let inner: &mut Table = match at {
            None => &mut *table,
            Some(Value::Table(inner)) => inner,
            Some(Value::Array(stages)) => {
                let Some(index) = stages.iter().position(|stage| stage_name(stage).as_deref() == Some(part)) else {
                    let names: Vec<String> = stages.iter().filter_map(stage_name).collect();
                    let hint = suggest::hint(part, names.iter().map(String::as_str));
                    return Err(source.refuse(key, format!("there is no stage \"{part}\""), hint));
                };
                let stage = stages[index].as_table_mut().expect("only a table has a name");
                let Some(inner_key) = parts.next() else {
                    return Err(source.refuse(key, "names a stage and no key of it", HINT));
                };
                stage.insert(inner_key.to_string(), value);
                return Ok(());
            }
            Some(_) => {
                let problem = format!("there is no key \"{part}\" in a value that is not a table");
                return Err(source.refuse(key, problem, HINT));
            }
        };
        if parts.peek().is_none() {
            inner.insert(part.to_string(), value);
            return Ok(());
        }
        at = Some(inner.entry(part.to_string()).or_insert_with(|| Value::Table(Table::new())));
    }
    Ok(())
}

/// The name of a stage's table, written or by default.
fn stage_name(item: &Value) -> Option<String> {
    let word = |key: &str| item.get(key).and_then(Value::as_str);
    let unnamed = || match (word("kind"), word("model")) {
        (Some(kind), Some(model)) => Some(format!("{kind}-{model}")),
        (kind, _) => kind.map(String::from),
    };
    word("name").map(String::from).or_else(unnamed)
}
