//! The audit: who did what, and when. Lines are only added. Each holds the hash of the line before, so that nobody can
//! change, remove or insert a line without leaving a trace.
//!
//! A line names records by their ids. It never holds what a person wrote, so forgetting a record never has to change
//! it.

use rusqlite::{Transaction, params};
use serde::Serialize;
use serde_json::{Value, json};

use super::{DataFolder, now_ms};
use crate::error::StoreError;

/// The hash before the first line.
const BEGIN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditLine {
    /// 1, 2, 3 and so on.
    pub sequence: i64,
    /// When, in milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// Who: a person's name, or `operator` for the user of this machine's command line.
    pub person: String,
    /// What, a fixed word: "verdict", "promote", "forget".
    pub action: String,
    /// To what: an id.
    pub subject: String,
    /// Further figures and ids.
    pub detail: Value,
    /// The hash of the line before.
    pub previous: String,
    /// BLAKE3 of all of the above.
    pub hash: String,
}

impl AuditLine {
    fn digest(&self) -> String {
        let Self { sequence, at_ms, person, action, subject, detail, previous, .. } = self;
        let content = json!([sequence, at_ms, person, action, subject, detail, previous]);
        blake3::hash(content.to_string().as_bytes()).to_hex().to_string()
    }
}

/// What [`DataFolder::verify_audit`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The number of lines.
    pub lines: usize,
    /// The last line's hash. Anyone who keeps it elsewhere can check later whether the lines up to it are unchanged.
    pub head: String,
}

/// Adds a line in the same transaction as the change that it records.
pub(super) fn add(t: &Transaction, person: &str, action: &str, subject: &str, detail: Value) -> rusqlite::Result<()> {
    let last = t.query_row(
        "SELECT coalesce(max(sequence), 0), coalesce((SELECT hash FROM audit ORDER BY sequence DESC LIMIT 1), ?1) FROM audit",
        [BEGIN],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)),
    )?;
    let mut line = AuditLine {
        sequence: last.0 + 1,
        at_ms: now_ms(),
        person: person.into(),
        action: action.into(),
        subject: subject.into(),
        detail,
        previous: last.1,
        hash: String::new(),
    };
    line.hash = line.digest();
    t.execute(
        "INSERT INTO audit (sequence, at_ms, person, action, subject, detail, previous, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            line.sequence, line.at_ms, line.person, line.action, line.subject, line.detail.to_string(), line.previous, line.hash
        ],
    )
    .map(drop)
}

impl DataFolder {
    /// All lines, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn audit(&self) -> Result<Vec<AuditLine>, StoreError> {
        self.all("SELECT * FROM audit ORDER BY sequence", |row| {
            let detail: String = row.get("detail")?;
            Ok(AuditLine {
                sequence: row.get("sequence")?,
                at_ms: row.get("at_ms")?,
                person: row.get("person")?,
                action: row.get("action")?,
                subject: row.get("subject")?,
                detail: serde_json::from_str(&detail).unwrap_or(Value::String(detail)),
                previous: row.get("previous")?,
                hash: row.get("hash")?,
            })
        })
    }

    /// Checks every hash, and that no line is missing, not even at the end.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], which names the first line that differs from what was written; [`StoreError::Ledger`].
    pub fn verify_audit(&self) -> Result<Verified, StoreError> {
        let lines = self.audit()?;
        let damaged = |reason| StoreError::Damaged {
            path: self.ledger(),
            reason,
            hint: "somebody changed the ledger; bring back a copy whose audit is whole",
        };
        let mut head = BEGIN.to_string();
        for (line, expected) in lines.iter().zip(1..) {
            if line.sequence != expected {
                return Err(damaged(format!("line {expected} of the audit is missing")));
            }
            if line.previous != head || line.hash != line.digest() {
                return Err(damaged(format!("line {expected} of the audit was changed")));
            }
            head.clone_from(&line.hash);
        }
        // SQLite keeps the largest number that it ever assigned.
        let given = self.read(|c| {
            c.query_row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'audit'", [], |row| {
                row.get::<_, i64>(0)
            })
        })?;
        if given != lines.len() as i64 {
            return Err(damaged(format!("the audit ends at line {}, and {given} were written", lines.len())));
        }
        Ok(Verified { lines: lines.len(), head })
    }
}
