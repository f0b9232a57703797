//! The seal of a ledger: a digest of its rows. A checkpoint keeps it, so that a row that changed later is noticed.
//!
//! SQLite checks the structure of its file, but not the content of its pages.

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::{CUT_BACK, FORMAT, Hashed, Ledger, Marks};
use crate::error::StoreError;

/// Hashes the rows of all tables up to the marks, from where `hashed` stands. Withdrawals are hashed too: they are as many as when the
/// run began.
fn seal(c: &Connection, hashed: &mut Hashed, marks: &Marks) -> rusqlite::Result<String> {
    let mut whole = blake3::Hasher::new();
    for table in CUT_BACK {
        let (from, hasher) = hashed.entry(table).or_default();
        let to = marks.get(table).copied().unwrap_or(0);
        let sql = format!("SELECT * FROM {table} WHERE id > ?1 AND id <= ?2 ORDER BY id");
        add(c, hasher, &sql, [*from, to])?;
        *from = to;
        whole.update(hasher.finalize().as_bytes());
    }
    add(c, &mut whole, "SELECT record_id FROM withdrawals ORDER BY record_id", [])?;
    Ok(format!("{FORMAT}:{}", whole.finalize().to_hex()))
}

/// Feeds every value of a query, with its type and its length.
fn add(c: &Connection, hasher: &mut blake3::Hasher, sql: &str, limits: impl rusqlite::Params) -> rusqlite::Result<()> {
    let mut statement = c.prepare_cached(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query(limits)?;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            let (kind, bytes) = match row.get_ref(column)? {
                ValueRef::Null => (0, Vec::new()),
                ValueRef::Integer(value) => (1, value.to_le_bytes().to_vec()),
                ValueRef::Real(value) => (2, value.to_le_bytes().to_vec()),
                ValueRef::Text(text) => (3, text.to_vec()),
                ValueRef::Blob(blob) => (4, blob.to_vec()),
            };
            hasher.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
        }
    }
    Ok(())
}

impl Ledger {
    /// The marks of now, and the seal of the rows up to them.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub(crate) fn sealed(&self) -> Result<(Marks, String), StoreError> {
        let marks = self.marks()?;
        let mut hashed = self.hashed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seal = self.read(|c| seal(c, &mut hashed, &marks))?;
        Ok((marks, seal))
    }

    /// Whether the rows up to the marks are still those that were sealed. A seal of another format says nothing, and passes.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub(crate) fn is_as_sealed(&self, marks: &Marks, sealed: &str) -> Result<bool, StoreError> {
        if !sealed.starts_with(&format!("{FORMAT}:")) {
            return Ok(true);
        }
        Ok(self.read(|c| seal(c, &mut Hashed::new(), marks))? == sealed)
    }

    /// Hashes from the first row again, after rows were removed.
    pub(super) fn forget_hashed(&self) {
        self.hashed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }

    /// Checks the structure of the file, its indexes included.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Ledger`].
    pub(crate) fn check_structure(&self) -> Result<(), StoreError> {
        let found: String = self.read(|c| c.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)))?;
        if found == "ok" {
            return Ok(());
        }
        Err(StoreError::Damaged { path: self.path.clone(), reason: found, hint: super::BRING_BACK })
    }
}
