//! The tasks by name, built from a recipe's `[task]` table.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::countdown::{Countdown, CountdownSettings};
use crate::idiom_chain;
use crate::idiom_chain::IdiomChain;
use crate::jsonl::{Columns, Jsonl, Source};
use crate::judgment;
use crate::judgment::Judgment;
use crate::paths::{Paths, located};
use crate::rewards::RuleConfig;
use crate::rewards::dictionary::Dictionary;
use crate::suggest;
use crate::task::{Task, TaskError};

/// The names of all tasks.
pub const NAMES: [&str; 4] = ["judgment", "idiom_chain", "countdown", "jsonl"];

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct JudgmentKeys {
    /// Real cases, one file or several; the generator's where there are none.
    files: Paths,
    /// Facts longer than this are cut.
    fact_chars: Option<usize>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct IdiomChainKeys {
    /// A list of idioms; the built-in one where there is none.
    dictionary: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonlKeys {
    /// The file.
    path: PathBuf,
    /// A file whose cases are held out, all of them; then those of `path` train and validate.
    #[serde(default)]
    heldout: Option<PathBuf>,
    /// Put around every text prompt, at `{prompt}`.
    #[serde(default)]
    template: Option<String>,
    /// What the file calls its columns.
    #[serde(default)]
    columns: Columns,
    /// What rewards a policy.
    #[serde(default)]
    rules: Vec<RuleConfig>,
}

/// The task that a `[task]` table describes; relative paths in it start at `folder`.
///
/// # Errors
/// [`TaskError::Setting`] for an unknown task or key, and whatever reading its files finds.
pub fn build(table: &toml::Table, folder: &Path) -> Result<Box<dyn Task>, TaskError> {
    let mut keys = table.clone();
    let name = keys.remove("name");
    let name = name.as_ref().and_then(toml::Value::as_str).ok_or_else(|| {
        wrong("task", "name", "is missing".into(), format!("write name = \"…\"; there are {}", NAMES.join(", ")))
    })?;
    match name {
        "judgment" => {
            let keys: JudgmentKeys = typed(name, keys)?;
            let files = keys.files.located(folder);
            if files.is_empty() {
                return Ok(Box::new(Judgment::generated()));
            }
            Ok(Box::new(Judgment::from_files(&files, keys.fact_chars)?))
        }
        "idiom_chain" => {
            let keys: IdiomChainKeys = typed(name, keys)?;
            let dictionary = match keys.dictionary {
                None => Dictionary::builtin(),
                Some(path) => Arc::new(Dictionary::read(&located(folder, &path)).map_err(|error| {
                    wrong(name, "dictionary", error.to_string(), "one idiom a line, or JSON lines with `word`".into())
                })?),
            };
            Ok(Box::new(IdiomChain::new(dictionary)))
        }
        "countdown" => Ok(Box::new(Countdown::new(typed::<CountdownSettings>(name, keys)?)?)),
        "jsonl" => {
            let keys: JsonlKeys = typed(name, keys)?;
            let source = Source {
                path: located(folder, &keys.path),
                heldout: keys.heldout.map(|path| located(folder, &path)),
                template: keys.template,
                columns: keys.columns,
            };
            Ok(Box::new(Jsonl::open(source, &keys.rules, folder)?))
        }
        _ => Err(wrong("task", "name", format!("there is no task \"{name}\""), suggest::hint(name, NAMES))),
    }
}

/// A person's own words as the prompt of the task that a `[task]` table describes: facts for `judgment`, an idiom for `idiom_chain`. No file is read.
pub fn question(table: &toml::Table, text: &str) -> String {
    match table.get("name").and_then(toml::Value::as_str) {
        Some("judgment") => judgment::prompt(text),
        Some("idiom_chain") => idiom_chain::prompt(&[text]),
        Some("jsonl") => {
            let template = table.get("template").and_then(toml::Value::as_str).unwrap_or("{prompt}");
            template.replace("{prompt}", text)
        }
        _ => text.to_string(),
    }
}

fn typed<T: DeserializeOwned>(task: &str, keys: toml::Table) -> Result<T, TaskError> {
    let known = suggest::fields_of::<T>();
    if let Some(unknown) = keys.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(wrong(task, unknown, "unknown key".into(), suggest::hint(unknown, known.iter().copied())));
    }
    serde_path_to_error::deserialize(toml::Value::Table(keys)).map_err(|error| {
        let field = error.path().to_string();
        wrong(task, &field, error.inner().to_string().trim().to_string(), "see the task's keys".into())
    })
}

fn wrong(task: &str, field: &str, message: String, hint: String) -> TaskError {
    TaskError::Setting { task: task.into(), field: field.into(), message, hint }
}
