//! Checkpoints: named byte blobs and a JSON value. A checkpoint exists whole or not at all.
//!
//! It is written in this order, for the reasons given:
//!
//! 1. Write every blob into `checkpoints/.tmp-…/` and sync it, so that the content is on the disk before anything
//!    refers to it.
//! 2. Write and sync `manifest.json`, which holds the BLAKE3 of each blob, and `manifest.b3`, which holds that of the
//!    manifest. They show later damage.
//! 3. Sync the temporary folder, so that the names are on the disk too.
//! 4. **Rename** it to `checkpoints/<sequence>-<stage>-<step>/`. This is the commit point.
//! 5. Sync `checkpoints/`, so that the new name survives a power cut.
//!
//! A failure before step 4 leaves the older checkpoints as they were. `manifest.b3` has the form of `b3sum`'s output.
//! This module does not know what the blobs mean, and never looks at the clock.
//!
//! Read next: [`crate::run`], which resumes from the newest good one.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest;
use crate::disk::{Disk, TEMPORARY, entries};
use crate::error::StoreError;
use crate::ledger::Marks;
use crate::names;

const FORMAT: u64 = 1;
const MANIFEST: &str = "manifest.json";
const MANIFEST_DIGEST: &str = "manifest.b3";
/// The prefix of damaged checkpoints. They are removed once there are enough good ones again.
const DAMAGED: &str = "damaged-";

/// What to keep: how far the run has come, and everything that is needed to resume it.
#[derive(Debug)]
pub struct Checkpoint {
    /// The stage's place in the recipe, from 0.
    pub stage_index: u64,
    /// Its name.
    pub stage: String,
    /// Steps of it that are done.
    pub step: u64,
    /// Weights, moments, tokenizers: named bytes.
    pub blobs: Vec<Blob>,
    /// Counters, seeds, the instruction path: small values.
    pub state: Value,
    /// Whether the stage is done. Such a checkpoint is never removed, so that a run can go back to it. It should have few blobs.
    pub ends_stage: bool,
}

/// One named blob.
pub struct Blob {
    name: String,
    bytes: Vec<u8>,
}

impl Blob {
    /// A blob of the given name and content.
    pub fn bytes(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Blob { name: name.into(), bytes: bytes.into() }
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Blob").field(&self.name).finish()
    }
}

/// The manifest as it is on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub format: u64,
    pub sequence: u64,
    pub stage_index: u64,
    pub stage: String,
    pub step: u64,
    /// Length of `metrics.jsonl` when the checkpoint was taken.
    pub metrics_bytes: u64,
    /// BLAKE3 of those bytes; none in older checkpoints.
    #[serde(default)]
    pub metrics_blake3: Option<String>,
    /// Ledger rows that existed when the checkpoint was taken.
    pub ledger: Marks,
    /// The seal of those rows; none in older checkpoints.
    #[serde(default)]
    pub ledger_seal: Option<String>,
    pub blobs: Vec<BlobEntry>,
    pub state: Value,
    #[serde(default)]
    pub ends_stage: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BlobEntry {
    pub name: String,
    pub bytes: u64,
    pub blake3: String,
}

impl Manifest {
    pub(crate) fn new(sequence: u64, at: &Checkpoint, metrics: (u64, String), ledger: (Marks, String)) -> Self {
        Manifest {
            format: FORMAT,
            sequence,
            stage_index: at.stage_index,
            stage: at.stage.clone(),
            step: at.step,
            metrics_bytes: metrics.0,
            metrics_blake3: Some(metrics.1),
            ledger: ledger.0,
            ledger_seal: Some(ledger.1),
            blobs: Vec::new(),
            state: at.state.clone(),
            ends_stage: at.ends_stage,
        }
    }

    fn folder_name(&self) -> String {
        format!("{:06}-{}-{:06}", self.sequence, self.stage, self.step)
    }
}

/// A committed checkpoint that was found whole.
#[derive(Clone, Debug)]
pub struct Committed {
    folder: PathBuf,
    manifest: Manifest,
}

impl Committed {
    /// The stage's place in the recipe.
    pub fn stage_index(&self) -> u64 {
        self.manifest.stage_index
    }

    /// The stage's name.
    pub fn stage(&self) -> &str {
        &self.manifest.stage
    }

    /// Steps of the stage that were done.
    pub fn step(&self) -> u64 {
        self.manifest.step
    }

    /// The JSON value that was kept.
    pub fn state(&self) -> &Value {
        &self.manifest.state
    }

    /// A blob's bytes, checked against the manifest.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if there is no such blob, or if it changed since the run was opened.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.folder.join(name);
        let damaged = |reason| StoreError::Damaged {
            path: path.clone(),
            reason,
            hint: "give the same command again: an older checkpoint will be used",
        };
        let entry = self.manifest.blobs.iter().find(|b| b.name == name);
        let entry = entry.ok_or_else(|| damaged("the checkpoint holds no blob of that name".to_owned()))?;
        let bytes = fs::read(&path).map_err(|e| StoreError::io("read", &path, e))?;
        if blake3::hash(&bytes).to_hex().as_str() != entry.blake3 {
            return Err(damaged("its BLAKE3 is not the manifest's".to_owned()));
        }
        Ok(bytes)
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// Refuses a checkpoint that cannot be written, before anything is written.
pub(crate) fn check(checkpoint: &Checkpoint) -> Result<(), StoreError> {
    names::check("stage", &checkpoint.stage)?;
    let mut seen = std::collections::BTreeSet::new();
    for Blob { name, .. } in &checkpoint.blobs {
        names::check("blob", name)?;
        if name == MANIFEST || name == MANIFEST_DIGEST || !seen.insert(name) {
            return Err(StoreError::BadName { what: "blob", name: name.clone(), why: "that name is taken" });
        }
    }
    Ok(())
}

/// Writes one checkpoint into `checkpoints` and commits it.
pub(crate) fn write(
    disk: &dyn Disk,
    checkpoints: &Path,
    mut manifest: Manifest,
    blobs: Vec<Blob>,
) -> Result<(), StoreError> {
    let name = manifest.folder_name();
    let temporary = checkpoints.join(format!("{TEMPORARY}{name}"));
    let target = checkpoints.join(name);
    let fill = || {
        disk.create_dir_all(&temporary).map_err(|e| StoreError::io("make", &temporary, e))?;
        for blob in blobs {
            manifest.blobs.push(write_blob(disk, &temporary, blob)?);
        }
        let text = serde_json::to_vec_pretty(&manifest).expect("a manifest serialises");
        let digest = format!("{}  {MANIFEST}\n", blake3::hash(&text).to_hex());
        write_blob(disk, &temporary, Blob::bytes(MANIFEST, text))?;
        write_blob(disk, &temporary, Blob::bytes(MANIFEST_DIGEST, digest))?;
        disk.sync(&temporary).map_err(|e| StoreError::io("sync", &temporary, e))?;
        disk.rename(&temporary, &target).map_err(|e| StoreError::io("commit", &target, e))
    };
    let committed = fill();
    if committed.is_err() {
        // This gives the space back at once. If it fails too, opening the run removes the folder.
        let _ = disk.remove(&temporary);
    }
    committed?;
    disk.sync(checkpoints).map_err(|e| StoreError::io("sync", checkpoints, e))
}

fn write_blob(disk: &dyn Disk, folder: &Path, blob: Blob) -> Result<BlobEntry, StoreError> {
    let path = folder.join(&blob.name);
    let written = disk.create(&path).and_then(|mut file| {
        file.write_all(&blob.bytes)?;
        file.sync()
    });
    written.map_err(|e| StoreError::io("write", &path, e))?;
    let blake3 = blake3::hash(&blob.bytes).to_hex().to_string();
    Ok(BlobEntry { name: blob.name, bytes: blob.bytes.len() as u64, blake3 })
}

/// Folders of committed checkpoints with their sequence numbers, newest first.
pub(crate) fn list(checkpoints: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let mut found: Vec<_> = entries(checkpoints)?.iter().filter_map(|e| Some((sequence_of(e)?, e.path()))).collect();
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

fn sequence_of(entry: &fs::DirEntry) -> Option<u64> {
    entry.file_name().to_str()?.split('-').next()?.parse().ok()
}

/// Reads a manifest without looking at the blobs; the error is a reason in words.
pub(crate) fn read_manifest(folder: &Path) -> Result<Manifest, String> {
    let read = |name: &str| fs::read(folder.join(name)).map_err(|e| format!("{name}: {e}"));
    let text = read(MANIFEST)?;
    let digest = read(MANIFEST_DIGEST)?;
    if !digest.starts_with(blake3::hash(&text).to_hex().as_bytes()) {
        return Err(format!("{MANIFEST}: its BLAKE3 is not the one in {MANIFEST_DIGEST}"));
    }
    let value: Value = serde_json::from_slice(&text).map_err(|e| format!("{MANIFEST}: {e}"))?;
    match value["format"].as_u64() {
        Some(FORMAT) => serde_json::from_value(value).map_err(|e| format!("{MANIFEST}: {e}")),
        found => Err(format!("{MANIFEST}: format {found:?}, and this Ferule reads format {FORMAT}")),
    }
}

/// Reads a checkpoint and checks every byte of it; the error is a reason in words.
pub(crate) fn verify(folder: &Path) -> Result<Committed, String> {
    let manifest = read_manifest(folder)?;
    for blob in &manifest.blobs {
        let (bytes, blake3) = digest::hash_file(&folder.join(&blob.name)).map_err(|e| format!("{}: {e}", blob.name))?;
        if bytes != blob.bytes {
            return Err(format!("{}: {bytes} bytes where the manifest says {}", blob.name, blob.bytes));
        }
        if blake3 != blob.blake3 {
            return Err(format!("{}: its BLAKE3 is not the manifest's", blob.name));
        }
    }
    Ok(Committed { folder: folder.to_path_buf(), manifest })
}

/// Renames a damaged checkpoint, so that its sequence number is free and it is not examined again.
pub(crate) fn set_aside(disk: &dyn Disk, folder: &Path) -> Result<(), StoreError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let aside = folder.with_file_name(format!("{DAMAGED}{name}"));
    disk.remove(&aside).map_err(|e| StoreError::io("remove", &aside, e))?;
    disk.rename(folder, &aside).map_err(|e| StoreError::io("rename", folder, e))
}

/// The end of a stage.
#[derive(Clone, Copy, Debug)]
pub struct StageEnd<'a> {
    /// The stage's place in the recipe.
    pub index: u64,
    /// Its name.
    pub stage: &'a str,
}

impl StageEnd<'_> {
    /// Whether the checkpoint at `folder` is this end of a stage.
    pub(crate) fn is_at(self, folder: &Path) -> bool {
        read_manifest(folder).is_ok_and(|m| m.ends_stage && m.stage_index == self.index && m.stage == self.stage)
    }
}

/// Removes checkpoints, except the `keep` newest and those that end a stage. Damaged ones are removed once there are
/// that many good ones.
pub(crate) fn prune(disk: &dyn Disk, checkpoints: &Path, keep: usize) -> Result<(), StoreError> {
    let good = list(checkpoints)?;
    for (_, folder) in good.iter().skip(keep) {
        if !read_manifest(folder).is_ok_and(|manifest| manifest.ends_stage) {
            remove_whole(disk, folder)?;
        }
    }
    if good.len() >= keep {
        for entry in entries(checkpoints)? {
            if entry.file_name().to_string_lossy().starts_with(DAMAGED) {
                disk.remove(&entry.path()).map_err(|e| StoreError::io("remove", &entry.path(), e))?;
            }
        }
    }
    Ok(())
}

/// Removes a checkpoint. It is renamed first, because a half-removed one must never look like a damaged one.
pub(crate) fn remove_whole(disk: &dyn Disk, folder: &Path) -> Result<(), StoreError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let leaving = folder.with_file_name(format!("{TEMPORARY}{name}"));
    disk.rename(folder, &leaving).map_err(|e| StoreError::io("rename", folder, e))?;
    disk.remove(&leaving).map_err(|e| StoreError::io("remove", &leaving, e))
}
