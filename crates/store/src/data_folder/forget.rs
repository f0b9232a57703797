//! Forgets a record or a person: the text is erased, and a mark remains.
//!
//! The rows are deleted, the freed pages are overwritten, the write-ahead log is emptied and the file is rewritten. Two
//! things remain: a tombstone, which is a keyed hash that recognises the record if it comes again, and the ids by which
//! turns refer to it. The caller erases files outside the ledger; [`Forgotten`] names the turns to check.

use rusqlite::params;
use serde::Serialize;
use serde_json::json;

use super::{DataFolder, Fault, audit, now_ms};
use crate::error::StoreError;

/// What to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forget {
    /// The id of a completion, an item or a document, with everything that is kept about its items.
    Record(String),
    /// Everything that was asked under this name. Requests of others with the same messages stay.
    User(String),
}

/// What was forgotten, and what it had influenced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Forgotten {
    /// The items.
    pub items: Vec<String>,
    /// Completions that were erased.
    pub requests: u64,
    /// Verdicts that were erased.
    pub verdicts: u64,
    /// Turns that trained on one of them or used it in the gate.
    pub turns: Vec<i64>,
    /// Models that those turns made, and all models made from those. They are flagged.
    pub models: Vec<String>,
}

impl DataFolder {
    /// The marks by which a record is recognised after it was forgotten.
    pub(super) fn tombstones_of(&self, item: &str, user: Option<&str>) -> Vec<String> {
        let of_user = user.map(|user| self.mark("forgotten user", user));
        std::iter::once(self.mark("forgotten item", item))
            .chain(of_user)
            .map(|mark| mark.to_hex().to_string())
            .collect()
    }

    /// The turns that trained on what would be forgotten or used it in the gate, so that their files can be erased
    /// first.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn turns_touched_by(&self, what: &Forget) -> Result<Vec<i64>, StoreError> {
        let (of_items, id) = match what {
            Forget::User(user) => ("SELECT item FROM requests WHERE user = ?1", user),
            Forget::Record(id) => (
                "SELECT item FROM requests WHERE id = ?1 OR item = ?1
                 UNION SELECT item FROM found_labels WHERE item = ?1 OR document = ?1",
                id,
            ),
        };
        let sql = format!("SELECT DISTINCT turn FROM turn_records WHERE item IN ({of_items}) ORDER BY turn");
        self.read(|c| c.prepare(&sql)?.query_map([id], |row| row.get(0))?.collect())
    }

    /// Forgets. A user name without any records is marked too, so that nothing under it is ever collected.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`] for an unknown record; [`StoreError::Ledger`].
    pub fn forget(&self, person: &str, what: &Forget) -> Result<Forgotten, StoreError> {
        let forgotten = self.change(|t| {
            let list = |sql: &str, of: &str| t.prepare(sql)?.query_map([of], |row| row.get(0))?.collect::<Result<Vec<String>, _>>();
            let (of_requests, id) = match what {
                Forget::User(user) => ("user = ?1", user),
                Forget::Record(id) => ("item IN (SELECT item FROM requests WHERE id = ?1 OR item = ?1)", id),
            };
            let requests = list(&format!("SELECT id FROM requests WHERE {of_requests}"), id)?;
            let mut items = list(&format!("SELECT DISTINCT item FROM requests WHERE {of_requests} ORDER BY item"), id)?;
            let now = now_ms();
            let bury = |mark: &str| t.execute("INSERT OR IGNORE INTO tombstones (mark, at_ms) VALUES (?1, ?2)", params![mark, now]);
            match what {
                Forget::User(user) => {
                    bury(&self.tombstones_of("", Some(user))[1])?;
                }
                Forget::Record(_) => {
                    let found = list("SELECT item FROM found_labels WHERE item = ?1 OR document = ?1", id)?;
                    for item in found {
                        t.execute("DELETE FROM found_labels WHERE item = ?1", [&item])?;
                        if !items.contains(&item) {
                            items.push(item);
                        }
                    }
                    t.execute("DELETE FROM documents WHERE id NOT IN (SELECT document FROM found_labels WHERE document IS NOT NULL)", [])?;
                    for item in &items {
                        bury(&self.tombstones_of(item, None)[0])?;
                    }
                    if items.is_empty() {
                        let hint = "a record is a completion's id, an item of `ferule review export`, or a document; a person is --user ID";
                        return Err(Fault::NotPossible(format!("no record {id}"), hint));
                    }
                }
            }
            let mut forgotten = Forgotten { items, requests: requests.len() as u64, ..Forgotten::default() };
            for request in &requests {
                t.execute("DELETE FROM feedback WHERE request = ?1", [request])?;
                forgotten.verdicts += t.execute("DELETE FROM verdicts WHERE request = ?1", [request])? as u64;
                t.execute("DELETE FROM review_items WHERE request = ?1", [request])?;
                t.execute("DELETE FROM requests WHERE id = ?1", [request])?;
            }
            // Requests of others with the same messages stay, and the item waits for review with their completion.
            for item in &forgotten.items {
                let sql = "INSERT OR IGNORE INTO review_items (item, request, gate, added_ms)
                           SELECT item, id, ?2, at_ms FROM requests WHERE item = ?1 ORDER BY at_ms, id LIMIT 1";
                t.execute(sql, params![item, self.is_of_gate(item)])?;
            }
            touched(t, &mut forgotten)?;
            let detail = json!({ "items": forgotten.items, "turns": forgotten.turns, "models": forgotten.models });
            audit::add(t, person, "forget", if matches!(what, Forget::User(_)) { "a user" } else { "a record" }, detail)?;
            t.execute("INSERT INTO erasures_due (since_ms) VALUES (?1)", [now])?;
            Ok(forgotten)
        })?;
        self.finish_erasing()?;
        Ok(forgotten)
    }

    /// Erases what forgotten rows left behind: `secure_delete` has overwritten the freed pages, but old versions of pages may still stand
    /// in the write-ahead log. A process that is killed in the middle leaves the row in `erasures_due`, and the next one to open the
    /// folder for writing goes on.
    pub(super) fn finish_erasing(&self) -> Result<(), StoreError> {
        let due = "SELECT max(id) FROM erasures_due";
        let erased = self.read(|c| {
            let Some(last) = c.query_row(due, [], |row| row.get::<_, Option<i64>>(0))? else { return Ok(None) };
            // The first column says whether a reader was in the way of emptying the log.
            let empty_log = || c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
            empty_log()?;
            c.execute_batch("VACUUM")?;
            Ok((!empty_log()?).then_some(last))
        })?;
        // What another process forgot in the meantime is still due.
        if let Some(last) = erased {
            self.write(|t| t.execute("DELETE FROM erasures_due WHERE id <= ?1", [last]).map(drop))?;
        }
        Ok(())
    }
}

/// Finds the turns and models that forgotten items influenced, and flags the models.
fn touched(t: &rusqlite::Transaction, forgotten: &mut Forgotten) -> rusqlite::Result<()> {
    let (mut turns, mut models) = (std::collections::BTreeSet::new(), Vec::new());
    for item in &forgotten.items {
        let mut of_item = t.prepare_cached("SELECT turn FROM turn_records WHERE item = ?1")?;
        turns.extend(of_item.query_map([item], |row| row.get::<_, i64>(0))?.collect::<Result<Vec<_>, _>>()?);
    }
    // A model's influence extends to the models made from it. A turn that used a record only in the gate did not train
    // on it.
    let taught = "SELECT t.candidate, t.incumbent, EXISTS (SELECT 1 FROM turn_records r WHERE r.turn = t.id AND r.role <> 'gate' AND r.item = ?2)
                  FROM turns t WHERE t.id = ?1 AND t.candidate IS NOT NULL";
    let all = t
        .prepare("SELECT id FROM turns ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<Vec<i64>, _>>()?;
    for turn in all {
        for item in &forgotten.items {
            let mut rows = t.prepare_cached(taught)?;
            let mut rows = rows.query(params![turn, item])?;
            if let Some(row) = rows.next()? {
                let (candidate, incumbent): (String, String) = (row.get(0)?, row.get(1)?);
                if (row.get::<_, bool>(2)? || models.contains(&incumbent)) && !models.contains(&candidate) {
                    models.push(candidate);
                }
            }
        }
    }
    for model in &models {
        t.execute("UPDATE models SET flag = 'learned from a forgotten record' WHERE id = ?1", [model])?;
    }
    forgotten.turns = turns.into_iter().collect();
    forgotten.models = models;
    Ok(())
}
