//! Maps a file into memory, read only. Checkpoints are opened this way, without a copy.
//!
//! # What it relies on
//! The operating system reads a page of the file when it is first touched. If another process *changes* the file
//! meanwhile, readers may see old or new bytes. If it *shortens* the file, touching the lost part kills this process
//! (SIGBUS). No safe interface can exclude that, and none of the usual ones tries. Therefore only files that nobody
//! writes in place may be mapped: Ferule itself writes a new file and renames it. Before a reader reads a whole file,
//! it calls [`Mapping::check_length`] to check that the file still has its old length.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// The bytes of a file, valid as long as this lives. It dereferences to `[u8]`. The bytes begin at a page boundary, so
/// data that a format aligns within the file are also aligned in memory.
pub struct Mapping {
    bytes: memmap2::Mmap,
    /// Kept open for the length check. On Windows nobody can shorten a file that is open.
    file: File,
    path: PathBuf,
}

impl Mapping {
    /// Maps a whole file. An empty file gives an empty slice.
    ///
    /// # Errors
    /// Those of opening the file. Also when it is not a regular file, or is too long for the address space.
    pub fn open(path: &Path) -> io::Result<Mapping> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only a regular file can be mapped"));
        }
        // SAFETY: the mapping is private to this process and read only. The module's documentation says what a change
        // by another process can do. Callers map only files that are replaced as a whole and never written in place.
        let bytes = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Mapping { bytes, file, path: path.to_owned() })
    }

    /// Path of the file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the file is still as long as when it was mapped.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when it has become shorter. Bytes past its end must not be touched.
    pub fn check_length(&self) -> io::Result<()> {
        let now = self.file.metadata()?.len();
        if now < self.bytes.len() as u64 {
            let message = format!(
                "{} was shortened from {} to {now} bytes while it was open",
                self.path.display(),
                self.bytes.len()
            );
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        Ok(())
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(name: &str, bytes: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ferule-mapping-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn maps_what_the_file_holds() {
        let path = file_with("whole", b"three rules");
        let mapping = Mapping::open(&path).unwrap();
        assert_eq!(&*mapping, b"three rules");
        assert_eq!(mapping.path(), path);
        assert_eq!(mapping.as_ptr() as usize % 4096, 0);
        mapping.check_length().unwrap();
        // Replacing a file by renaming does not change what was mapped.
        let other = file_with("other", b"another");
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(&*mapping, b"three rules");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_empty_file_is_no_bytes_and_a_folder_is_refused() {
        let path = file_with("empty", b"");
        assert!(Mapping::open(&path).unwrap().is_empty());
        std::fs::remove_file(&path).unwrap();
        assert!(Mapping::open(&std::env::temp_dir()).is_err());
        assert_eq!(Mapping::open(&path).err().unwrap().kind(), io::ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn a_shortened_file_is_noticed() {
        let path = file_with("short", &[7; 10_000]);
        let mapping = Mapping::open(&path).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5_000).unwrap();
        let error = mapping.check_length().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("from 10000 to 5000 bytes"), "{error}");
        std::fs::remove_file(&path).unwrap();
    }
}
