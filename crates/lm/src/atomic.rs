//! Writes files completely or not at all.
//!
//! A file is written under a temporary name in its final folder, flushed to disk, and renamed. A reader sees the old
//! file or the new one, but never half of it, even after a power cut.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::FormatError;

/// Calls `write` to fill a file, which then replaces `path`.
///
/// On failure the temporary file is removed, and `path` is left as it was.
///
/// # Errors
/// [`FormatError::Io`], which names `path`.
pub(crate) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> std::io::Result<()>,
) -> Result<(), FormatError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let replace = || {
        let partial = create(folder)?;
        let mut file = BufWriter::with_capacity(1 << 20, partial.as_file());
        write(&mut file)?;
        file.into_inner().map_err(|error| error.into_error())?.sync_all()?;
        partial.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    replace().map_err(FormatError::io(path, "write"))
}

/// Creates a temporary file with the permissions of any new file. By default only its owner could read it.
fn create(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.suffix(".partial");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Makes a rename in the folder survive a power cut. Windows has no such call; it keeps renames in order by itself.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::error::told;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let message = told(&write_atomically(&path, |_| Err(full)).unwrap_err());
        assert!(message.contains("hint: free space on the disk"), "{message}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_atomically(&folder.path().join("no/such/folder"), |_| Ok(())).is_err());
    }

    #[test]
    fn a_written_file_replaces_the_old_one_and_has_the_rights_of_any_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("file"), folder.path().join("other"));
        std::fs::write(&path, "old").unwrap();
        std::fs::write(&other, "").unwrap();
        write_atomically(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        let rights = |path: &Path| std::fs::metadata(path).unwrap().permissions();
        assert_eq!(rights(&path), rights(&other));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
