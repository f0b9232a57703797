//! The files that a run reads: the task's, the stages', the rules' and the models'. The run's ledger keeps their hashes, so that a run
//! which is resumed on changed data is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use store::{Ledger, digest};
use tasks::keys::KeyDoc;
use tasks::paths::located;
use tasks::refusal::Refusal;
use tasks::{registry, rewards};
use toml::{Table, Value};

use crate::error::TrainError;
use crate::recipe::resolved::Recipe;
use crate::stages::registry as kinds;

/// Endings of the files in a folder that a run may read: texts, and the parts of a model.
const ENDINGS: [&str; 7] = ["txt", "md", "jsonl", "json", "safetensors", "jinja", "gguf"];

/// Refuses files that are not as they were when the run began, and records those that the run did not read before.
///
/// # Errors
/// A file that changed or is gone, by its name; the ledger's errors.
pub fn settle(recipe: &Recipe, ledger: &Ledger) -> Result<(), TrainError> {
    Ok(ledger.record_inputs(&unchanged(recipe, ledger)?)?)
}

/// The files with their BLAKE3, by the path that the recipe writes.
///
/// # Errors
/// As [`settle`].
pub fn unchanged(recipe: &Recipe, ledger: &Ledger) -> Result<BTreeMap<String, String>, TrainError> {
    let (paths, mut found) = (paths(recipe), BTreeMap::new());
    for path in &paths {
        hash(&located(&recipe.settings.folder, path), path, &mut found)?;
    }
    for (path, known) in ledger.inputs()? {
        let problem = match found.get(&path) {
            Some(hash) if *hash == known => continue,
            Some(_) => "it was changed since the run began",
            None if paths.iter().any(|now| Path::new(&path).starts_with(now)) => "it is gone since the run began",
            // A stage that is repeated may read another file than before.
            None => continue,
        };
        let hint = "bring the file back as it was, or begin a run under another name with --name";
        let file = located(&recipe.settings.folder, Path::new(&path));
        return Err(Refusal::new(problem, hint).in_file(&file).into());
    }
    Ok(found)
}

/// Every path that a recipe names.
fn paths(recipe: &Recipe) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        recipe.settings.models.values().filter_map(|source| source.path().map(Path::to_path_buf)).collect();
    let task = &recipe.settings.task;
    if let Some(task_keys) = task.get("name").and_then(Value::as_str).and_then(registry::describe) {
        named(task, &task_keys.keys, &mut paths);
    }
    let resolved: Table = recipe.resolved().parse().expect("a resolved recipe is TOML");
    for stage in resolved.get("stages").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table) {
        if let Some(kind) = stage.get("kind").and_then(Value::as_str).and_then(kinds::find) {
            named(stage, &(kind.keys)(), &mut paths);
        }
    }
    paths
}

/// Adds the paths in a table of these keys, and those of the rules in it.
fn named(table: &Table, keys: &[KeyDoc], paths: &mut Vec<PathBuf>) {
    let is_path = |name: &str| keys.iter().any(|key| key.name == name && key.kind.contains("path"));
    for (name, value) in table {
        match value {
            Value::String(path) if is_path(name) => paths.push(path.into()),
            Value::Array(items) if is_path(name) => {
                paths.extend(items.iter().filter_map(Value::as_str).map(PathBuf::from));
            }
            Value::Array(items) if name == "rules" => {
                for rule in items.iter().filter_map(Value::as_table) {
                    let described = rule.get("rule").and_then(Value::as_str).and_then(rewards::registry::describe);
                    if let Some(described) = described {
                        named(rule, &described.keys, paths);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Hashes a file, or the files below a folder. What does not exist is refused elsewhere, with the recipe's line.
fn hash(place: &Path, written: &Path, found: &mut BTreeMap<String, String>) -> Result<(), TrainError> {
    if place.is_file() {
        found.insert(written.to_string_lossy().into_owned(), digest::of_file(place)?);
    } else if let Ok(entries) = fs::read_dir(place) {
        for entry in entries.flatten() {
            let path = entry.path();
            let known =
                path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)));
            // Folders of texts are read with their subfolders. Links to folders are not followed.
            if path.is_file() && known || entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                hash(&path, &written.join(entry.file_name()), found)?;
            }
        }
    }
    Ok(())
}
