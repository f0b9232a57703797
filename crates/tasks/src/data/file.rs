//! Reads files that a user names: regular ones alone, and no more of them than the [limits] allow.
//!
//! A pipe would block, and a device such as `/dev/zero` never ends. The errors say what the path is instead.

use std::fs::{File, FileType};
use std::io::{BufRead, Error, ErrorKind, Read, Result};
use std::path::Path;

use super::limits;

/// Opens a regular file.
///
/// # Errors
/// As [`File::open`]; anything but a regular file.
pub fn open(path: &Path) -> Result<File> {
    let found = std::fs::metadata(path)?;
    match found.is_file() {
        true => File::open(path),
        false => {
            let problem = format!("it is {}, and only a regular file is read", kind(found.file_type()));
            Err(Error::new(ErrorKind::InvalidInput, problem))
        }
    }
}

/// The bytes of a regular file.
///
/// # Errors
/// As [`open`]; a file above [`limits::FILE_BYTES`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    if length <= limits::FILE_BYTES {
        bytes.reserve_exact(length as usize);
        // It may have grown since.
        file.take(limits::FILE_BYTES + 1).read_to_end(&mut bytes)?;
    }
    match length.max(bytes.len() as u64) > limits::FILE_BYTES {
        true => Err(too_large(limits::FILE_BYTES, "split it into several files")),
        false => Ok(bytes),
    }
}

/// The text of a regular file in UTF-8.
///
/// # Errors
/// As [`read`], and [`ErrorKind::InvalidData`] for other bytes than UTF-8.
pub fn read_to_string(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// The lines of a file or of stdin, without their line ends.
///
/// # Errors
/// In place of a line: what cannot be read; a line above [`limits::LINE_BYTES`], which is the last.
pub fn lines(mut reader: impl BufRead) -> impl Iterator<Item = Result<Vec<u8>>> {
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut line = Vec::new();
        let read = reader.by_ref().take(limits::LINE_BYTES + 1).read_until(b'\n', &mut line);
        ended = !line.ends_with(b"\n");
        match read {
            Err(error) => return Some(Err(error)),
            Ok(0) => return None,
            Ok(_) if ended && line.len() as u64 > limits::LINE_BYTES => {
                return Some(Err(too_large(limits::LINE_BYTES, "split what it holds over several lines")));
            }
            Ok(_) => {}
        }
        if !ended {
            line.pop();
            line.pop_if(|byte| *byte == b'\r');
        }
        Some(Ok(line))
    })
}

fn too_large(most: u64, mend: &str) -> Error {
    Error::new(ErrorKind::FileTooLarge, format!("it is larger than {} MiB; {mend}", most >> 20))
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
        assert!(read(&folder.path().join("c")).unwrap_err().to_string().contains("larger than 2048 MiB"));
    }

    #[test]
    fn lines_end_and_are_limited() {
        let read = |text: &[u8]| -> Vec<String> {
            lines(text).map(|line| String::from_utf8(line.unwrap()).unwrap()).collect()
        };
        assert_eq!(read(b"a\r\n\nb"), ["a", "", "b"]);
        assert_eq!(read(b"a\n"), ["a"]);
        assert!(read(b"").is_empty());
        let mut endless = lines(std::io::BufReader::new(std::io::repeat(0)));
        assert!(endless.next().unwrap().unwrap_err().to_string().contains("larger than 64 MiB"));
        assert!(endless.next().is_none());
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
