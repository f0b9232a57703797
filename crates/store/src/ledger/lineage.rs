//! Which weights a record has touched.
//!
//! A model is named by its digest. It was made by a stage, which used labels, read answers and trained on records. It was made from parent
//! models, which have stages of their own. A record has touched every model of the stages that used it, and all models made from those.
//!
//! Read next: [`crate::digest`], for what a digest covers.

use rusqlite::params;

use super::Ledger;
use crate::error::StoreError;

/// The stages that used a record in any way.
const USED: &str = "SELECT stage FROM labels WHERE record_id = ?1
    UNION SELECT stage FROM answers_read WHERE case_id = ?1
    UNION SELECT stage FROM record_uses WHERE record_id = ?1";

impl Ledger {
    /// Records what a model was made from; `parents` is empty for random weights.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn record_lineage(&self, digest: &str, stage: &str, parents: &[&str]) -> Result<(), StoreError> {
        // In a UNIQUE constraint no NULL equals another, so the query itself looks for the row without a parent.
        let sql = "INSERT OR IGNORE INTO lineage (digest, stage, parent)
                   SELECT ?1, ?2, ?3 WHERE ?3 IS NOT NULL
                   OR NOT EXISTS (SELECT 1 FROM lineage WHERE digest = ?1 AND stage = ?2)";
        let parents = if parents.is_empty() { vec![None] } else { parents.iter().map(Some).collect() };
        self.insert_each(sql, &parents, |statement, parent| statement.execute(params![digest, stage, parent]))
    }

    /// Every model that a record touched, in the order in which they were made.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn touched_by(&self, record_id: &str) -> Result<Vec<String>, StoreError> {
        let sql = format!(
            "WITH RECURSIVE
               used(stage) AS ({USED}),
               touched(digest) AS (SELECT digest FROM lineage JOIN used USING (stage)
                 UNION SELECT lineage.digest FROM lineage JOIN touched ON parent = touched.digest)
             SELECT digest FROM lineage JOIN touched USING (digest) GROUP BY digest ORDER BY min(id)"
        );
        self.read(|c| c.prepare_cached(&sql)?.query_map([record_id], |row| row.get(0))?.collect())
    }

    /// The stages that used a record, in no order.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn used_by(&self, record_id: &str) -> Result<Vec<String>, StoreError> {
        self.read(|c| c.prepare_cached(USED)?.query_map([record_id], |row| row.get(0))?.collect())
    }

    /// The records that were withdrawn when this run began, sorted.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn withdrawn(&self) -> Result<Vec<String>, StoreError> {
        self.all("SELECT record_id FROM withdrawals ORDER BY record_id", |row| row.get(0))
    }

    pub(crate) fn set_withdrawn(&self, record_ids: &[String]) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO withdrawals (record_id) VALUES (?1)";
        self.insert_each(sql, record_ids, |statement, id| statement.execute([id]))
    }
}
