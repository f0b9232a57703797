//! Documents, and the labels that were found in them. These labels are counted separately from those that experts
//! signed.

use rusqlite::params;
use serde::Serialize;
use serde_json::json;

use super::{DataFolder, audit, now_ms};
use crate::error::StoreError;

/// A label that was found in a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundLabel {
    /// Its item: the id of its prompt.
    pub item: String,
    /// The document; none for a row of a table.
    pub document: Option<String>,
    /// The prompt.
    pub prompt: String,
    /// The right answer.
    pub answer: String,
}

impl DataFolder {
    /// Keeps the documents (id, digest) of one source and the labels found in them. Those that are known already, or
    /// that were forgotten, are skipped. Returns how many labels are new.
    ///
    /// # Errors
    /// [`StoreError::Ledger`], [`StoreError::DiskFull`].
    pub fn add_found(
        &self,
        source: &str,
        documents: &[(String, String)],
        labels: &[FoundLabel],
    ) -> Result<u64, StoreError> {
        self.write(|t| {
            let now = now_ms();
            let mut document =
                t.prepare("INSERT OR IGNORE INTO documents (id, source, digest, added_ms) VALUES (?1, ?2, ?3, ?4)")?;
            for (id, digest) in documents {
                document.execute(params![id, source, digest, now])?;
            }
            let mut insert = t.prepare(
                "INSERT OR IGNORE INTO found_labels (item, document, prompt, answer, added_ms) SELECT ?1, ?2, ?3, ?4, ?5
                 WHERE NOT EXISTS (SELECT 1 FROM tombstones WHERE mark = ?6)",
            )?;
            let mut added = 0;
            for label in labels {
                let mark = &self.tombstones_of(&label.item, None)[0];
                added +=
                    insert.execute(params![label.item, label.document, label.prompt, label.answer, now, mark])? as u64;
            }
            audit::add(t, "operator", "found", source, json!({ "documents": documents.len(), "labels": added }))?;
            Ok(added)
        })
    }

    /// The found labels that existed at a moment, in milliseconds since 1970 UTC, by item. Labels that were forgotten
    /// since are missing. Labels whose item is reserved for the gate are left out: a person may judge it there later,
    /// so it must not have been trained on.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn found_at(&self, at_ms: i64) -> Result<Vec<FoundLabel>, StoreError> {
        let all: Vec<FoundLabel> = self.read(|c| {
            c.prepare_cached(
                "SELECT item, document, prompt, answer FROM found_labels WHERE added_ms <= ?1 ORDER BY item",
            )?
            .query_map([at_ms], |row| {
                Ok(FoundLabel { item: row.get(0)?, document: row.get(1)?, prompt: row.get(2)?, answer: row.get(3)? })
            })?
            .collect()
        })?;
        Ok(all.into_iter().filter(|label| !self.is_of_gate(&label.item)).collect())
    }
}
