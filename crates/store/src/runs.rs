//! The folder of runs: lists them, makes or resumes one, and withdraws a record from all of them.
//!
//! Read next: [`crate::run`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, RealDisk, entries};
use crate::error::StoreError;
use crate::layout::{CHECKPOINTS, RECIPE};
use crate::run::Run;
use crate::view::RunView;
use crate::{checkpoint, lock, names, withdrawals};

/// A folder of runs.
#[derive(Clone)]
pub struct Runs {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
}

/// One line of `ferule ls`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RunSummary {
    /// The run.
    pub name: String,
    /// Stages that are finished, in order.
    pub stages_finished: Vec<String>,
    /// Stage of the newest checkpoint.
    pub stage: Option<String>,
    /// Step of the newest checkpoint.
    pub step: Option<u64>,
    /// Whether a process works on it now.
    pub locked: bool,
    /// Why it could not be read; none if it could.
    pub problem: Option<String>,
}

impl Runs {
    /// The runs in `folder`, which need not exist yet.
    pub fn open(folder: impl Into<PathBuf>) -> Self {
        Self::open_on(folder, Arc::new(RealDisk))
    }

    /// The same, on another [`Disk`].
    pub fn open_on(folder: impl Into<PathBuf>, disk: Arc<dyn Disk>) -> Self {
        Runs { folder: folder.into(), disk }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Creates the run `name`, or resumes it from its last commit.
    ///
    /// `resolved_recipe` is TOML. For an existing run it must equal the stored recipe, key by key.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::RecipeChanged`], [`StoreError::RecipeSyntax`], [`StoreError::BadName`],
    /// [`StoreError::NoGoodCheckpoint`], [`StoreError::DiskFull`], and failures of the file system and the ledger.
    pub fn create_or_resume(&self, name: &str, resolved_recipe: &str) -> Result<Run, StoreError> {
        names::check("run", name)?;
        Run::open(&self.disk, &self.folder, name, resolved_recipe)
    }

    /// A run for reading, whether or not a process works on it.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRun`], which names the existing runs; otherwise the errors of reading.
    pub fn view(&self, name: &str) -> Result<RunView, StoreError> {
        names::check("run", name)?;
        let folder = self.folder.join(name);
        if !folder.join(RECIPE).is_file() {
            return Err(StoreError::NoSuchRun { path: folder, known: self.names()? });
        }
        RunView::open(name, &folder)
    }

    /// Names of all runs, sorted.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let name =
            |e: fs::DirEntry| e.path().join(RECIPE).is_file().then(|| e.file_name().to_string_lossy().into_owned());
        Ok(entries(&self.folder)?.into_iter().filter_map(name).collect())
    }

    /// All runs, and how far each has come. A run that cannot be read is listed with its problem.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder itself cannot be listed.
    pub fn list(&self) -> Result<Vec<RunSummary>, StoreError> {
        Ok(self.names()?.into_iter().map(|name| self.summary(name)).collect())
    }

    fn summary(&self, name: String) -> RunSummary {
        let folder = self.folder.join(&name);
        let stages = self.view(&name).and_then(|view| view.ledger().stages());
        let newest = checkpoint::list(&folder.join(CHECKPOINTS)).unwrap_or_default();
        let newest = newest.iter().find_map(|(_, folder)| checkpoint::read_manifest(folder).ok());
        RunSummary {
            locked: lock::is_locked(&folder),
            problem: stages.as_ref().err().map(ToString::to_string),
            stages_finished: stages.unwrap_or_default().into_iter().map(|row| row.stage).collect(),
            step: newest.as_ref().map(|m| m.step),
            stage: newest.map(|m| m.stage),
            name,
        }
    }

    /// Withdraws a record: runs that begin from now on never use it.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Io`], [`StoreError::Damaged`].
    pub fn withdraw(&self, record_id: &str, reason: &str) -> Result<(), StoreError> {
        withdrawals::add(&*self.disk, &self.folder, record_id, reason)
    }

    /// Takes a withdrawal back: runs that begin from now on use the record again. Returns whether it was withdrawn.
    ///
    /// # Errors
    /// As [`Self::withdraw`].
    pub fn restore(&self, record_id: &str) -> Result<bool, StoreError> {
        withdrawals::remove(&*self.disk, &self.folder, record_id)
    }

    /// The runs that began while a record was withdrawn. They leave it out for good.
    ///
    /// # Errors
    /// The errors of reading a run.
    pub fn without(&self, record_id: &str) -> Result<Vec<String>, StoreError> {
        let mut runs = Vec::new();
        for name in self.names()? {
            if self.view(&name)?.ledger().withdrawn()?.iter().any(|id| id == record_id) {
                runs.push(name);
            }
        }
        Ok(runs)
    }

    /// Whether any run has used a record.
    ///
    /// # Errors
    /// The errors of reading a run.
    pub fn knows(&self, record_id: &str) -> Result<bool, StoreError> {
        for name in self.names()? {
            if !self.view(&name)?.ledger().used_by(record_id)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All records withdrawn so far.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Damaged`].
    pub fn withdrawn(&self) -> Result<BTreeSet<String>, StoreError> {
        withdrawals::read(&self.folder)
    }

    /// Every model of every run that a record touched, as (run, digest).
    ///
    /// # Errors
    /// The errors of reading a run.
    pub fn touched_by(&self, record_id: &str) -> Result<Vec<(String, String)>, StoreError> {
        let mut touched = Vec::new();
        for name in self.names()? {
            let digests = self.view(&name)?.ledger().touched_by(record_id)?;
            touched.extend(digests.into_iter().map(|digest| (name.clone(), digest)));
        }
        Ok(touched)
    }
}
