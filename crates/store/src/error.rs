//! The one error type of this crate. Every message names its path, and [`StoreError::hint`] says what a person can do.
//!
//! Read next: [`crate::disk`], where most of them begin.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use crate::changes::Change;

/// Everything that can go wrong with stored files. Bugs of the caller panic instead.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, or the user's share of it. What was committed before is untouched.
    #[error("no space left while trying to {action} {}", path.display())]
    DiskFull {
        /// What was being done, as an infinitive: "write".
        action: &'static str,
        /// The file or folder that did not fit.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },

    /// Any other failure of the file system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as an infinitive.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },

    /// Another process works on this run.
    #[error(
        "run `{name}` is in use by {} (lock: {})",
        match pid { Some(pid) => format!("process {pid}"), None => "another process".to_owned() },
        path.display()
    )]
    Locked {
        /// The run.
        name: String,
        /// The lock file.
        path: PathBuf,
        /// The holder, if the lock file names it.
        pid: Option<u32>,
    },

    /// Another server serves from this data folder.
    #[error(
        "the data folder is in use by {} (lock: {})",
        match pid { Some(pid) => format!("process {pid}"), None => "another process".to_owned() },
        path.display()
    )]
    FolderLocked {
        /// The lock file.
        path: PathBuf,
        /// The holder, if the lock file names it.
        pid: Option<u32>,
    },

    /// What was asked for makes no sense in the present state; nothing was changed.
    #[error("{problem}")]
    NotPossible {
        /// What prevents it.
        problem: String,
        /// What to do instead.
        hint: &'static str,
    },

    /// The run exists and was made by a different recipe.
    #[error(
        "run `{name}` was made by another recipe; {} differ{}:{}",
        keys(changes.len()),
        if changes.len() == 1 { "s" } else { "" },
        indented(changes)
    )]
    RecipeChanged {
        /// The run.
        name: String,
        /// The stored recipe.
        path: PathBuf,
        /// Every key that differs, in the order of their paths.
        changes: Vec<Change>,
    },

    /// A recipe is not TOML.
    #[error("{} is not valid TOML: {source}", path.display())]
    RecipeSyntax {
        /// The run's own `recipe.toml`, or the new recipe.
        path: PathBuf,
        /// Line and column, from the parser.
        source: Box<toml::de::Error>,
    },

    /// A name that cannot be a file name.
    #[error("`{name}` cannot name a {what}: {why}")]
    BadName {
        /// "run", "stage", "blob".
        what: &'static str,
        /// The name as given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },

    /// There is no run of that name.
    #[error("no run at {}", path.display())]
    NoSuchRun {
        /// Where it should be.
        path: PathBuf,
        /// The runs that exist there.
        known: Vec<String>,
    },

    /// There is no checkpoint at the end of a stage to go back to.
    #[error("run `{name}` holds no end of stage \"{stage}\" to go back to")]
    StageEndGone {
        /// The run.
        name: String,
        /// The stage.
        stage: String,
    },

    /// Checkpoints exist and none can be used.
    #[error("no checkpoint in {} can be used:{}", path.display(), indented(reasons))]
    NoGoodCheckpoint {
        /// The folder of checkpoints.
        path: PathBuf,
        /// One line for each checkpoint, newest first.
        reasons: Vec<String>,
    },

    /// A file does not hold what it should.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
        /// How to fix it.
        hint: &'static str,
    },

    /// The run was written by a later Ferule.
    #[error("{} has format {found}, and this Ferule reads formats up to {known}", path.display())]
    LaterFormat {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u64,
        /// The newest format that this build reads.
        known: u64,
    },

    /// An error of SQLite.
    #[error("ledger {}: {}", path.display(), in_words(source))]
    Ledger {
        /// The ledger.
        path: PathBuf,
        /// SQLite's own error.
        source: rusqlite::Error,
    },

    /// A Parquet file could not be written or read.
    #[error("rollouts {}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Parquet's own error.
        source: parquet::errors::ParquetError,
    },

    /// Tensors were given to [`crate::ModelDigest`] out of name order.
    #[error("tensor `{name}` comes after `{previous}` in a digest, but names must rise byte by byte")]
    DigestOrder {
        /// The name before.
        previous: String,
        /// The name that does not sort after it.
        name: String,
    },

    /// A tensor has more or fewer bytes than were announced.
    #[error("tensor `{name}` was announced with {announced} bytes and came with {found}")]
    DigestLength {
        /// The tensor.
        name: String,
        /// Bytes announced.
        announced: u64,
        /// Bytes fed.
        found: u64,
    },

    /// The thread that writes checkpoints has panicked.
    #[error("the checkpoint writer of {} has stopped", path.display())]
    WriterGone {
        /// The folder of checkpoints.
        path: PathBuf,
    },
}

impl StoreError {
    /// What a person can do about it; `None` where only the system knows.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            StoreError::DiskFull { .. } => {
                "what was committed before is whole; free some space and give the same command again, it goes on from the last checkpoint"
            }
            StoreError::Locked { .. } => "wait for it, stop it, or start a second run under another name with --name",
            StoreError::FolderLocked { .. } => "stop that server, or give this one another folder with --data",
            StoreError::NotPossible { hint, .. } | StoreError::Damaged { hint, .. } => hint,
            StoreError::RecipeChanged { path, .. } => {
                let path = path.display();
                let hint = format!("start it under another name with --name, or put the old values back ({path})");
                return Some(hint.into());
            }
            StoreError::BadName { .. } => "use letters, digits, `-`, `_` and `.`, not at the start",
            StoreError::NoSuchRun { known, .. } => return Some(known_runs(known).into()),
            StoreError::StageEndGone { .. } => {
                "let it finish that stage first, or begin a run under another name with --name"
            }
            StoreError::NoGoodCheckpoint { .. } => "bring a good one back, or remove that folder to begin the run anew",
            StoreError::LaterFormat { .. } => "use the Ferule that wrote it, or a later one",
            StoreError::WriterGone { .. } => "give the same command again, it goes on from the last checkpoint",
            StoreError::Ledger { source, .. } => return of_sqlite(source).map(Into::into),
            StoreError::Io { source, .. } => return of_system(source.kind()).map(Into::into),
            StoreError::RecipeSyntax { .. }
            | StoreError::Parquet { .. }
            | StoreError::DigestOrder { .. }
            | StoreError::DigestLength { .. } => return None,
        };
        Some(hint.into())
    }

    /// Wraps a system error; a full disk is an error of its own.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        if is_full(&source) {
            StoreError::DiskFull { action, path, source }
        } else {
            StoreError::Io { action, path, source }
        }
    }

    /// An error that says what is not possible, and what is.
    pub fn not_possible(problem: impl Into<String>, hint: &'static str) -> Self {
        StoreError::NotPossible { problem: problem.into(), hint }
    }

    /// Wraps an SQLite error; a full disk is an error of its own.
    pub fn ledger(path: &Path, source: rusqlite::Error) -> Self {
        if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            let full = io::Error::new(io::ErrorKind::StorageFull, source);
            return StoreError::DiskFull { action: "write the ledger", path: path.to_path_buf(), source: full };
        }
        StoreError::Ledger { path: path.to_path_buf(), source }
    }

    /// Wraps a Parquet error.
    pub fn parquet(path: &Path, source: parquet::errors::ParquetError) -> Self {
        StoreError::Parquet { path: path.to_path_buf(), source }
    }
}

/// What a person can do about an error of the file system.
fn of_system(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::PermissionDenied => Some("check who owns it and its folder, and who may read and write them"),
        io::ErrorKind::ReadOnlyFilesystem => Some("nothing can be written there: choose another place"),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => Some(
            "a file stands where a folder is needed, or a folder where a file is: move it away, or choose another place",
        ),
        _ => None,
    }
}

/// What a person can do about an error of SQLite.
fn of_sqlite(error: &rusqlite::Error) -> Option<&'static str> {
    use rusqlite::ErrorCode::*;
    match error {
        rusqlite::Error::SqliteFailure(error, _) => match error.code {
            NotADatabase | DatabaseCorrupt | TypeMismatch | ConstraintViolation | Unknown => {
                Some("the file is damaged or was changed by something else: bring it back from a copy")
            }
            CannotOpen | PermissionDenied | ReadOnly | AuthorizationForStatementDenied => {
                Some("check who owns the file and its folder, and who may read and write them")
            }
            SystemIoFailure => {
                Some("check the disk: whether it is full, of a kind that cannot lock files, or failing (`dmesg`)")
            }
            DatabaseBusy | DatabaseLocked => {
                Some("another process writes there: wait for it, then give the command again")
            }
            _ => None,
        },
        // A row that no version of Ferule writes.
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::QueryReturnedNoRows
        | rusqlite::Error::InvalidColumnName(..)
        | rusqlite::Error::Utf8Error(..)
        | rusqlite::Error::SqlInputError { .. } => {
            Some("the file is damaged or was changed by something else: bring it back from a copy")
        }
        _ => None,
    }
}

/// An error of SQLite in words: without its codes, and without names from the schema alone.
fn in_words(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::SystemIoFailure) => "the disk fails to read, write or lock it".to_owned(),
        Some(rusqlite::ErrorCode::ConstraintViolation) => "its rows contradict each other".to_owned(),
        Some(rusqlite::ErrorCode::NotADatabase) => "it is no SQLite file".to_owned(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => "it is damaged".to_owned(),
        Some(rusqlite::ErrorCode::CannotOpen) => "it cannot be opened".to_owned(),
        Some(rusqlite::ErrorCode::ReadOnly) => "it may not be written".to_owned(),
        Some(rusqlite::ErrorCode::DatabaseBusy) => "another process has been writing to it for 10 s".to_owned(),
        _ => error.to_string(),
    }
}

/// To a user, a full disk, a spent quota and a file past the size limit are the same.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

fn keys(n: usize) -> String {
    if n == 1 { "one key".to_owned() } else { format!("{n} keys") }
}

/// Each on a line of its own, indented.
fn indented(lines: &[impl std::fmt::Display]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

fn known_runs(known: &[String]) -> String {
    if known.is_empty() {
        "there are no runs there yet; `ferule run RECIPE` makes one".to_owned()
    } else {
        format!("runs there: {}", known.join(", "))
    }
}
