//! A run's name in place of a model: `RUN`, `RUN/STAGE` or `RUN/MODEL`.
//!
//! `RUN` is its student after the last stage or, without a model of that name, the last model that it made.

use std::path::{Path, PathBuf};

use store::{RunView, Runs};

use crate::outcome::failure;

/// The folder of the model that `text` names, if it begins with the name of a run.
///
/// # Errors
/// A run that has made no model, or not the requested one; a model that is not as its stage wrote it; a ledger that cannot be read.
pub fn find(runs: &Runs, text: &str) -> anyhow::Result<Option<PathBuf>> {
    let (run, part) = text.split_once('/').map_or((text, None), |(run, part)| (run, Some(part)));
    if !runs.names()?.iter().any(|name| name == run) {
        return Ok(None);
    }
    let view = runs.view(run)?;
    let rows = view.ledger().stages()?;
    let made: Vec<&str> = rows
        .iter()
        .filter(|row| row.digest.is_some() && view.model(&row.stage).is_some())
        .map(|row| row.stage.as_str())
        .collect();
    let Some(last) = made.last() else {
        return Err(failure(format!("the run {run} has made no model yet"), "let it finish a stage that trains one"));
    };
    let of_model = |name: &str| Ok::<_, anyhow::Error>(view.final_model(name)?.map(|(row, _)| row.stage));
    let stage = match part {
        None => Some(of_model("student")?.unwrap_or_else(|| last.to_string())),
        Some(part) if made.contains(&part) => Some(part.to_string()),
        Some(part) => of_model(part)?,
    };
    if let Some(stage) = stage {
        return Ok(Some(view.exported_model(&stage)?));
    }
    let part = part.unwrap_or_default();
    Err(failure(
        format!("the run {run} has no model of a stage \"{part}\""),
        format!("it has those of {}", made.join(", ")),
    ))
}

/// The `[task]` table of the run that contains a model's folder; none for models from elsewhere.
pub fn task_of(model: &Path) -> Option<toml::Table> {
    let run = model.canonicalize().ok()?.parent()?.parent()?.to_path_buf();
    let view: RunView = Runs::open(run.parent()?).view(run.file_name()?.to_str()?).ok()?;
    view.recipe().ok()?.get("task")?.as_table().cloned()
}
