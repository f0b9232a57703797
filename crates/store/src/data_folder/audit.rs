//! The audit: who did what, and when. Lines are only added. Each holds the hash of the line before, so that nobody can
//! change, remove or insert a line without leaving a trace.
//!
//! That alone does not show that lines are missing at the end. So the newest line's number and hash stand a second time
//! in the table `audit_head`, under a mark made with the folder's key. Every transaction moves this head on, but only
//! along lines that continue it: once the audit was cut, the head stays where it was, whatever is written later. Who has
//! the key and may write the ledger can forge both. Only a head that was kept elsewhere shows that.
//!
//! A line names records by their ids. It never holds what a person wrote, so forgetting a record never has to change
//! it.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use serde_json::{Value, json};

use super::{DataFolder, FIRST_FORMAT_WITH_HEAD, now_ms};
use crate::error::StoreError;
use crate::ledger::unsigned;

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
    let last = newest(t)?;
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

/// The newest line, as it stands apart from the audit.
struct Head {
    sequence: i64,
    hash: String,
    mark: String,
}

/// The number and the hash of the newest line of the audit.
fn newest(t: &Transaction) -> rusqlite::Result<(i64, String)> {
    let sql = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1";
    let newest = t.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(newest.unwrap_or((0, BEGIN.into())))
}

fn head_of(connection: &Connection) -> rusqlite::Result<Option<Head>> {
    let of = |row: &Row| Ok(Head { sequence: row.get(0)?, hash: row.get(1)?, mark: row.get(2)? });
    connection.query_row("SELECT sequence, hash, mark FROM audit_head", [], of).optional()
}

impl DataFolder {
    /// Writes the head of a ledger that has none yet.
    pub(super) fn begin_head(&self, t: &Transaction) -> rusqlite::Result<()> {
        let (sequence, hash) = newest(t)?;
        let mark = self.mark_of_head(sequence, &hash);
        t.execute("INSERT OR IGNORE INTO audit_head VALUES (1, ?1, ?2, ?3)", params![sequence, hash, mark]).map(drop)
    }

    /// Moves the head to the newest line, if the line where it stood is still the same.
    pub(super) fn move_head(&self, t: &Transaction) -> rusqlite::Result<()> {
        let Some(head) = head_of(t)? else { return Ok(()) };
        let (sequence, hash) = newest(t)?;
        let sql = "SELECT hash FROM audit WHERE sequence = ?1";
        let there: Option<String> = t.query_row(sql, [head.sequence], |row| row.get(0)).optional()?;
        let continued = head.sequence == 0 || there.as_deref() == Some(&head.hash);
        if sequence > head.sequence && continued && head.mark == self.mark_of_head(head.sequence, &head.hash) {
            let mark = self.mark_of_head(sequence, &hash);
            t.execute("UPDATE audit_head SET sequence = ?1, hash = ?2, mark = ?3", params![sequence, hash, mark])?;
        }
        Ok(())
    }

    fn mark_of_head(&self, sequence: i64, hash: &str) -> String {
        self.mark("audit head", &format!("{sequence} {hash}")).to_hex().to_string()
    }

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
        let last = lines.len() as i64;
        let format = self.read(|c| c.query_row("PRAGMA user_version", [], |row| unsigned(row, 0)))?;
        let written = match format < FIRST_FORMAT_WITH_HEAD {
            // SQLite keeps the largest number that it ever assigned.
            true => self.read(|c| {
                let sql = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'audit'";
                c.query_row(sql, [], |row| row.get(0))
            })?,
            false => {
                let apart = self.read(head_of)?;
                let apart = apart.filter(|head| head.mark == self.mark_of_head(head.sequence, &head.hash));
                let Some(apart) = apart else { return Err(damaged("the head of the audit was changed".into())) };
                if (1..=last).contains(&apart.sequence) && lines[apart.sequence as usize - 1].hash != apart.hash {
                    return Err(damaged(format!("line {} of the audit was replaced", apart.sequence)));
                }
                apart.sequence
            }
        };
        if written != last {
            return Err(damaged(format!("the audit ends at line {last}, and {written} were written")));
        }
        Ok(Verified { lines: lines.len(), head })
    }
}
