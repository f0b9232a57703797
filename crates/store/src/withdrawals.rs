//! Records that their owners have withdrawn: `runs/withdrawals.jsonl`, one object per line.
//!
//! A run copies the list when it begins and keeps that copy, so that a resumed run ends in the same state as an
//! unbroken one. When it is opened again, it reports which records were withdrawn since.
//!
//! Read next: [`crate::ledger::lineage`], which finds the weights that a record touched.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::disk::{Disk, write_whole};
use crate::error::StoreError;

fn file(runs: &Path) -> PathBuf {
    runs.join("withdrawals.jsonl")
}

fn text(path: &Path) -> Result<String, StoreError> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|e| StoreError::io("read", path, e)),
    }
}

/// Waits until no other process changes the list. The list itself cannot be locked, because every change replaces it.
fn turn(runs: &Path) -> Result<File, StoreError> {
    let path = runs.join("withdrawals.lock");
    let fail = |e| StoreError::io("lock", &path, e);
    let lock = File::options().create(true).append(true).open(&path).map_err(fail)?;
    lock.lock().map_err(fail)?;
    Ok(lock)
}

pub(crate) fn read(runs: &Path) -> Result<BTreeSet<String>, StoreError> {
    let path = file(runs);
    let record = |(i, line): (usize, &str)| {
        let damaged = |reason: &str| StoreError::Damaged {
            path: path.clone(),
            reason: format!("line {} {reason}", i + 1),
            hint: "mend that line: a withdrawal must not be lost",
        };
        let value: Value = serde_json::from_str(line).unwrap_or_default();
        let id = value["record_id"].as_str().ok_or_else(|| damaged("is not an object with `record_id`"))?;
        match value["check"].as_str() {
            // Lines of older versions, and those that a person wrote, have no checksum.
            Some(known) if known != check(id) => Err(damaged("does not have the checksum of its `record_id`")),
            _ => Ok(id.to_owned()),
        }
    };
    text(&path)?.lines().enumerate().map(record).collect()
}

/// The checksum of an id: the first 8 digits of its BLAKE3.
fn check(record_id: &str) -> String {
    blake3::hash(record_id.as_bytes()).to_hex()[..8].to_owned()
}

/// Adds a record. Processes that add at once take turns: each reads the list after the one before has replaced it.
pub(crate) fn add(disk: &dyn Disk, runs: &Path, record_id: &str, reason: &str) -> Result<(), StoreError> {
    disk.create_dir_all(runs).map_err(|e| StoreError::io("make", runs, e))?;
    let _turn = turn(runs)?;
    if read(runs)?.contains(record_id) {
        return Ok(());
    }
    let path = file(runs);
    let line = json!({ "record_id": record_id, "reason": reason, "check": check(record_id) });
    let mut all = text(&path)?;
    if !all.is_empty() && !all.ends_with('\n') {
        all.push('\n');
    }
    write_whole(disk, &path, format!("{all}{line}\n").as_bytes())
}

/// Takes a withdrawal back; whether there was one.
pub(crate) fn remove(disk: &dyn Disk, runs: &Path, record_id: &str) -> Result<bool, StoreError> {
    if !read(runs)?.contains(record_id) {
        return Ok(false);
    }
    let _turn = turn(runs)?;
    // Every line is whole, because `read` has accepted it.
    let is_it = |line: &&str| serde_json::from_str::<Value>(line).is_ok_and(|value| value["record_id"] == record_id);
    let path = file(runs);
    let kept: String = text(&path)?.lines().filter(|line| !is_it(line)).map(|line| format!("{line}\n")).collect();
    write_whole(disk, &path, kept.as_bytes())?;
    Ok(true)
}
