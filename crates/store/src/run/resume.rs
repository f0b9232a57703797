//! Opens a run: what is checked, and what is dropped.
//!
//! The steps are done in this order. If the process is killed in any of them, all can be done again.
//!
//! 1. Take the lock.
//! 2. Refuse a changed recipe. Nothing has been changed so far.
//! 3. Remove what an interrupted write has left behind.
//! 4. Find the newest checkpoint that is whole and whose marks the ledger and the metrics reach.
//! 5. Cut ledger and metrics back to its marks.
//! 6. Remove rollout files that are no longer in the ledger.
//!
//! Read next: [`crate::run`], for what is written afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Run, Uncommitted, files};
use crate::changes::differences;
use crate::checkpoint::{self, Committed};
use crate::disk::{Disk, SYNCS_FOLDERS, entries, remove_leftovers, write_whole};
use crate::error::StoreError;
use crate::layout::{CHECKPOINTS, LEDGER, METRICS, MODELS, RECIPE, ROLLOUTS, rollout_path};
use crate::ledger::Ledger;
use crate::ledger::rows::{Notice, Opening};
use crate::lock::FolderLock;
use crate::metrics::MetricsFile;
use crate::writer::Writer;
use crate::{recipe, withdrawals};

/// Checkpoints that are kept besides those that end a stage. The older one is used if the newer one is damaged.
const KEEP: usize = 2;

impl Run {
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        runs: &Path,
        name: &str,
        resolved_recipe: &str,
    ) -> Result<Self, StoreError> {
        let folder = runs.join(name);
        let parsed = recipe::parse(resolved_recipe, &folder.join(RECIPE))?;
        disk.create_dir_all(&folder).map_err(|e| StoreError::io("make", &folder, e))?;
        let lock = FolderLock::take(&folder, name)?;
        settle_recipe(&**disk, &folder, name, resolved_recipe, &parsed)?;
        disk.sync(runs).map_err(|e| StoreError::io("sync", runs, e))?;
        let checkpoints = folder.join(CHECKPOINTS);
        disk.create_dir_all(&checkpoints).map_err(|e| StoreError::io("make", &checkpoints, e))?;
        for folder in [&folder, &checkpoints, &folder.join(MODELS)] {
            remove_leftovers(&**disk, folder)?;
        }

        let ledger = Ledger::open(&folder.join(LEDGER))?;
        ledger.check_structure()?;
        let mut notices = Vec::new();
        if !SYNCS_FOLDERS {
            let text = "this system cannot make a rename durable: after a power cut the newest checkpoint may be missing, and the one before is used";
            notices.push(notice("renames_not_durable", 1, text.to_owned()));
        }
        let (resumed, sequence) = newest_good(&**disk, &folder, &ledger, &mut notices)?;
        let marks = resumed.as_ref().map(|c| c.manifest().ledger.clone()).unwrap_or_default();
        let metrics_bytes = resumed.as_ref().map_or(0, |c| c.manifest().metrics_bytes);
        ledger.cut_back(&marks)?;
        let metrics = MetricsFile::open(&**disk, &folder.join(METRICS), metrics_bytes)?;
        let sealed = resumed.as_ref().and_then(|c| c.manifest().metrics_blake3.as_ref());
        if sealed.is_some_and(|sealed| *sealed != metrics.blake3()) {
            let path = folder.join(METRICS);
            let text = format!("{} was changed since the checkpoint; the weights do not depend on it", path.display());
            notices.push(notice("metrics_changed", 1, text));
        }
        drop_unknown_rollouts(&**disk, &folder, &ledger)?;
        let damaged = files::damaged_rollouts(&folder, &ledger)?;
        if let Some(first) = damaged.first() {
            let text = format!(
                "{} rollout files are not as they were written; a stage that reads one will refuse it: {first}",
                damaged.len()
            );
            notices.push(notice("rollouts_damaged", damaged.len() as u64, text));
        }

        let withdrawn_since = settle_withdrawals(runs, &ledger, &mut notices)?;
        if let Some(c) = &resumed {
            notices.push(notice("resumed", 1, format!("going on from {} step {}", c.stage(), c.step())));
        }
        ledger.record_opening(&Opening {
            unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            checkpoint: resumed.as_ref().map(|c| format!("{} step {}", c.stage(), c.step())),
            notices: notices.clone(),
        })?;
        // A process that was killed between a commit and the removal of older checkpoints has left one too many.
        checkpoint::prune(&**disk, &checkpoints, KEEP)?;
        let writer = Writer::start(disk.clone(), checkpoints, KEEP)?;
        Ok(Run {
            folder,
            disk: disk.clone(),
            ledger,
            metrics: Mutex::new(metrics),
            open: Mutex::new(Uncommitted { sequence, to_sync: BTreeSet::new() }),
            writer,
            resumed,
            notices,
            withdrawn_since,
            lock,
        })
    }
}

fn notice(kind: &str, count: u64, text: String) -> Notice {
    Notice { kind: kind.to_owned(), stage: None, text, count }
}

/// Writes the recipe of a new run, or compares it with the stored one.
fn settle_recipe(
    disk: &dyn Disk,
    folder: &Path,
    name: &str,
    resolved: &str,
    parsed: &toml::Table,
) -> Result<(), StoreError> {
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
            return write_whole(disk, &path, resolved.as_bytes());
        }
        Err(e) => return Err(StoreError::io("read", &path, e)),
    };
    let changes = differences(&stored, parsed);
    match changes.is_empty() {
        true => Ok(()),
        false => Err(StoreError::RecipeChanged { name: name.to_owned(), path, changes }),
    }
}

/// Copies the withdrawn records into a new run's ledger. For an older run it returns the records that were withdrawn
/// since the run began.
fn settle_withdrawals(runs: &Path, ledger: &Ledger, notices: &mut Vec<Notice>) -> Result<BTreeSet<String>, StoreError> {
    let withdrawn = withdrawals::read(runs)?;
    if ledger.openings()?.is_empty() {
        ledger.set_withdrawn(&withdrawn.iter().cloned().collect::<Vec<_>>())?;
    }
    let known: BTreeSet<String> = ledger.withdrawn()?.into_iter().collect();
    let since: BTreeSet<String> = withdrawn.difference(&known).cloned().collect();
    if !since.is_empty() {
        let text = "records were withdrawn after this run began; a run under a new name leaves them out";
        notices.push(notice("withdrawn_since", since.len() as u64, text.to_owned()));
    }
    Ok(since)
}

/// The newest checkpoint that the run can resume from, and the largest sequence number found.
fn newest_good(
    disk: &dyn Disk,
    folder: &Path,
    ledger: &Ledger,
    notices: &mut Vec<Notice>,
) -> Result<(Option<Committed>, u64), StoreError> {
    let checkpoints = folder.join(CHECKPOINTS);
    let found = checkpoint::list(&checkpoints)?;
    let sequence = found.first().map_or(0, |(sequence, _)| *sequence);
    let mut bad: Vec<(PathBuf, String)> = Vec::new();
    let mut good = None;
    for (_, path) in found {
        match usable(folder, &path, ledger) {
            Ok(committed) => {
                good = Some(committed);
                break;
            }
            Err(reason) => bad.push((path, reason)),
        }
    }
    let told = |(path, reason): &(PathBuf, String)| format!("{}: {reason}", path.display());
    if good.is_none() && !bad.is_empty() {
        return Err(StoreError::NoGoodCheckpoint { path: checkpoints, reasons: bad.iter().map(told).collect() });
    }
    for each in &bad {
        notices.push(notice("checkpoint_damaged", 1, format!("left out a damaged checkpoint, {}", told(each))));
        checkpoint::set_aside(disk, &each.0)?;
    }
    Ok((good, sequence))
}

/// The checkpoint at `path`, if the run can be resumed from it; otherwise the reason in words.
pub(crate) fn usable(run: &Path, path: &Path, ledger: &Ledger) -> Result<Committed, String> {
    let committed = checkpoint::verify(path)?;
    let manifest = committed.manifest();
    let found = fs::metadata(run.join(METRICS)).map_or(0, |m| m.len());
    if manifest.metrics_bytes > found {
        return Err(format!("{METRICS} has {found} bytes where the checkpoint needs {}", manifest.metrics_bytes));
    }
    ledger.check_reaches(&manifest.ledger).map_err(|e| e.to_string())?;
    let changed = |seal| ledger.is_as_sealed(&manifest.ledger, seal).map(|same| !same).map_err(|e| e.to_string());
    match manifest.ledger_seal.as_deref().map(changed).transpose()? {
        Some(true) => Err(format!("{LEDGER}: its rows are not those that the checkpoint was taken with")),
        _ => Ok(committed),
    }
}

/// Removes rollout files without a row in the ledger: files beyond the commit point, and leftovers.
fn drop_unknown_rollouts(disk: &dyn Disk, folder: &Path, ledger: &Ledger) -> Result<(), StoreError> {
    let known: BTreeSet<PathBuf> =
        ledger.rollout_files()?.iter().map(|file| rollout_path(folder, &file.stage, file.step)).collect();
    for stage in entries(&folder.join(ROLLOUTS))? {
        for file in entries(&stage.path())? {
            if !known.contains(&file.path()) {
                disk.remove(&file.path()).map_err(|e| StoreError::io("remove", &file.path(), e))?;
            }
        }
    }
    Ok(())
}
