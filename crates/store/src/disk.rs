//! The few file operations on which crash safety rests, behind a trait, so that a test can make any one of them fail.
//!
//! It is not a virtual file system: reading goes to `std::fs` directly, for a failed read harms nothing.
//!
//! Read next: [`crate::checkpoint`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

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

/// Everything that changes the disk.
pub trait Disk: Send + Sync {
    /// Makes or empties a file.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, path: &Path) -> io::Result<Box<dyn OutFile>>;

    /// Opens a file, made if absent, to write at its end.
    ///
    /// # Errors
    /// The system's.
    fn append(&self, path: &Path) -> io::Result<Box<dyn OutFile>>;

    /// Renames a file or folder within one file system; a file in the way is replaced.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes a file, or a folder's list of names, durable.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder and those above it.
    ///
    /// # Errors
    /// The system's.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Removes a file or a whole folder; absence is success.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The disk as it is.
pub struct RealDisk;

impl OutFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

impl Disk for RealDisk {
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
        File::open(path)?.sync_all()
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        result.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
    }
}

/// Writes a small file whole or not at all: beside its place, synced, then renamed into it, and the folder synced.
///
/// # Errors
/// [`StoreError::DiskFull`] or [`StoreError::Io`]; the file that stood there before still stands.
pub fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut name = std::ffi::OsString::from(TEMPORARY);
    name.push(path.file_name().unwrap_or_default());
    let temporary = folder.join(name);
    let written = (|| {
        let mut file = disk.create(&temporary)?;
        file.write_all(bytes)?;
        file.sync()
    })();
    if let Err(e) = written {
        // The space of a half-written file is given back; should that fail too, opening the run removes it.
        let _ = disk.remove(&temporary);
        return Err(StoreError::io("write", path, e));
    }
    disk.rename(&temporary, path).map_err(|e| StoreError::io("rename", path, e))?;
    disk.sync(folder).map_err(|e| StoreError::io("sync", folder, e))
}

/// What every temporary name begins with; such files and folders are removed when a run is opened.
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

/// The entries of `folder`, sorted by name; none where it does not exist.
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
