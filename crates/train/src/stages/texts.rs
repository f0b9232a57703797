//! The user's texts for training. Texts that were withdrawn or that hold a held-out case are left out, and a notice counts them.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::error::TrainError;
use crate::recipe::outline::heldout_cases;
use crate::trainer::Trainer;
use tasks::data::held_out::HeldOut;
use tasks::data::texts::{self, Text};

/// The texts of files and folders that may be trained on, in the order of their ids.
///
/// # Errors
/// As [`texts::read`]; every text holds a held-out case; a text was withdrawn since the run began.
pub(super) fn kept(paths: &[PathBuf], trainer: &mut Trainer) -> Result<Vec<Text>, TrainError> {
    let mut found = texts::read(paths)?;
    let withdrawn: HashSet<String> = trainer.run.ledger().withdrawn()?.into_iter().collect();
    let before = found.texts.len();
    found.texts.retain(|text| !withdrawn.contains(&text.id));
    if let Some(text) = found.texts.iter().find(|text| trainer.run.withdrawn_since().contains(&text.id)) {
        return Err(tasks::withdrawn(&text.id).into());
    }
    let cases = heldout_cases(trainer.settings, trainer.stages).max(trainer.settings.eval.unseen_cases);
    let held_out = HeldOut::of(trainer.task.kept_out(cases, trainer.settings.seed)?);
    let all = found.texts.len();
    let kept: Vec<Text> = found.texts.into_iter().filter(|text| !held_out.is_in(&text.text)).collect();
    if kept.is_empty() {
        let hint = "train on texts that the cases were not taken from";
        return Err(TrainError::stage(trainer.stage, "every text holds a held-out case", hint));
    }
    trainer.note_uses("document", kept.iter().map(|text| &text.id))?;
    let (held_out, withdrawn) = (all - kept.len(), before - all);
    let left_out = held_out + withdrawn + found.repeated + found.blank + found.passed_over;
    let text = format!(
        "{}: {} texts; left out: {held_out} that hold a held-out case, {withdrawn} withdrawn, {} repeated, {} blank; {} files of other kinds",
        trainer.stage,
        kept.len(),
        found.repeated,
        found.blank,
        found.passed_over,
    );
    trainer.notice("texts_left_out", left_out as u64, text)?;
    Ok(kept)
}
