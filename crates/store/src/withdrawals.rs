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
        let value: Option<Value> = serde_json::from_str(line).ok();
        let id = value.as_ref().and_then(|v| v["record_id"].as_str());
        id.map(str::to_owned).ok_or_else(|| StoreError::Damaged {
            path: path.clone(),
            reason: format!("line {} is not an object with `record_id`", i + 1),
            hint: "mend that line: a withdrawal must not be lost",
        })
    };
    text(&path)?.lines().enumerate().map(record).collect()
}

/// Adds a record. Processes that add at once take turns: each reads the list after the one before has replaced it.
pub(crate) fn add(disk: &dyn Disk, runs: &Path, record_id: &str, reason: &str) -> Result<(), StoreError> {
    disk.create_dir_all(runs).map_err(|e| StoreError::io("make", runs, e))?;
    let _turn = turn(runs)?;
    if read(runs)?.contains(record_id) {
        return Ok(());
    }
    let path = file(runs);
    let line = json!({ "record_id": record_id, "reason": reason });
    let mut all = text(&path)?;
    if !all.is_empty() && !all.ends_with('\n') {
        all.push('\n');
    }
    write_whole(disk, &path, format!("{all}{line}\n").as_bytes())
}
