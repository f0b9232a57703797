//! Opens files that a user names: regular ones alone, and none above [`limits::FILE_BYTES`].
//!
//! A pipe would block, and a device such as `/dev/zero` never ends. The errors say what the path is instead.

use std::fs::{File, FileType};
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

use super::limits;

/// Opens a regular file.
///
/// # Errors
/// As [`File::open`]; anything but a regular file; a file that is too large.
pub fn open(path: &Path) -> Result<File> {
    let found = std::fs::metadata(path)?;
    if !found.is_file() {
        let problem = format!("it is {}, and only a regular file is read", kind(found.file_type()));
        return Err(Error::new(ErrorKind::InvalidInput, problem));
    }
    match found.len() {
        length if length > limits::FILE_BYTES => Err(too_large()),
        _ => File::open(path),
    }
}

/// The bytes of a regular file.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    read_all(open(path)?)
}

/// The text of a regular file in UTF-8.
///
/// # Errors
/// As [`open`], and [`ErrorKind::InvalidData`] for other bytes than UTF-8.
pub fn read_to_string(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// The rest of a file.
///
/// # Errors
/// A file that cannot be read or is too large: it may have grown since it was opened.
pub(super) fn read_all(file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limits::FILE_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limits::FILE_BYTES {
        true => Err(too_large()),
        false => Ok(bytes),
    }
}

fn too_large() -> Error {
    let problem = format!("it is larger than {} GiB; split it into several files", limits::FILE_BYTES >> 30);
    Error::new(ErrorKind::FileTooLarge, problem)
}

fn kind(found: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if found.is_fifo() {
            return "a pipe";
        }
        if found.is_socket() {
            return "a socket";
        }
        if found.is_char_device() || found.is_block_device() {
            return "a device";
        }
    }
    if found.is_dir() { "a folder" } else { "something else" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "abc").unwrap();
        assert_eq!(read_to_string(&folder.path().join("a")).unwrap(), "abc");
        std::fs::write(folder.path().join("b"), [0xff]).unwrap();
        assert_eq!(read_to_string(&folder.path().join("b")).unwrap_err().to_string(), "it is not UTF-8");
        let error = read(folder.path()).unwrap_err().to_string();
        assert_eq!(error, "it is a folder, and only a regular file is read");
        std::fs::File::create(folder.path().join("c")).unwrap().set_len(limits::FILE_BYTES + 1).unwrap();
        assert!(read(&folder.path().join("c")).unwrap_err().to_string().contains("larger than 2 GiB"));
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_pipes_are_named() {
        for (path, kind) in [("/dev/zero", "a device"), ("/dev/null", "a device")] {
            assert!(read(Path::new(path)).unwrap_err().to_string().contains(kind), "{path}");
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(read(&socket).unwrap_err().to_string().contains("a socket"));
    }
}
