//! The people who review and promote. Each has one personal token. Only a slow hash of the token is kept; the caller
//! computes it.

use rusqlite::params;
use serde_json::json;

use super::{DataFolder, Fault, audit, now_ms};
use crate::error::StoreError;

/// A person who may sign verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The name under every verdict that the person signs.
    pub name: String,
    /// The hash of the token, in the caller's form.
    pub token_hash: String,
}

impl DataFolder {
    /// Adds a person, or gives one a new token.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`] for an empty name or one with characters that are not allowed;
    /// [`StoreError::Ledger`].
    pub fn add_person(&self, name: &str, token_hash: &str) -> Result<(), StoreError> {
        self.change(|t| {
            let plain = |c: char| c.is_alphanumeric() || "-_.@".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || ["operator", "client"].contains(&name)
            {
                let hint = "use up to 64 letters, digits, `-`, `_`, `.` and `@`, and neither `operator` nor `client`";
                return Err(Fault::NotPossible(format!("{name:?} cannot name a person"), hint));
            }
            t.execute(
                "INSERT INTO people (name, token_hash, added_ms) VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET token_hash = ?2, revoked_ms = NULL",
                params![name, token_hash, now_ms()],
            )?;
            Ok(audit::add(t, "operator", "person_added", name, json!({}))?)
        })
    }

    /// Removes a person's token. The verdicts stay.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`] for an unknown name; [`StoreError::Ledger`].
    pub fn remove_person(&self, name: &str) -> Result<(), StoreError> {
        self.change(|t| {
            let sql = "UPDATE people SET revoked_ms = ?2 WHERE name = ?1 AND revoked_ms IS NULL";
            if t.execute(sql, params![name, now_ms()])? == 0 {
                let hint = "`ferule person list` names those who can sign";
                return Err(Fault::NotPossible(format!("nobody called {name}"), hint));
            }
            Ok(audit::add(t, "operator", "person_removed", name, json!({}))?)
        })
    }

    /// The people who can sign, sorted by name.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn people(&self) -> Result<Vec<Person>, StoreError> {
        self.all("SELECT name, token_hash FROM people WHERE revoked_ms IS NULL ORDER BY name", |row| {
            Ok(Person { name: row.get(0)?, token_hash: row.get(1)? })
        })
    }
}
