//! The user's texts as stages read them: without those that hold a held-out case, and with a word on what was left out.

use std::path::PathBuf;

use crate::data::held_out::HeldOut;
use crate::data::texts::{self, Text};
use crate::error::TrainError;
use crate::walk::Walk;

/// The texts of files and folders that may be trained on, by id.
///
/// # Errors
/// As [`texts::read`]; texts of which each holds a held-out case.
pub(super) fn kept(paths: &[PathBuf], walk: &mut Walk) -> Result<Vec<Text>, TrainError> {
    let found = texts::read(paths)?;
    let eval = &walk.recipe.eval;
    let held_out = HeldOut::of(walk.task.kept_out(eval.cases.max(eval.unseen_cases), walk.recipe.seed)?);
    let all = found.texts.len();
    let kept: Vec<Text> = found.texts.into_iter().filter(|text| !held_out.is_in(&text.text)).collect();
    if kept.is_empty() {
        let hint = "train on texts that the cases were not taken from";
        return Err(TrainError::stage(walk.stage, "every text holds a held-out case", hint));
    }
    walk.observer.notice(&format!(
        "{}: {} texts; left out: {} that hold a held-out case, {} repeated, {} blank; {} files of other kinds",
        walk.stage,
        kept.len(),
        all - kept.len(),
        found.repeated,
        found.blank,
        found.passed_over,
    ));
    Ok(kept)
}
