//! The data folder: what outlives runs. Documents, found labels, requests, feedback, reviews, verdicts, turns, the model in service, and an
//! audit, in one SQLite file in WAL mode.
//!
//! | path            | what it is                                                        |
//! |-----------------|-------------------------------------------------------------------|
//! | `ledger.sqlite` | everything below                                                  |
//! | `key`           | 32 random bytes, made once; marks and random draws are derived from them |
//! | `lock`          | an advisory lock: one server at a time                             |
//! | `turns/0001/`   | the files and the run of one turn of the flywheel                 |
//!
//! Only the owner can access the folder and its files (0700 and 0600). Every call that changes something is one
//! transaction, which includes its line of the [`audit`], and it is on the disk when the call returns. Runs have their
//! own ledgers; a turn refers to its run.
//!
//! It never trains, serves or prints, and it knows no model: a model is an id and a path.
//!
//! Read next: [`exchanges`] (what is collected), [`review`] (people's verdicts), [`turns`], [`service`], [`forget`].

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

/// The first format whose audit has a head.
const FIRST_FORMAT_WITH_HEAD: u64 = 3;

/// The schema version that this build writes.
const FORMAT: u64 = 3;

/// What turns each format into the next one, from format 1 on.
const MIGRATIONS: [&str; FORMAT as usize - 1] = [
    "CREATE TABLE erasures_due (id INTEGER PRIMARY KEY AUTOINCREMENT, since_ms INTEGER NOT NULL); PRAGMA user_version = 2;",
    "CREATE TABLE IF NOT EXISTS audit_head (id INTEGER PRIMARY KEY CHECK (id = 1), sequence INTEGER NOT NULL, hash TEXT NOT NULL,
     mark TEXT NOT NULL); PRAGMA user_version = 3;",
];

/// An open data folder. It may be used from any thread and from several processes. Calls in one process run one at a
/// time.
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
    /// [`StoreError::Damaged`] for an invalid key.
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
        opened.write(|t| {
            let format = t.query_row("PRAGMA user_version", [], |row| unsigned(row, 0))?;
            match format {
                0 => t.execute_batch(include_str!("schema.sql"))?,
                _ => {
                    MIGRATIONS.iter().skip(format as usize - 1).try_for_each(|migration| t.execute_batch(migration))?
                }
            }
            if format < FIRST_FORMAT_WITH_HEAD { opened.begin_head(t) } else { Ok(()) }
        })?;
        opened.check_format()?;
        opened.finish_erasing()?;
        Ok(opened)
    }

    /// Opens an existing data folder for writing. It never makes one, so that a wrong path is an error.
    ///
    /// # Errors
    /// As [`Self::open`]; [`StoreError::NotPossible`] if there is none.
    pub fn open_existing(folder: &Path) -> Result<DataFolder, StoreError> {
        refuse_absent(folder)?;
        DataFolder::open(folder)
    }

    /// Reserves the folder for one server until the returned lock is dropped.
    ///
    /// # Errors
    /// [`StoreError::FolderLocked`] while another server holds it; [`StoreError::Io`].
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
    /// As [`Self::open`]; [`StoreError::NotPossible`] if there is none.
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
        let damaged = |reason: String| StoreError::Damaged {
            path: key.to_path_buf(),
            reason,
            hint: "bring the file back from a copy: marks of forgotten records cannot be recognised without it",
        };
        let text = fs::read_to_string(key).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidData => damaged(e.to_string()),
            _ => StoreError::io("read", key, e),
        })?;
        let key = blake3::Hash::from_hex(text.trim()).map_err(|e| damaged(e.to_string()))?;
        let _ = connection.busy_timeout(Duration::from_secs(10));
        // FULL makes each transaction durable on its own. Deleted content is overwritten. The pragmas do nothing on a
        // read-only connection.
        let _ = connection.pragma_update(None, "journal_mode", "WAL");
        let _ = connection.pragma_update(None, "synchronous", "FULL");
        let _ = connection.pragma_update(None, "secure_delete", "ON");
        let _ = connection.pragma_update(None, "foreign_keys", "ON");
        let connection = Mutex::new(connection);
        Ok(DataFolder { folder: folder.to_path_buf(), connection, key: *key.as_bytes() })
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Makes a folder inside this one, and those above it, that only the owner can access.
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

    /// A path in the form that the ledger keeps: relative to the folder if it lies inside, so that the folder can be
    /// moved, and absolute otherwise.
    pub fn relative(&self, path: &Path) -> String {
        let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let folder = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        whole.strip_prefix(folder).unwrap_or(&whole).to_string_lossy().into_owned()
    }

    /// The path that a path of the ledger refers to.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// A keyed hash of some text. Without the folder's key, nobody can check whether it is the hash of a guessed text.
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
        if found == 0 {
            return Err(StoreError::Damaged {
                path: self.ledger(),
                reason: "it holds nothing".into(),
                hint: "bring it back from a copy, or remove it to begin a new one",
            });
        }
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

    /// One transaction that may end with "not possible"; then nothing is changed.
    fn change<T>(&self, work: impl FnOnce(&Transaction) -> Result<T, Fault>) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let run = || {
            // It takes the write lock at once. Another process may be writing, and a transaction that begins by reading
            // could not wait for that lock.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            self.move_head(&transaction)?;
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

/// Why a transaction failed.
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

/// Makes a folder that only its owner can enter. An existing folder keeps its rights.
fn private_folder(folder: &Path) -> Result<(), StoreError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| StoreError::io("make", folder, e))
}

/// Makes an empty file that only its owner can read, unless it exists. SQLite gives its other files the same rights.
fn private_file(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).and_then(|mut file| file.flush()).map_err(|e| StoreError::io("make", path, e))
}
