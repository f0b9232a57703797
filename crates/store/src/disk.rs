//! The few file operations that crash safety depends on, behind a trait, so that a test can make any of them fail.
//!
//! This is not a virtual file system: reads go to `std::fs` directly, because a failed read does no harm.
//!
//! [`Disk::temporary`] writes a single file whole or not at all: the file gets a temporary name in the folder of its
//! final path and is renamed when its content is complete. For folders, [`Disk::rename`] does the same.
//!
//! Read next: [`crate::checkpoint`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::StoreError;

/// An open file that can be made durable and cut back.
pub trait OutFile: Write + Send {
    /// Returns when content and length are on the disk.
    ///
    /// # Errors
    /// The system's.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `len` bytes; later writes go there.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// A file under a temporary name. It is removed unless it is renamed to its final path.
pub trait Temporary: OutFile {
    /// Renames the file to `path`; an existing file is replaced.
    ///
    /// # Errors
    /// The system's; the file is removed.
    fn persist(self: Box<Self>, path: &Path) -> io::Result<()>;
}

/// Everything that changes the disk.
pub trait Disk: Send + Sync {
    /// Makes a temporary file in `folder`, under a name that begins with [`TEMPORARY`].
    ///
    /// # Errors
    /// The system's.
    fn temporary(&self, folder: &Path) -> io::Result<Box<dyn Temporary>>;

    /// Makes or empties a file.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, path: &Path) -> io::Result<Box<dyn OutFile>>;

    /// Opens a file to write at its end; an absent file is made.
    ///
    /// # Errors
    /// The system's.
    fn append(&self, path: &Path) -> io::Result<Box<dyn OutFile>>;

    /// Renames a file or folder within one file system; an existing file is replaced.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes a file, or a folder's list of names, durable. Without [`SYNCS_FOLDERS`], folders are left to the system.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder and those above it.
    ///
    /// # Errors
    /// The system's.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Removes a file or a whole folder. A path that does not exist is no error.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// Whether this system can make a folder's list of names durable. Windows has no call for it, so a power cut there may
/// undo the newest rename.
pub const SYNCS_FOLDERS: bool = cfg!(unix);

/// The real disk.
pub struct RealDisk;

impl OutFile for NamedTempFile {
    fn sync(&mut self) -> io::Result<()> {
        self.as_file().sync_all()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.as_file().set_len(len)
    }
}

impl Temporary for NamedTempFile {
    fn persist(self: Box<Self>, path: &Path) -> io::Result<()> {
        NamedTempFile::persist(*self, path).map(drop).map_err(|e| e.error)
    }
}

impl OutFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

impl Disk for RealDisk {
    fn temporary(&self, folder: &Path) -> io::Result<Box<dyn Temporary>> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY);
        // A temporary file can be read by its owner only. This gives it the rights of any new file.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        Ok(Box::new(builder.tempfile_in(folder)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OutFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn OutFile>> {
        Ok(Box::new(OpenOptions::new().create(true).append(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        if !SYNCS_FOLDERS && path.is_dir() {
            return Ok(());
        }
        // Windows syncs only files that are open for writing; Unix cannot open a folder for writing.
        OpenOptions::new().read(true).write(cfg!(windows)).open(path)?.sync_all()
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        result.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
    }
}

/// Writes a small file whole or not at all: writes and syncs a temporary file, renames it to `path`, and syncs the
/// folder.
///
/// # Errors
/// [`StoreError::DiskFull`] or [`StoreError::Io`]; an older file at `path` is unchanged.
pub fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut file = disk.temporary(folder)?;
        file.write_all(bytes)?;
        file.sync()?;
        file.persist(path)
    };
    write().map_err(|e| StoreError::io("write", path, e))?;
    disk.sync(folder).map_err(|e| StoreError::io("sync", folder, e))
}

/// Makes a small file that only its owner can read, whole or not at all. An existing file is not changed.
///
/// # Errors
/// As [`write_whole`].
pub fn make_private(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        // A temporary file has the rights 0600 from its first byte.
        let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Err(e) if e.error.kind() != io::ErrorKind::AlreadyExists => Err(e.error),
            _ => Ok(()),
        }
    };
    write().map_err(|e| StoreError::io("write", path, e))?;
    RealDisk.sync(folder).map_err(|e| StoreError::io("sync", folder, e))
}

/// The prefix of all temporary names. A killed process leaves such files and folders behind; opening the run removes
/// them.
pub const TEMPORARY: &str = ".tmp-";

/// Removes what an interrupted write left in `folder`. An absent folder is an empty one.
///
/// # Errors
/// [`StoreError::Io`].
pub fn remove_leftovers(disk: &dyn Disk, folder: &Path) -> Result<(), StoreError> {
    for entry in entries(folder)? {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            disk.remove(&entry.path()).map_err(|e| StoreError::io("remove", &entry.path(), e))?;
        }
    }
    Ok(())
}

/// The entries of `folder`, sorted by name. A folder that does not exist has none.
///
/// # Errors
/// [`StoreError::Io`].
pub fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, StoreError> {
    let fail = |e| StoreError::io("list", folder, e);
    let mut all = match fs::read_dir(folder) {
        Ok(listing) => listing.collect::<io::Result<Vec<_>>>().map_err(fail)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(fail(e)),
    };
    all.sort_by_key(fs::DirEntry::file_name);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_has_the_rights_of_any_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("file"), folder.path().join("other"));
        fs::write(&path, "old").unwrap();
        fs::write(&other, "").unwrap();
        let mut unfinished = RealDisk.temporary(folder.path()).unwrap();
        unfinished.write_all(b"half").unwrap();
        drop(unfinished);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        write_whole(&RealDisk, &path, b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let rights = |path: &Path| fs::metadata(path).unwrap().permissions();
        assert_eq!(rights(&path), rights(&other));
        assert_eq!(entries(folder.path()).unwrap().len(), 2, "nothing is left behind");
        assert!(write_whole(&RealDisk, &folder.path().join("no/such/file"), b"").is_err());
    }

    #[test]
    fn leftovers_are_known_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let killed = RealDisk.temporary(folder.path()).unwrap();
        std::mem::forget(killed);
        assert_eq!(entries(folder.path()).unwrap().len(), 1);
        remove_leftovers(&RealDisk, folder.path()).unwrap();
        assert!(entries(folder.path()).unwrap().is_empty());
    }
}
