//! One run at work: what training writes, and how it is committed.
//!
//! Training calls [`Run::log_step`], [`Run::write_rollouts`] and the [`Ledger`], then [`Run::commit`]. That call takes
//! the marks, so anything written while the background writer works belongs to the next checkpoint.
//!
//! This module never decides when to checkpoint, and it never deletes a run.
//!
//! Read next: `run/resume.rs` (what opening a run drops), then [`crate::checkpoint`] and [`crate::ledger`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::checkpoint::{self, Checkpoint, Committed, Manifest};
use crate::digest;
use crate::disk::{Disk, TEMPORARY, entries};
use crate::error::StoreError;
use crate::layout::{METRICS, MODELS, ROLLOUTS, rollout_path};
use crate::ledger::Ledger;
use crate::ledger::rows::{Notice, RolloutFile};
use crate::lock::FolderLock;
use crate::metrics::{MetricsFile, StepMetrics};
use crate::names;
use crate::rollouts::{self, Rollout};
use crate::writer::{Job, Writer};

pub(crate) mod files;
pub(crate) mod resume;

/// A run that this process works on. All methods may be called from any thread.
pub struct Run {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    ledger: Ledger,
    metrics: Mutex<MetricsFile>,
    /// The files that were written since the last commit and are not synced yet, and the next checkpoint's number.
    open: Mutex<Uncommitted>,
    writer: Writer,
    resumed: Option<Committed>,
    notices: Vec<Notice>,
    withdrawn_since: BTreeSet<String>,
    lock: FolderLock,
}

struct Uncommitted {
    sequence: u64,
    to_sync: BTreeSet<PathBuf>,
}

impl Run {
    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The checkpoint to resume from; none for a new run.
    pub fn resumed(&self) -> Option<&Committed> {
        self.resumed.as_ref()
    }

    /// What a person should know about opening the run: damaged checkpoints, withdrawals, the resumption itself.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Records withdrawn after this run began. A trainer that finds one of them in its data should refuse to go on.
    pub fn withdrawn_since(&self) -> &BTreeSet<String> {
        &self.withdrawn_since
    }

    /// Adds the metrics of a step.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Io`]; the file is unchanged.
    ///
    /// # Panics
    /// When a number is named `stage` or `step`.
    pub fn log_step(&self, metrics: &StepMetrics) -> Result<(), StoreError> {
        guard(&self.metrics).append(metrics)
    }

    /// Writes the completions of a step, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Io`], [`StoreError::BadName`]; [`StoreError::Ledger`] if the step's file
    /// was written before.
    ///
    /// # Panics
    /// When a row has another number of log-probabilities than of tokens.
    pub fn write_rollouts(&self, stage: &str, step: u64, rows: &[Rollout]) -> Result<(), StoreError> {
        names::check("stage", stage)?;
        let path = rollout_path(&self.folder, stage, step);
        let folder = path.parent().expect("a rollout file lies in a stage's folder");
        let bytes = rollouts::encode(&path, stage, step, rows)?;
        self.disk.create_dir_all(folder).map_err(|e| StoreError::io("make", folder, e))?;
        let fail = |e| StoreError::io("write", &path, e);
        let mut file = self.disk.temporary(folder).map_err(fail)?;
        file.write_all(&bytes).map_err(fail)?;
        // The ledger row is written first, so that a step written twice is refused before its file is touched. Neither
        // has to be durable before the checkpoint that refers to them, and that checkpoint syncs the file before it is
        // committed.
        let blake3 = blake3::hash(&bytes).to_hex().to_string();
        self.ledger.record_rollout_file(&RolloutFile {
            stage: stage.to_owned(),
            step,
            rows: rows.len() as u64,
            blake3,
        })?;
        let all = self.folder.join(ROLLOUTS);
        guard(&self.open).to_sync.extend([path.clone(), folder.to_path_buf(), all, self.folder.clone()]);
        file.persist(&path).map_err(fail)
    }

    /// The steps of a stage whose completions are stored, in increasing order.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn rollout_steps(&self, stage: &str) -> Result<Vec<u64>, StoreError> {
        self.ledger.rollout_steps(stage)
    }

    /// The completions of one step, as [`Run::write_rollouts`] wrote them.
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

    /// Hands a checkpoint to the background writer. It covers everything that was logged, written and recorded until
    /// now.
    ///
    /// Returns once the writer has taken it. If the writer still works on the checkpoint before, it waits.
    ///
    /// # Errors
    /// A bad name in this checkpoint; or the error of the checkpoint *before*, above all [`StoreError::DiskFull`]. The
    /// run may then continue or stop: the last committed checkpoint is intact.
    pub fn commit(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        checkpoint::check(&checkpoint)?;
        self.lock.check_in_place(&self.folder)?;
        let metrics = {
            let metrics = guard(&self.metrics);
            (metrics.bytes(), metrics.blake3())
        };
        let ledger = self.ledger.sealed()?;
        let (sequence, mut to_sync) = {
            let mut open = guard(&self.open);
            open.sequence += 1;
            (open.sequence, open.to_sync.clone())
        };
        to_sync.insert(self.folder.join(METRICS));
        let manifest = Manifest::new(sequence, &checkpoint, metrics, ledger);
        self.writer.submit(Job {
            manifest,
            blobs: checkpoint.blobs,
            sync_before: to_sync.iter().cloned().collect(),
        })?;
        // The writer syncs what was handed over. If it fails, the run stops, and the files are dropped or synced again when it is opened.
        guard(&self.open).to_sync.retain(|path| !to_sync.contains(path));
        Ok(())
    }

    /// Waits until every checkpoint that was handed over is committed.
    ///
    /// # Errors
    /// The first error of the writer.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.writer.flush()
    }

    /// Begins to export a model for `stage`: write any files into [`Export::folder`], then [`Export::finish`].
    ///
    /// # Errors
    /// [`StoreError::BadName`], [`StoreError::DiskFull`], [`StoreError::Io`].
    pub fn begin_export(&self, stage: &str) -> Result<Export<'_>, StoreError> {
        names::check("stage", stage)?;
        let models = self.folder.join(MODELS);
        let temporary = models.join(format!("{TEMPORARY}{stage}"));
        self.disk.remove(&temporary).map_err(|e| StoreError::io("remove", &temporary, e))?;
        self.disk.create_dir_all(&temporary).map_err(|e| StoreError::io("make", &temporary, e))?;
        Ok(Export {
            disk: &*self.disk,
            ledger: &self.ledger,
            stage: stage.to_owned(),
            temporary,
            target: models.join(stage),
        })
    }
}

/// A model that is being exported. It gets its final name when it is whole.
pub struct Export<'a> {
    disk: &'a dyn Disk,
    ledger: &'a Ledger,
    stage: String,
    temporary: PathBuf,
    target: PathBuf,
}

impl Export<'_> {
    /// Where to write the model's files.
    pub fn folder(&self) -> &Path {
        &self.temporary
    }

    /// Makes the files durable, renames the folder to `models/<stage>` and records the files' hashes in the ledger. An older export
    /// there is replaced.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Io`], [`StoreError::Ledger`].
    pub fn finish(self) -> Result<PathBuf, StoreError> {
        let sync = |path: &Path| self.disk.sync(path).map_err(|e| StoreError::io("sync", path, e));
        let mut files = Vec::new();
        for entry in entries(&self.temporary)? {
            let path = entry.path();
            sync(&path)?;
            files.push((entry.file_name().to_string_lossy().into_owned(), digest::of_file(&path)?));
        }
        sync(&self.temporary)?;
        self.disk.remove(&self.target).map_err(|e| StoreError::io("remove", &self.target, e))?;
        self.disk.rename(&self.temporary, &self.target).map_err(|e| StoreError::io("rename", &self.target, e))?;
        sync(self.target.parent().expect("a model lies in the models' folder"))?;
        self.ledger.record_exported(&self.stage, &files)?;
        Ok(self.target.clone())
    }
}

/// An export that was not finished is removed.
impl Drop for Export<'_> {
    fn drop(&mut self) {
        // If that fails, opening the run removes it.
        let _ = self.disk.remove(&self.temporary);
    }
}

/// A poisoned lock means that a caller panicked. File lengths and lists are updated last, so they are still right.
fn guard<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
