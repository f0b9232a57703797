//! Runs: making one, going on with one, and what is dropped on the way.
//!
//! Opening a run, in order: take the lock; refuse a changed recipe (nothing has been touched yet); remove what an interrupted
//! write left; find the newest checkpoint of which every byte is good and whose marks the ledger and the metrics reach; cut both back to the marks;
//! remove rollout files that the ledger no longer knows. Each of these can be killed and done again.
//!
//! While it runs, training calls [`Run::log_step`], [`Run::write_rollouts`] and the [`Ledger`], then [`Run::commit`]: the
//! marks are taken at that call, so what is written while the background writer works belongs to the next checkpoint.
//!
//! It never decides when to checkpoint, and it never deletes a run.
//!
//! Read next: [`crate::checkpoint`], then [`crate::ledger`].

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::checkpoint::{self, Checkpoint, Committed, Manifest};
use crate::disk::{Disk, RealDisk, TEMPORARY, entries, remove_leftovers, write_whole};
use crate::ledger::rows::{Notice, Opening, RolloutFile};
use crate::lock::RunLock;
use crate::metrics::{MetricsFile, StepMetrics};
use crate::rollouts::{self, Rollout};
use crate::withdrawals;
use crate::writer::{Job, Writer};
use crate::{Ledger, RunView, StoreError, lock, names, recipe};

/// A folder of runs.
#[derive(Clone)]
pub struct Runs {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
}

/// How a run is kept.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Checkpoints kept, at least 1.
    pub keep_checkpoints: usize,
    /// Keys of the recipe that may change between one opening and the next, since results do not depend on them: "threads".
    pub keys_that_may_change: Vec<String>,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            keep_checkpoints: 2,
            keys_that_may_change: Vec::new(),
        }
    }
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
    /// Why it could not be looked at, where it could not.
    pub problem: Option<String>,
}

impl Runs {
    /// The runs in `folder`, which need not exist yet.
    pub fn open(folder: impl Into<PathBuf>) -> Self {
        Self::open_on(folder, Arc::new(RealDisk))
    }

    /// The same on another [`Disk`].
    pub fn open_on(folder: impl Into<PathBuf>, disk: Arc<dyn Disk>) -> Self {
        Runs {
            folder: folder.into(),
            disk,
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the run `name`, or goes on with it from its last commit.
    ///
    /// `resolved_recipe` is TOML; under an existing name it must equal the one the run was made with, key by key.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::RecipeChanged`], [`StoreError::RecipeSyntax`], [`StoreError::BadName`],
    /// [`StoreError::NoGoodCheckpoint`], [`StoreError::DiskFull`], and failures of the file system and the ledger.
    pub fn create_or_resume(
        &self,
        name: &str,
        resolved_recipe: &str,
        options: &RunOptions,
    ) -> Result<Run, StoreError> {
        names::check("run", name)?;
        Run::open(self, name, resolved_recipe, options)
    }

    /// A run for reading, whether or not a process works on it.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRun`] naming those that exist; otherwise as reading fails.
    pub fn view(&self, name: &str) -> Result<RunView, StoreError> {
        names::check("run", name)?;
        let folder = self.folder.join(name);
        if !folder.join(RECIPE).is_file() {
            return Err(StoreError::NoSuchRun {
                path: folder,
                known: self.names()?,
            });
        }
        RunView::open(name, &folder)
    }

    /// Names of all runs, sorted.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let name = |e: fs::DirEntry| {
            e.path()
                .join(RECIPE)
                .is_file()
                .then(|| e.file_name().to_string_lossy().into_owned())
        };
        Ok(entries(&self.folder)?
            .into_iter()
            .filter_map(name)
            .collect())
    }

    /// All runs with where they stand. A run that cannot be read is listed with its problem.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the folder itself cannot be listed.
    pub fn list(&self) -> Result<Vec<RunSummary>, StoreError> {
        Ok(self
            .names()?
            .into_iter()
            .map(|name| self.summary(name))
            .collect())
    }

    fn summary(&self, name: String) -> RunSummary {
        let folder = self.folder.join(&name);
        let stages = self.view(&name).and_then(|view| view.ledger().stages());
        let newest = checkpoint::list(&folder.join(CHECKPOINTS)).unwrap_or_default();
        let newest = newest
            .iter()
            .find_map(|(_, folder)| checkpoint::read_manifest(folder).ok());
        RunSummary {
            locked: lock::is_locked(&folder),
            problem: stages.as_ref().err().map(ToString::to_string),
            stages_finished: stages
                .unwrap_or_default()
                .into_iter()
                .map(|row| row.stage)
                .collect(),
            step: newest.as_ref().map(|m| m.step),
            stage: newest.map(|m| m.stage),
            name,
        }
    }

    /// Withdraws a record: runs that begin from now on are told never to touch it.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Io`], [`StoreError::Damaged`].
    pub fn withdraw(&self, record_id: &str, reason: &str) -> Result<(), StoreError> {
        withdrawals::add(&*self.disk, &self.folder, record_id, reason)
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
    /// As reading a run fails.
    pub fn touched_by(&self, record_id: &str) -> Result<Vec<(String, String)>, StoreError> {
        let mut touched = Vec::new();
        for name in self.names()? {
            let digests = self.view(&name)?.ledger().touched_by(record_id)?;
            touched.extend(digests.into_iter().map(|digest| (name.clone(), digest)));
        }
        Ok(touched)
    }
}

pub(crate) const RECIPE: &str = "recipe.toml";
pub(crate) const LEDGER: &str = "ledger.sqlite";
pub(crate) const METRICS: &str = "metrics.jsonl";
pub(crate) const CHECKPOINTS: &str = "checkpoints";
const ROLLOUTS: &str = "rollouts";
const MODELS: &str = "models";

/// A run that this process works on. All methods may be called from any thread.
pub struct Run {
    name: String,
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    ledger: Ledger,
    metrics: Mutex<MetricsFile>,
    /// Written since the last commit and not synced yet, and the next checkpoint's number.
    open: Mutex<Uncommitted>,
    writer: Writer,
    resumed: Option<Committed>,
    notices: Vec<Notice>,
    withdrawn_since: BTreeSet<String>,
    _lock: RunLock,
}

struct Uncommitted {
    sequence: u64,
    to_sync: BTreeSet<PathBuf>,
}

impl Run {
    fn open(
        runs: &Runs,
        name: &str,
        resolved_recipe: &str,
        options: &RunOptions,
    ) -> Result<Self, StoreError> {
        let (disk, folder) = (&runs.disk, runs.folder.join(name));
        let parsed = recipe::parse(resolved_recipe, &folder.join(RECIPE))?;
        disk.create_dir_all(&folder)
            .map_err(|e| StoreError::io("make", &folder, e))?;
        let lock = RunLock::take(&folder, name)?;
        let mut notices = settle_recipe(&**disk, &folder, name, resolved_recipe, &parsed, options)?;
        disk.sync(&runs.folder)
            .map_err(|e| StoreError::io("sync", &runs.folder, e))?;
        let checkpoints = folder.join(CHECKPOINTS);
        disk.create_dir_all(&checkpoints)
            .map_err(|e| StoreError::io("make", &checkpoints, e))?;
        for folder in [&folder, &checkpoints, &folder.join(MODELS)] {
            remove_leftovers(&**disk, folder)?;
        }

        let ledger = Ledger::open(&folder.join(LEDGER))?;
        let (resumed, sequence) = newest_good(&**disk, &folder, &ledger, &mut notices)?;
        let marks = resumed
            .as_ref()
            .map(|c| c.manifest().ledger.clone())
            .unwrap_or_default();
        let metrics_bytes = resumed.as_ref().map_or(0, |c| c.manifest().metrics_bytes);
        ledger.cut_back(&marks)?;
        let metrics = MetricsFile::open(&**disk, &folder.join(METRICS), metrics_bytes)?;
        drop_unknown_rollouts(&**disk, &folder, &ledger)?;

        let withdrawn = runs.withdrawn()?;
        if ledger.openings()?.is_empty() {
            ledger.set_withdrawn(&withdrawn.iter().cloned().collect::<Vec<_>>())?;
        }
        let known: BTreeSet<String> = ledger.withdrawn()?.into_iter().collect();
        let withdrawn_since: BTreeSet<String> = withdrawn.difference(&known).cloned().collect();
        if !withdrawn_since.is_empty() {
            notices.push(notice("withdrawn_since", withdrawn_since.len() as u64, "records were withdrawn after this run began; a run under a new name leaves them out".to_owned()));
        }
        if let Some(c) = &resumed {
            notices.push(notice(
                "resumed",
                1,
                format!("going on from {} step {}", c.stage(), c.step()),
            ));
        }
        ledger.record_opening(&Opening {
            unix_seconds: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_secs()),
            checkpoint: resumed
                .as_ref()
                .map(|c| format!("{} step {}", c.stage(), c.step())),
            notices: notices.clone(),
        })?;
        let writer = Writer::start(disk.clone(), checkpoints, options.keep_checkpoints.max(1))?;
        Ok(Run {
            name: name.to_owned(),
            folder,
            disk: disk.clone(),
            ledger,
            metrics: Mutex::new(metrics),
            open: Mutex::new(Uncommitted {
                sequence,
                to_sync: BTreeSet::new(),
            }),
            writer,
            resumed,
            notices,
            withdrawn_since,
            _lock: lock,
        })
    }

    /// The run's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The checkpoint to go on from; none for a run that begins.
    pub fn resumed(&self) -> Option<&Committed> {
        self.resumed.as_ref()
    }

    /// What opening the run found that a person should hear: damaged checkpoints, changed keys, withdrawals, the resumption itself.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Records withdrawn after this run began. A trainer whose data hold one of them should refuse to go on.
    pub fn withdrawn_since(&self) -> &BTreeSet<String> {
        &self.withdrawn_since
    }

    /// Adds the metrics of a step.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Io`]; the file is as it was.
    ///
    /// # Panics
    /// Where a number is named `stage` or `step`.
    pub fn log_step(&self, metrics: &StepMetrics) -> Result<(), StoreError> {
        guard(&self.metrics).append(metrics)
    }

    /// Writes the completions of a step, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Io`], [`StoreError::BadName`]; [`StoreError::Ledger`] where the step's file was
    /// written before.
    ///
    /// # Panics
    /// Where a row's log-probs are not as many as its tokens.
    pub fn write_rollouts(
        &self,
        stage: &str,
        step: u64,
        rows: &[Rollout],
    ) -> Result<(), StoreError> {
        names::check("stage", stage)?;
        let path = rollout_path(&self.folder, stage, step);
        let folder = path
            .parent()
            .expect("a rollout file lies in a stage's folder");
        let bytes = rollouts::encode(&path, stage, step, rows)?;
        self.disk
            .create_dir_all(folder)
            .map_err(|e| StoreError::io("make", folder, e))?;
        let temporary = folder.join(format!("{TEMPORARY}step-{step:06}.parquet"));
        let written = self
            .disk
            .create(&temporary)
            .and_then(|mut file| file.write_all(&bytes));
        if let Err(e) = written {
            let _ = self.disk.remove(&temporary);
            return Err(StoreError::io("write", &path, e));
        }
        // The row comes first, so that a step written twice is refused before its file is touched. Neither need be durable
        // before the checkpoint that speaks of them, which cannot be committed without the file.
        let blake3 = blake3::hash(&bytes).to_hex().to_string();
        self.ledger.record_rollout_file(&RolloutFile {
            stage: stage.to_owned(),
            step,
            rows: rows.len() as u64,
            blake3,
        })?;
        let all = self.folder.join(ROLLOUTS);
        guard(&self.open).to_sync.extend([
            path.clone(),
            folder.to_path_buf(),
            all,
            self.folder.clone(),
        ]);
        self.disk
            .rename(&temporary, &path)
            .map_err(|e| StoreError::io("rename", &path, e))
    }

    /// Hands a checkpoint to the background writer. What was logged, written and recorded until now belongs to it.
    ///
    /// Returns once the writer has taken it, which may mean waiting for the one before.
    ///
    /// # Errors
    /// Those of this checkpoint's names; and whatever the checkpoint *before* met, [`StoreError::DiskFull`] above all. The run may go
    /// on or stop then: the last committed checkpoint stands.
    pub fn commit(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        checkpoint::check(&checkpoint)?;
        let metrics_bytes = guard(&self.metrics).bytes();
        let marks = self.ledger.marks()?;
        let (sequence, mut to_sync) = {
            let mut open = guard(&self.open);
            open.sequence += 1;
            (open.sequence, open.to_sync.clone())
        };
        to_sync.insert(self.folder.join(METRICS));
        let manifest = Manifest::new(sequence, &checkpoint, metrics_bytes, marks);
        self.writer.submit(Job {
            manifest,
            blobs: checkpoint.blobs,
            sync_before: to_sync.iter().cloned().collect(),
        })?;
        // Only what was handed over is done with; should the writer fail, the run stops and its files are dropped or synced anew.
        guard(&self.open)
            .to_sync
            .retain(|path| !to_sync.contains(path));
        Ok(())
    }

    /// Waits until every checkpoint handed over is committed.
    ///
    /// # Errors
    /// What the writer met.
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
        self.disk
            .remove(&temporary)
            .map_err(|e| StoreError::io("remove", &temporary, e))?;
        self.disk
            .create_dir_all(&temporary)
            .map_err(|e| StoreError::io("make", &temporary, e))?;
        Ok(Export {
            disk: &*self.disk,
            temporary,
            target: models.join(stage),
        })
    }
}

/// A model being exported; it appears under its name when it is whole.
pub struct Export<'a> {
    disk: &'a dyn Disk,
    temporary: PathBuf,
    target: PathBuf,
}

impl Export<'_> {
    /// Where to write the model's files.
    pub fn folder(&self) -> &Path {
        &self.temporary
    }

    /// Makes the files durable and puts the folder in its place, `models/<stage>`, over an older one.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Io`].
    pub fn finish(self) -> Result<PathBuf, StoreError> {
        let sync = |path: &Path| {
            self.disk
                .sync(path)
                .map_err(|e| StoreError::io("sync", path, e))
        };
        for entry in entries(&self.temporary)? {
            sync(&entry.path())?;
        }
        sync(&self.temporary)?;
        self.disk
            .remove(&self.target)
            .map_err(|e| StoreError::io("remove", &self.target, e))?;
        self.disk
            .rename(&self.temporary, &self.target)
            .map_err(|e| StoreError::io("rename", &self.target, e))?;
        sync(
            self.target
                .parent()
                .expect("a model lies in the models' folder"),
        )?;
        Ok(self.target.clone())
    }
}

pub(crate) fn rollout_path(run: &Path, stage: &str, step: u64) -> PathBuf {
    run.join(ROLLOUTS)
        .join(stage)
        .join(format!("step-{step:06}.parquet"))
}

pub(crate) fn model_path(run: &Path, stage: &str) -> PathBuf {
    run.join(MODELS).join(stage)
}

/// A poisoned lock means that a caller panicked; file lengths and lists are updated last, so they are still right.
fn guard<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn notice(kind: &str, count: u64, text: String) -> Notice {
    Notice {
        kind: kind.to_owned(),
        stage: None,
        step: None,
        text,
        count,
    }
}

/// Writes the recipe of a new run, or compares it with the one that stands.
fn settle_recipe(
    disk: &dyn Disk,
    folder: &Path,
    name: &str,
    resolved: &str,
    parsed: &toml::Table,
    options: &RunOptions,
) -> Result<Vec<Notice>, StoreError> {
    let path = folder.join(RECIPE);
    let stored = match fs::read_to_string(&path) {
        Ok(text) => recipe::parse(&text, &path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if !checkpoint::list(&folder.join(CHECKPOINTS))?.is_empty() {
                return Err(StoreError::Damaged {
                    path,
                    reason: "the run has checkpoints and no recipe".to_owned(),
                    hint: "bring the recipe back, or remove the run's folder to begin anew",
                });
            }
            write_whole(disk, &path, resolved.as_bytes())?;
            return Ok(Vec::new());
        }
        Err(e) => return Err(StoreError::io("read", &path, e)),
    };
    let may_change = |key: &String| options.keys_that_may_change.contains(key);
    let (free, changes): (Vec<_>, Vec<_>) = recipe::differences(&stored, parsed)
        .into_iter()
        .partition(|c| may_change(&c.key));
    if !changes.is_empty() {
        return Err(StoreError::RecipeChanged {
            name: name.to_owned(),
            path,
            changes,
        });
    }
    Ok(free
        .iter()
        .map(|change| notice("recipe_key_changed", 1, change.to_string()))
        .collect())
}

/// The newest checkpoint that can be gone on from, and the largest sequence number seen.
fn newest_good(
    disk: &dyn Disk,
    folder: &Path,
    ledger: &Ledger,
    notices: &mut Vec<Notice>,
) -> Result<(Option<Committed>, u64), StoreError> {
    let checkpoints = folder.join(CHECKPOINTS);
    let metrics_bytes = fs::metadata(folder.join(METRICS)).map_or(0, |m| m.len());
    let found = checkpoint::list(&checkpoints)?;
    let sequence = found.first().map_or(0, |(sequence, _)| *sequence);
    let mut bad: Vec<(PathBuf, String)> = Vec::new();
    let mut good = None;
    for (_, path) in found {
        let usable = checkpoint::verify(&path).and_then(|c| {
            let promised = c.manifest().metrics_bytes;
            if promised > metrics_bytes {
                return Err(format!(
                    "{METRICS} has {metrics_bytes} bytes where the checkpoint needs {promised}"
                ));
            }
            ledger
                .check_reaches(&c.manifest().ledger)
                .map_err(|e| e.to_string())?;
            Ok(c)
        });
        match usable {
            Ok(committed) => {
                good = Some(committed);
                break;
            }
            Err(reason) => bad.push((path, reason)),
        }
    }
    let told = |(path, reason): &(PathBuf, String)| format!("{}: {reason}", path.display());
    if good.is_none() && !bad.is_empty() {
        return Err(StoreError::NoGoodCheckpoint {
            path: checkpoints,
            reasons: bad.iter().map(told).collect(),
        });
    }
    for each in &bad {
        notices.push(notice(
            "checkpoint_damaged",
            1,
            format!("left out a damaged checkpoint, {}", told(each)),
        ));
        checkpoint::set_aside(disk, &each.0)?;
    }
    Ok((good, sequence))
}

/// Removes rollout files that no ledger row speaks of: those beyond the commit point, and leftovers.
fn drop_unknown_rollouts(
    disk: &dyn Disk,
    folder: &Path,
    ledger: &Ledger,
) -> Result<(), StoreError> {
    let known: BTreeSet<PathBuf> = ledger
        .rollout_files()?
        .iter()
        .map(|file| rollout_path(folder, &file.stage, file.step))
        .collect();
    for stage in entries(&folder.join(ROLLOUTS))? {
        for file in entries(&stage.path())? {
            if !known.contains(&file.path()) {
                disk.remove(&file.path())
                    .map_err(|e| StoreError::io("remove", &file.path(), e))?;
            }
        }
    }
    Ok(())
}
