//! The ledger: what each stage cost, what it achieved, and what it was made from. Each run has one SQLite file, in WAL
//! mode.
//!
//! Rows are added and never changed; a second [`Ledger::record_stage`] of the same stage is an error. So one number per
//! table says which rows existed when a checkpoint was taken: see [`Ledger::marks`] and [`Ledger::cut_back`]. Every
//! call is one transaction, which is on the disk when the call returns.
//!
//! A ledger of an older format is converted to today's when it is opened for writing. Opened for reading it is not changed, and
//! its rows appear in today's form.
//!
//! Only this module and [`crate::data_folder`] contain SQL. The ledger stores accuracies and intervals and computes
//! none.
//!
//! Read next: [`rows`] for the rows, [`meters`] for labels and answers, [`lineage`] for which model was made from
//! which.

mod files;
pub mod lineage;
pub mod meters;
pub mod rows;
mod seal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rusqlite::{Connection, OpenFlags, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StoreError;
use rows::{BaselineRow, Notice, Opening, RolloutFile, StageRow};

/// The schema version that this build writes.
const FORMAT: u64 = 3;

/// What to do about a damaged ledger.
const BRING_BACK: &str =
    "bring back the ledger that belongs to the checkpoints, or begin a run under another name with --name";

/// Tables that are cut back to the commit point.
const CUT_BACK: [&str; 9] = [
    "stages",
    "baselines",
    "labels",
    "answers_read",
    "record_uses",
    "lineage",
    "notices",
    "rollout_files",
    "exported_files",
];

/// The largest row id of each table. The rows up to it existed when the marks were taken.
pub type Marks = BTreeMap<String, i64>;

/// For each table, the largest row id that was hashed for the seal, and the hash so far. Rows never change, so only new ones are added.
type Hashed = BTreeMap<&'static str, (i64, blake3::Hasher)>;

/// One run's ledger. It may be used from any thread; one call runs at a time.
#[derive(Debug)]
pub struct Ledger {
    connection: Mutex<Connection>,
    path: PathBuf,
    hashed: Mutex<Hashed>,
}

impl Ledger {
    /// Opens the ledger for writing; an absent one is made.
    ///
    /// # Errors
    /// [`StoreError::LaterFormat`], [`StoreError::DiskFull`], [`StoreError::Ledger`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let ledger = Self::new(path, Connection::open(path).map_err(|e| StoreError::ledger(path, e))?);
        ledger.write(|t| {
            let found: u64 = t.query_row("PRAGMA user_version", [], |row| unsigned(row, 0))?;
            match found {
                0 => t.execute_batch(include_str!("schema.sql")),
                1 => {
                    t.execute_batch(include_str!("from_1.sql"))?;
                    t.execute_batch(include_str!("from_2.sql"))
                }
                2 => t.execute_batch(include_str!("from_2.sql")),
                _ => Ok(()),
            }
        })?;
        ledger.check_format()?;
        Ok(ledger)
    }

    /// Opens an existing ledger for reading, also while a run writes it, and on a disk that cannot be written.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = |flags, name: &str| {
            Connection::open_with_flags(name, flags).and_then(|c| {
                c.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
                Ok(c)
            })
        };
        let plain = path.to_string_lossy();
        // Reading a WAL database makes a small file beside it. If the folder cannot be written, nobody else writes to the database either.
        let connection = open(flags.difference(OpenFlags::SQLITE_OPEN_URI), &plain).or_else(|first| {
            let escaped = plain.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            open(flags, &format!("file:{escaped}?immutable=1")).map_err(|_| first)
        });
        let ledger = Self::new(path, connection.map_err(|e| StoreError::ledger(path, e))?);
        let format = ledger.check_format()?;
        if format == 1 {
            ledger.read(|c| c.execute_batch(include_str!("view_of_1.sql")))?;
        }
        if format <= 2 {
            ledger.read(|c| c.execute_batch(include_str!("view_of_2.sql")))?;
        }
        Ok(ledger)
    }

    fn new(path: &Path, connection: Connection) -> Self {
        // FULL makes each transaction durable on its own; the pragmas are no-ops on a read-only connection.
        let _ = connection.pragma_update(None, "journal_mode", "WAL");
        let _ = connection.pragma_update(None, "synchronous", "FULL");
        let _ = connection.busy_timeout(std::time::Duration::from_secs(10));
        Ledger { connection: Mutex::new(connection), path: path.to_path_buf(), hashed: Mutex::default() }
    }

    /// The file's format.
    fn check_format(&self) -> Result<u64, StoreError> {
        let found: u64 = self.read(|c| c.query_row("PRAGMA user_version", [], |row| unsigned(row, 0)))?;
        if found > FORMAT {
            return Err(StoreError::LaterFormat { path: self.path.clone(), found, known: FORMAT });
        }
        Ok(found)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A poisoned lock means that a caller panicked between transactions. The database itself is whole.
        self.connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        work(&self.lock()).map_err(|e| StoreError::ledger(&self.path, e))
    }

    fn write<T>(&self, work: impl FnOnce(&Transaction) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let run = || {
            let transaction = connection.transaction()?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(|e| StoreError::ledger(&self.path, e))
    }

    /// The largest row id of every table that [`Self::cut_back`] cuts.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn marks(&self) -> Result<Marks, StoreError> {
        self.read(|c| {
            let largest = |table: &&str| {
                let sql = format!("SELECT coalesce(max(id), 0) FROM {table}");
                Ok((table.to_string(), c.query_row(&sql, [], |row| row.get(0))?))
            };
            CUT_BACK.iter().map(largest).collect()
        })
    }

    /// Drops every row beyond `marks`; a table without a mark loses all rows. Withdrawals and openings are kept.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where rows that the marks promise are missing; [`StoreError::Ledger`].
    pub fn cut_back(&self, marks: &Marks) -> Result<(), StoreError> {
        self.check_reaches(marks)?;
        self.write(|t| {
            for table in CUT_BACK {
                let mark = marks.get(table).copied().unwrap_or(0);
                t.execute(&format!("DELETE FROM {table} WHERE id > ?1"), [mark])?;
            }
            Ok(())
        })?;
        self.forget_hashed();
        Ok(())
    }

    /// Checks that every row that `marks` promise exists.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] naming the table; [`StoreError::Ledger`].
    pub fn check_reaches(&self, marks: &Marks) -> Result<(), StoreError> {
        let present = self.marks()?;
        for (table, &mark) in marks {
            let largest = present.get(table).copied().unwrap_or(0);
            if largest < mark {
                return Err(StoreError::Damaged {
                    path: self.path.clone(),
                    reason: format!("table {table} ends at row {largest}, and the checkpoint was taken at row {mark}"),
                    hint: BRING_BACK,
                });
            }
        }
        Ok(())
    }

    /// Adds a finished stage.
    ///
    /// # Errors
    /// [`StoreError::Ledger`], also if the stage has a row already.
    pub fn record_stage(&self, row: &StageRow) -> Result<(), StoreError> {
        self.write(|t| {
            t.execute(
                "INSERT INTO stages (stage, stage_index, kind, model, accuracy, low, high, n, labels, answers_read, rollouts,
                 teacher_tokens, train_tokens, flops, seconds, cost, digest, extra)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
                params![
                    row.stage, signed(row.index), row.kind, row.model, row.accuracy, row.low, row.high, signed(row.n),
                    signed(row.labels), signed(row.answers_read), signed(row.rollouts), signed(row.teacher_tokens),
                    signed(row.train_tokens), row.flops, row.seconds, row.cost, row.digest, to_json(&row.extra),
                ],
            )
        })
        .map(drop)
    }

    /// Finished stages in the order in which they finished.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn stages(&self) -> Result<Vec<StageRow>, StoreError> {
        self.all("SELECT * FROM stages ORDER BY id", |row| {
            Ok(StageRow {
                index: unsigned(row, "stage_index")?,
                stage: row.get("stage")?,
                kind: row.get("kind")?,
                model: row.get("model")?,
                accuracy: row.get("accuracy")?,
                low: row.get("low")?,
                high: row.get("high")?,
                n: unsigned(row, "n")?,
                labels: unsigned(row, "labels")?,
                answers_read: unsigned(row, "answers_read")?,
                rollouts: unsigned(row, "rollouts")?,
                teacher_tokens: unsigned(row, "teacher_tokens")?,
                train_tokens: unsigned(row, "train_tokens")?,
                flops: row.get("flops")?,
                seconds: row.get("seconds")?,
                cost: row.get("cost")?,
                digest: row.get("digest")?,
                extra: from_json(row, "extra")?,
            })
        })
    }

    /// Adds a baseline.
    ///
    /// # Errors
    /// [`StoreError::Ledger`], also if a baseline with that name has a row already.
    pub fn record_baseline(&self, row: &BaselineRow) -> Result<(), StoreError> {
        self.write(|t| {
            t.execute(
                "INSERT INTO baselines (name, accuracy, low, high, n, labels, answers_read, seconds, extra)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    row.name,
                    row.accuracy,
                    row.low,
                    row.high,
                    signed(row.n),
                    signed(row.labels),
                    signed(row.answers_read),
                    row.seconds,
                    to_json(&row.extra),
                ],
            )
        })
        .map(drop)
    }

    /// Baselines in the order in which they were added.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn baselines(&self) -> Result<Vec<BaselineRow>, StoreError> {
        self.all("SELECT * FROM baselines ORDER BY id", |row| {
            Ok(BaselineRow {
                name: row.get("name")?,
                accuracy: row.get("accuracy")?,
                low: row.get("low")?,
                high: row.get("high")?,
                n: unsigned(row, "n")?,
                labels: unsigned(row, "labels")?,
                answers_read: unsigned(row, "answers_read")?,
                seconds: row.get("seconds")?,
                extra: from_json(row, "extra")?,
            })
        })
    }

    /// Adds a notice, unless it is there already: a resumed stage may repeat its notices.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn record_notice(&self, notice: &Notice) -> Result<(), StoreError> {
        let sql = "INSERT INTO notices (kind, stage, text, count) SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS
                   (SELECT 1 FROM notices WHERE kind = ?1 AND stage IS ?2 AND text = ?3)";
        self.insert_each(sql, std::slice::from_ref(notice), |statement, n| {
            statement.execute(params![n.kind, n.stage, n.text, signed(n.count)])
        })
    }

    /// Notices in the order in which they were added.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn notices(&self) -> Result<Vec<Notice>, StoreError> {
        self.all("SELECT kind, stage, text, count FROM notices ORDER BY id", |row| {
            Ok(Notice { kind: row.get(0)?, stage: row.get(1)?, text: row.get(2)?, count: unsigned(row, 3)? })
        })
    }

    pub(crate) fn record_rollout_file(&self, file: &RolloutFile) -> Result<(), StoreError> {
        let sql = "INSERT INTO rollout_files (stage, step, rows, blake3) VALUES (?1, ?2, ?3, ?4)";
        self.insert_each(sql, std::slice::from_ref(file), |statement, f| {
            statement.execute(params![f.stage, signed(f.step), signed(f.rows), f.blake3])
        })
    }

    /// Rollout files in the order in which they were written.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn rollout_files(&self) -> Result<Vec<RolloutFile>, StoreError> {
        self.all("SELECT stage, step, rows, blake3 FROM rollout_files ORDER BY id", |row| {
            Ok(RolloutFile {
                stage: row.get(0)?,
                step: unsigned(row, 1)?,
                rows: unsigned(row, 2)?,
                blake3: row.get(3)?,
            })
        })
    }

    pub(crate) fn record_opening(&self, opening: &Opening) -> Result<(), StoreError> {
        let sql = "INSERT INTO openings (unix_seconds, checkpoint, notices) VALUES (?1, ?2, ?3)";
        self.insert_each(sql, std::slice::from_ref(opening), |statement, o| {
            statement.execute(params![signed(o.unix_seconds), o.checkpoint, to_json(&o.notices)])
        })
    }

    /// The steps of a stage whose completions are stored, in increasing order.
    pub(crate) fn rollout_steps(&self, stage: &str) -> Result<Vec<u64>, StoreError> {
        let mut steps: Vec<u64> =
            self.rollout_files()?.into_iter().filter(|file| file.stage == stage).map(|file| file.step).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Every time that the run was opened for work. A run that was never interrupted has one.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn openings(&self) -> Result<Vec<Opening>, StoreError> {
        self.all("SELECT * FROM openings ORDER BY id", |row| {
            Ok(Opening {
                unix_seconds: unsigned(row, "unix_seconds")?,
                checkpoint: row.get("checkpoint")?,
                notices: from_json(row, "notices")?,
            })
        })
    }

    fn insert_each<T>(
        &self,
        sql: &str,
        items: &[T],
        insert: impl Fn(&mut rusqlite::Statement, &T) -> rusqlite::Result<usize>,
    ) -> Result<(), StoreError> {
        self.write(|t| {
            let mut statement = t.prepare_cached(sql)?;
            items.iter().try_for_each(|item| insert(&mut statement, item).map(drop))
        })
    }

    fn all<T>(&self, sql: &str, map: impl FnMut(&Row) -> rusqlite::Result<T>) -> Result<Vec<T>, StoreError> {
        self.read(|c| c.prepare_cached(sql)?.query_map([], map)?.collect())
    }
}

/// SQLite's integers are signed; no count of ours reaches 2^63.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).expect("a count below 2^63")
}

pub(crate) fn unsigned(row: &Row, index: impl rusqlite::RowIndex) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index).map(|v| v.max(0) as u64)
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("rows serialise")
}

fn from_json<T: DeserializeOwned>(row: &Row, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e)))
}

/// The word that serde writes for a variant without fields.
fn to_word<T: Serialize>(value: &T) -> String {
    to_json(value).trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ledger_is_a_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.sqlite")).unwrap();
        let pages: i64 = ledger.read(|c| c.query_row("PRAGMA page_count", [], |row| row.get(0))).unwrap();
        ledger.read(|c| c.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))).unwrap();
        let long =
            |i: usize| Notice { kind: "k".into(), text: format!("{i} {}", "x".repeat(1 << 16)), ..Notice::default() };
        let error = (0..64).find_map(|i| ledger.record_notice(&long(i)).err()).unwrap();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        assert!(error.to_string().contains("ledger.sqlite"), "{error}");
    }
}
