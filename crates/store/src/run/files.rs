//! Reads what a run wrote earlier, and checks that it is still the same.
//!
//! The ledger has the BLAKE3 of every rollout file and of every file of an exported model.

use std::path::{Path, PathBuf};

use crate::digest;
use crate::error::StoreError;
use crate::layout::{model_path, rollout_path};
use crate::ledger::Ledger;
use crate::rollouts::{self, Rollout};

/// What to do about a damaged file that a stage wrote.
const REPEAT: &str =
    "bring the file back, or write it anew: --from and the name of the stage that made it repeats that stage";

/// The completions of one step of the run in `folder`.
pub(crate) fn rollouts(folder: &Path, ledger: &Ledger, stage: &str, step: u64) -> Result<Vec<Rollout>, StoreError> {
    let path = rollout_path(folder, stage, step);
    if let Some(known) = ledger.rollout_hash(stage, step)? {
        check(&path, &known)?;
    }
    rollouts::read(&path)
}

/// The folder of a stage's exported model. A file that was added to it is not looked at.
pub(crate) fn exported_model(folder: &Path, ledger: &Ledger, stage: &str) -> Result<PathBuf, StoreError> {
    let model = model_path(folder, stage);
    for (name, blake3) in ledger.exported(stage)? {
        check(&model.join(name), &blake3)?;
    }
    Ok(model)
}

/// The run's rollout files that are gone or changed, each with the reason.
pub(crate) fn damaged_rollouts(folder: &Path, ledger: &Ledger) -> Result<Vec<String>, StoreError> {
    let files = ledger.rollout_files()?.into_iter();
    let reason = |file: crate::ledger::rows::RolloutFile| {
        check(&rollout_path(folder, &file.stage, file.step), &file.blake3).err().map(|error| error.to_string())
    };
    Ok(files.filter_map(reason).collect())
}

fn check(path: &Path, known: &str) -> Result<(), StoreError> {
    if digest::of_file(path)? == known {
        return Ok(());
    }
    let reason = "its BLAKE3 is not the one in the ledger".to_owned();
    Err(StoreError::Damaged { path: path.to_path_buf(), reason, hint: REPEAT })
}
