//! A run for reading, as `report`, `grade`, `ls`, `chat` and `eval` need it. It takes no lock and changes nothing, so
//! it can be opened while the run is working. It then shows everything that exists, committed or not.
//!
//! Read next: [`crate::ledger::rows`], for what the rows mean.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::layout::{LEDGER, METRICS, RECIPE, model_path};
use crate::ledger::Ledger;
use crate::ledger::rows::StageRow;
use crate::metrics::StepMetrics;
use crate::rollouts::Rollout;
use crate::run::files;
use crate::{lock, metrics, recipe};

/// One run, read only.
#[derive(Debug)]
pub struct RunView {
    name: String,
    folder: PathBuf,
    recipe: String,
    ledger: Ledger,
}

impl RunView {
    pub(crate) fn open(name: &str, folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(RECIPE);
        let recipe = fs::read_to_string(&path).map_err(|e| StoreError::io("read", &path, e))?;
        let ledger = Ledger::open_to_read(&folder.join(LEDGER))?;
        Ok(RunView { name: name.to_owned(), folder: folder.to_path_buf(), recipe, ledger })
    }

    /// The run's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a process works on it now.
    pub fn is_locked(&self) -> bool {
        lock::is_locked(&self.folder)
    }

    /// The resolved recipe as it was stored.
    pub fn recipe_text(&self) -> &str {
        &self.recipe
    }

    /// The resolved recipe, parsed.
    ///
    /// # Errors
    /// [`StoreError::RecipeSyntax`].
    pub fn recipe(&self) -> Result<toml::Table, StoreError> {
        recipe::parse(&self.recipe, &self.folder.join(RECIPE))
    }

    /// The ledger: stages, baselines, labels, lineage, notices. Writing to it is an error.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The metrics of every step, in order.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] naming the line, [`StoreError::Io`].
    pub fn metrics(&self) -> Result<Vec<StepMetrics>, StoreError> {
        metrics::read(&self.folder.join(METRICS))
    }

    /// The steps of a stage whose completions are stored, in increasing order.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn rollout_steps(&self, stage: &str) -> Result<Vec<u64>, StoreError> {
        self.ledger.rollout_steps(stage)
    }

    /// The completions of one step.
    ///
    /// # Errors
    /// [`StoreError::Io`] if there are none; [`StoreError::Damaged`] if the file is not the one that was written.
    pub fn rollouts(&self, stage: &str, step: u64) -> Result<Vec<Rollout>, StoreError> {
        files::rollouts(&self.folder, &self.ledger, stage, step)
    }

    /// The folder of the model that a stage exported, with every file as the stage wrote it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] naming the file that was changed or is gone; [`StoreError::Io`].
    pub fn exported_model(&self, stage: &str) -> Result<PathBuf, StoreError> {
        files::exported_model(&self.folder, &self.ledger, stage)
    }

    /// The model that a stage exported, if it did.
    pub fn model(&self, stage: &str) -> Option<PathBuf> {
        Some(model_path(&self.folder, stage)).filter(|path| path.is_dir())
    }

    /// The last exported model of that name ("teacher", "student"), with the stage that made it.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn final_model(&self, model: &str) -> Result<Option<(StageRow, PathBuf)>, StoreError> {
        let made = |row: StageRow| (row.model == model).then(|| self.model(&row.stage).map(|path| (row, path)))?;
        Ok(self.ledger.stages()?.into_iter().rev().find_map(made))
    }
}
