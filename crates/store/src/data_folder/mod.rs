//! The data folder: what outlives runs. Documents, found labels, requests, feedback, reviews, verdicts, turns, the model in service, and an
//! audit, in one SQLite file in WAL mode.
//!
//! | path            | what it is                                                        |
//! |-----------------|-------------------------------------------------------------------|
//! | `ledger.sqlite` | everything below                                                  |
//! | `key`           | 32 random bytes, made once; marks and draws derive from them       |
//! | `lock`          | an advisory lock: one server at a time                             |
//! | `turns/0001/`   | the files and the run of one turn of the flywheel                 |
//!
//! Folder and files are for their owner alone (0700 and 0600). Every call that changes something is one transaction together with its line of
//! the [`audit`], and is on the disk when the call returns. Runs keep ledgers of their own; a turn refers to its run.
//!
//! It never trains, serves or prints, and it knows no model: a model is an id and a path.
//!
//! Read next: [`exchanges`] (what is collected), [`review`] (what people say of it), [`turns`], [`service`], [`forget`].

pub mod audit;
pub mod exchanges;
pub mod forget;
pub mod found;
pub mod people;
pub mod review;
pub mod service;
pub mod turns;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OpenFlags, Row, Transaction, TransactionBehavior};

use crate::disk;
use crate::error::StoreError;
use crate::ledger::unsigned;
use crate::lock::{self, FolderLock};

/// The schema version that this build writes.
const FORMAT: u64 = 2;

/// What turns each format into the next one, from format 1 on.
const MIGRATIONS: [&str; FORMAT as usize - 1] =
    ["CREATE TABLE erasures_due (since_ms INTEGER NOT NULL); PRAGMA user_version = 2;"];

/// An open data folder. It may be used from any thread, where one call runs at a time, and from several processes.
#[derive(Debug)]
pub struct DataFolder {
    folder: PathBuf,
    connection: Mutex<Connection>,
    key: [u8; 32],
}

impl DataFolder {
    /// Opens a data folder for writing; an absent one is made.
    ///
    /// # Errors
    /// [`StoreError::LaterFormat`], [`StoreError::Io`], [`StoreError::DiskFull`], [`StoreError::Ledger`], and
    /// [`StoreError::Damaged`] for a key that is none.
    pub fn open(folder: &Path) -> Result<DataFolder, StoreError> {
        private_folder(folder)?;
        let (ledger, key) = (folder.join("ledger.sqlite"), folder.join("key"));
        if !key.exists() {
            let mut fresh = [0; 32];
            getrandom::fill(&mut fresh).map_err(|e| StoreError::io("make", &key, io::Error::other(e)))?;
            disk::make_private(&key, blake3::Hash::from_bytes(fresh).to_hex().as_bytes())?;
        }
        private_file(&ledger)?;
        let connection = Connection::open(&ledger).map_err(|e| StoreError::ledger(&ledger, e))?;
        let opened = DataFolder::of(folder, connection, &key)?;
        opened.write(|t| match t.query_row("PRAGMA user_version", [], |row| unsigned(row, 0))? {
            0 => t.execute_batch(include_str!("schema.sql")),
            format => MIGRATIONS.iter().skip(format as usize - 1).try_for_each(|migration| t.execute_batch(migration)),
        })?;
        opened.check_format()?;
        opened.finish_erasing()?;
        Ok(opened)
    }

    /// Opens a data folder that is there already, for writing: a wrong path must not make one.
    ///
    /// # Errors
    /// As [`Self::open`]; [`StoreError::NotPossible`] where there is none.
    pub fn open_existing(folder: &Path) -> Result<DataFolder, StoreError> {
        refuse_absent(folder)?;
        DataFolder::open(folder)
    }

    /// Holds the folder for a server, until what is returned is dropped: one server at a time serves from it.
    ///
    /// # Errors
    /// [`StoreError::FolderLocked`] while another one does; [`StoreError::Io`].
    pub fn hold_for_server(&self) -> Result<FolderLock, StoreError> {
        FolderLock::take(&self.folder, "").map_err(|error| match error {
            StoreError::Locked { path, pid, .. } => StoreError::FolderLocked { path, pid },
            other => other,
        })
    }

    /// Whether a server serves from this folder.
    pub fn is_served(&self) -> bool {
        lock::is_locked(&self.folder)
    }

    /// Opens an existing data folder for reading, also while another process writes it.
    ///
    /// # Errors
    /// As [`Self::open`]; [`StoreError::NotPossible`] where there is none.
    pub fn open_to_read(folder: &Path) -> Result<DataFolder, StoreError> {
        let ledger = folder.join("ledger.sqlite");
        refuse_absent(folder)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&ledger, flags).map_err(|e| StoreError::ledger(&ledger, e))?;
        let opened = DataFolder::of(folder, connection, &folder.join("key"))?;
        opened.check_format()?;
        Ok(opened)
    }

    fn of(folder: &Path, connection: Connection, key: &Path) -> Result<DataFolder, StoreError> {
        let text = fs::read_to_string(key).map_err(|e| StoreError::io("read", key, e))?;
        let key = blake3::Hash::from_hex(text.trim()).map_err(|e| StoreError::Damaged {
            path: key.to_path_buf(),
            reason: e.to_string(),
            hint: "bring the file back from a copy: marks of forgotten records cannot be recognised without it",
        })?;
        let _ = connection.busy_timeout(Duration::from_secs(10));
        // FULL makes each transaction durable on its own. What is deleted is overwritten. The pragmas do nothing on a read-only connection.
        let _ = connection.pragma_update(None, "journal_mode", "WAL");
        let _ = connection.pragma_update(None, "synchronous", "FULL");
        let _ = connection.pragma_update(None, "secure_delete", "ON");
        let _ = connection.pragma_update(None, "foreign_keys", "ON");
        let connection = Mutex::new(connection);
        Ok(DataFolder { folder: folder.to_path_buf(), connection, key: *key.as_bytes() })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Makes a folder inside for its owner alone, and those above it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn private_subfolder(&self, folder: &Path) -> Result<(), StoreError> {
        private_folder(folder)
    }

    /// The folder of a turn.
    pub fn turn_folder(&self, turn: i64) -> PathBuf {
        self.folder.join("turns").join(format!("{turn:04}"))
    }

    /// A path as the ledger keeps it: from the folder where it lies inside, so that the folder may be moved, and whole otherwise.
    pub fn relative(&self, path: &Path) -> String {
        let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let folder = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        whole.strip_prefix(folder).unwrap_or(&whole).to_string_lossy().into_owned()
    }

    /// Where a path of the ledger leads.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// A hash of some text under the folder's key: nobody without the key can tell whether it is that of a text he guesses.
    pub fn mark(&self, purpose: &str, text: &str) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(purpose.as_bytes()).update(&[0]).update(text.as_bytes());
        hasher.finalize()
    }

    fn ledger(&self) -> PathBuf {
        self.folder.join("ledger.sqlite")
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let found = self.read(|c| c.query_row("PRAGMA user_version", [], |row| unsigned(row, 0)))?;
        if found > FORMAT {
            return Err(StoreError::LaterFormat { path: self.ledger(), found, known: FORMAT });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A poisoned lock means that a caller panicked between transactions. The database itself is whole.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        work(&self.lock()).map_err(|e| StoreError::ledger(&self.ledger(), e))
    }

    fn all<T>(&self, sql: &str, map: impl FnMut(&Row) -> rusqlite::Result<T>) -> Result<Vec<T>, StoreError> {
        self.read(|c| c.prepare_cached(sql)?.query_map([], map)?.collect())
    }

    fn write<T>(&self, work: impl FnOnce(&Transaction) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        self.change(|t| Ok(work(t)?))
    }

    /// One transaction that may also find that what was asked for is not possible; then nothing is changed.
    fn change<T>(&self, work: impl FnOnce(&Transaction) -> Result<T, Fault>) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let run = || {
            // At once for writing: another process may write too, and a reader that turns writer could not wait for it.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(|fault| match fault {
            Fault::Sql(error) => StoreError::ledger(&self.ledger(), error),
            Fault::NotPossible(problem, hint) => StoreError::not_possible(problem, hint),
        })
    }
}

fn refuse_absent(folder: &Path) -> Result<(), StoreError> {
    if folder.join("ledger.sqlite").exists() {
        return Ok(());
    }
    let problem = format!("{} is no data folder: it holds no ledger.sqlite", folder.display());
    Err(StoreError::not_possible(problem, "name it with --data, or make one with `ferule serve … --collect`"))
}

/// Why a transaction was not made.
enum Fault {
    Sql(rusqlite::Error),
    NotPossible(String, &'static str),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sql(error)
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Makes a folder that only its owner can enter. One that is there already keeps its rights.
fn private_folder(folder: &Path) -> Result<(), StoreError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| StoreError::io("make", folder, e))
}

/// Makes an empty file that only its owner can read, unless it is there. SQLite gives its other files the same rights.
fn private_file(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).and_then(|mut file| file.flush()).map_err(|e| StoreError::io("make", path, e))
}
