//! The files that a run depends on besides its checkpoints: those of exported models, and those that it reads.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};

use super::{Ledger, signed};
use crate::error::StoreError;

impl Ledger {
    /// Records the files of a stage's exported model, as (name, BLAKE3).
    pub(crate) fn record_exported(&self, stage: &str, files: &[(String, String)]) -> Result<(), StoreError> {
        let sql = "INSERT INTO exported_files (stage, name, blake3) VALUES (?1, ?2, ?3)";
        self.insert_each(sql, files, |statement, (name, blake3)| statement.execute(params![stage, name, blake3]))
    }

    /// The files of a stage's exported model, as (name, BLAKE3).
    pub(crate) fn exported(&self, stage: &str) -> Result<Vec<(String, String)>, StoreError> {
        let sql = "SELECT name, blake3 FROM exported_files WHERE stage = ?1 ORDER BY name";
        self.read(|c| c.prepare_cached(sql)?.query_map([stage], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
    }

    /// The BLAKE3 of a step's rollout file, if the ledger knows the file.
    pub(crate) fn rollout_hash(&self, stage: &str, step: u64) -> Result<Option<String>, StoreError> {
        let sql = "SELECT blake3 FROM rollout_files WHERE stage = ?1 AND step = ?2";
        self.read(|c| c.prepare_cached(sql)?.query_row(params![stage, signed(step)], |row| row.get(0)).optional())
    }

    /// The files that the run has read, by path, with their BLAKE3.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn inputs(&self) -> Result<BTreeMap<String, String>, StoreError> {
        self.all("SELECT path, blake3 FROM inputs", |row| Ok((row.get(0)?, row.get(1)?))).map(BTreeMap::from_iter)
    }

    /// Forgets which files the run has read, because it begins anew.
    pub(crate) fn forget_inputs(&self) -> Result<(), StoreError> {
        self.write(|t| t.execute("DELETE FROM inputs", [])).map(drop)
    }

    /// Records files that the run reads, by path, with their BLAKE3. Those that are known keep their hash.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn record_inputs(&self, files: &BTreeMap<String, String>) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO inputs (path, blake3) VALUES (?1, ?2)";
        let files: Vec<_> = files.iter().collect();
        self.insert_each(sql, &files, |statement, (path, blake3)| statement.execute([path, blake3]))
    }
}
