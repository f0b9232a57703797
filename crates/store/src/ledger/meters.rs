//! The meters: which cases a person labelled, which answers a rule used, which records were trained on.
//!
//! They count distinct cases, so a stage may meter a case at every step that uses it. Nothing is estimated.
//!
//! Read next: [`super::lineage`].

use rusqlite::params;

use super::rows::{Label, Metered, RecordUse};
use super::{Ledger, to_json, to_word, unsigned};
use crate::error::StoreError;

impl Ledger {
    /// Meters expert labels; a label that was metered before counts once.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn meter_labels(&self, labels: &[Label]) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO labels (record_id, stage, kind) VALUES (?1, ?2, ?3)";
        self.insert_each(sql, labels, |statement, label| {
            statement.execute(params![label.record_id, label.stage, to_word(&label.kind)])
        })
    }

    /// Meters cases whose answer a rule reads in `stage`; a case that was metered before counts once.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn meter_answers<S: AsRef<str>>(&self, stage: &str, case_ids: &[S]) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO answers_read (case_id, stage) VALUES (?1, ?2)";
        self.insert_each(sql, case_ids, |statement, id| statement.execute(params![id.as_ref(), stage]))
    }

    /// Notes records that a stage trained on; a use that was noted before counts once.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn record_uses(&self, uses: &[RecordUse]) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO record_uses (record_id, stage, role) VALUES (?1, ?2, ?3)";
        self.insert_each(sql, uses, |statement, u| statement.execute(params![u.record_id, u.stage, u.role]))
    }

    /// Distinct cases that any of `stages` used: a case that two of them used counts once.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn metered<S: AsRef<str>>(&self, stages: &[S]) -> Result<Metered, StoreError> {
        let stages = to_json(&stages.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        self.read(|c| {
            let count = |id: &str, table: &str| {
                let sql = format!(
                    "SELECT count(DISTINCT {id}) FROM {table} WHERE stage IN (SELECT value FROM json_each(?1))"
                );
                c.query_row(&sql, [&stages], |row| unsigned(row, 0))
            };
            Ok(Metered { labels: count("record_id", "labels")?, answers_read: count("case_id", "answers_read")? })
        })
    }
}
