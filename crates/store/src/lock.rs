//! Allows one process per folder: an advisory lock on the file `lock`, which also names its holder. Runs and data
//! folders have one.
//!
//! The folder itself is locked too where the system allows it, so that a lock file that a person removed lets nobody in.
//!
//! The system releases the lock when the process ends, however it ends, so there is never a stale lock to remove. Only
//! the lock counts, not the file's content or existence.
//!
//! Read next: [`crate::run`].

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::StoreError;

/// A held lock. Dropping it releases it.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
    /// The folder itself, locked too: a person may remove the file.
    #[cfg(unix)]
    folder: File,
}

/// Tries of [`FolderLock::take`]. [`is_locked`] holds a shared lock for a moment; a run that starts keeps trying for
/// longer than that.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

impl FolderLock {
    /// Takes the lock at `folder/lock` for the run `name`.
    ///
    /// # Errors
    /// [`StoreError::Locked`] with the holder's process id; [`StoreError::Io`] if the file cannot be made.
    pub fn take(folder: &Path, name: &str) -> Result<Self, StoreError> {
        let path = lock_path(folder);
        let fail = |e| StoreError::io("lock", &path, e);
        let mut options = OpenOptions::new();
        options.create(true).read(true).write(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(fail)?;
        #[cfg(unix)]
        let folder = File::open(folder).map_err(fail)?;
        let try_lock = || {
            #[cfg(unix)]
            folder.try_lock()?;
            file.try_lock()
        };
        for attempt in 0.. {
            match try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempt + 1 < TRIES => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                    return Err(StoreError::Locked { name: name.to_owned(), path, pid });
                }
                Err(TryLockError::Error(e)) => return Err(fail(e)),
            }
        }
        file.set_len(0).map_err(fail)?;
        file.rewind().map_err(fail)?;
        writeln!(file, "{}", std::process::id()).map_err(fail)?;
        Ok(FolderLock {
            _file: file,
            #[cfg(unix)]
            folder,
        })
    }

    /// Checks that the locked folder still has its path. If it was moved or replaced, another process may write there.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`].
    pub(crate) fn check_in_place(&self, folder: &Path) -> Result<(), StoreError> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
            let held = self.folder.metadata().map_err(|e| StoreError::io("read", folder, e))?;
            if !std::fs::metadata(folder).is_ok_and(|found| identity(found) == identity(held)) {
                let problem = format!("{} was moved or replaced while this process worked in it", folder.display());
                return Err(StoreError::not_possible(problem, "bring the folder back and give the same command again"));
            }
        }
        Ok(())
    }
}

/// Whether some process holds the run in `folder`. A run whose lock cannot be read counts as free.
pub fn is_locked(folder: &Path) -> bool {
    let held = |path: &Path| {
        File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    };
    held(&lock_path(folder)) || (cfg!(unix) && held(folder))
}

fn lock_path(folder: &Path) -> PathBuf {
    folder.join("lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_locked(folder.path()));
        let held = FolderLock::take(folder.path(), "road").unwrap();
        assert!(is_locked(folder.path()));
        let error = FolderLock::take(folder.path(), "road").unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        std::fs::remove_file(lock_path(folder.path())).unwrap();
        assert!(cfg!(not(unix)) || is_locked(folder.path()), "the folder itself is locked");
        assert!(cfg!(not(unix)) || FolderLock::take(folder.path(), "road").is_err());
        drop(held);
        assert!(!is_locked(folder.path()));
        FolderLock::take(folder.path(), "road").unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_was_replaced_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("run");
        std::fs::create_dir(&folder).unwrap();
        let held = FolderLock::take(&folder, "run").unwrap();
        held.check_in_place(&folder).unwrap();
        std::fs::rename(&folder, place.path().join("moved")).unwrap();
        held.check_in_place(&folder).unwrap_err();
        std::fs::create_dir(&folder).unwrap();
        let error = held.check_in_place(&folder).unwrap_err().to_string();
        assert!(error.contains("moved or replaced"), "{error}");
    }
}
