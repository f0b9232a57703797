//! The user's texts as stages read them: without those that were withdrawn or hold a held-out case, and with a word on what was left out.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::data::held_out::HeldOut;
use crate::data::texts::{self, Text};
use crate::error::TrainError;
use crate::tasks::TaskError;
use crate::walk::Walk;

/// The texts of files and folders that may be trained on, by id.
///
/// # Errors
/// As [`texts::read`]; texts of which each holds a held-out case; one that was withdrawn since the run began.
pub(super) fn kept(paths: &[PathBuf], walk: &mut Walk) -> Result<Vec<Text>, TrainError> {
    let mut found = texts::read(paths)?;
    let withdrawn: HashSet<String> = walk.run.ledger().withdrawn()?.into_iter().collect();
    found.texts.retain(|text| !withdrawn.contains(&text.id));
    if let Some(text) = found.texts.iter().find(|text| walk.run.withdrawn_since().contains(&text.id)) {
        return Err(TaskError::Withdrawn { id: text.id.clone() }.into());
    }
    let cases = walk.recipe.heldout_cases().max(walk.recipe.eval.unseen_cases);
    let held_out = HeldOut::of(walk.task.kept_out(cases, walk.recipe.seed)?);
    let all = found.texts.len();
    let kept: Vec<Text> = found.texts.into_iter().filter(|text| !held_out.is_in(&text.text)).collect();
    if kept.is_empty() {
        let hint = "train on texts that the cases were not taken from";
        return Err(TrainError::stage(walk.stage, "every text holds a held-out case", hint));
    }
    walk.note_uses("document", kept.iter().map(|text| &text.id))?;
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
