//! `ferule report`: one run as one self-contained HTML page, in English or Chinese.
//!
//! The page needs no network, script or font of its own, and it can be printed or shown on a dark screen. It shows what
//! the run stored and computes nothing that would need the model: [`data`] gathers from a [`store::RunView`], [`page`]
//! lays out.
//!
//! It never smooths a curve without saying so, never drops a seed, a failed verdict or a notice, and says if two rows
//! of the ladder cannot be told apart.
//!
//! Read next: [`data`], then [`page`].

pub mod chart;
pub mod data;
pub mod figures;
pub mod findings;
pub mod ladder;
pub mod page;
pub mod paired;
pub mod pooled;
pub mod transcripts;
pub mod words;

use serde_json::{Value, json};
use store::{RunView, StoreError};

pub use data::Report;
pub use words::Language;

/// The output of `ferule report RUN --json`: the ladder, the findings, and the paths of the final models.
///
/// # Errors
/// The errors of reading the run.
pub fn summary(view: &RunView) -> Result<Value, StoreError> {
    let folder = |model: &str| {
        Ok::<_, StoreError>(view.final_model(model)?.map(|(_, path)| path.to_string_lossy().into_owned()))
    };
    let stages = view.ledger().stages()?;
    let rows = (0..stages.len()).map(|index| {
        let mut row = json!(stages[index]);
        if let (Some(difference), Some(row)) = (paired::difference(&stages, index), row.as_object_mut()) {
            row.insert("change".into(), json!(difference));
        }
        row
    });
    Ok(json!({
        "name": view.name(),
        "seed": data::seed_of(&view.recipe()?),
        "baselines": view.ledger().baselines()?,
        "stages": rows.collect::<Vec<Value>>(),
        "notices": findings::gather(view)?,
        "final": { "student": folder("student")?, "teacher": folder("teacher")? },
    }))
}

#[cfg(test)]
mod tests;
