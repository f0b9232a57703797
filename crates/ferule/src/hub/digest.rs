//! What the name of contents promises. A hub names a large file by its SHA-256 and a small one by the id that git gives
//! it, the SHA-1 of its length and bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::secrets::hex;

/// What the contents of a file are if they are not what their name says. A name that is no digest promises nothing.
pub fn difference(file: &Path, name: &str) -> io::Result<Option<String>> {
    let is_hexadecimal = name.chars().all(|c| c.is_ascii_hexdigit());
    let (kind, found) = match name.len() {
        64 if is_hexadecimal => ("SHA-256", digest::<Sha256>(file, |_| String::new())?),
        40 if is_hexadecimal => ("git id", digest::<Sha1>(file, |length| format!("blob {length}\0"))?),
        _ => return Ok(None),
    };
    Ok((found != name.to_ascii_lowercase()).then(|| format!("{kind} {found}")))
}

/// The digest of a head, made from the file's length in bytes, and of the file's bytes.
fn digest<D: Digest>(file: &Path, head: impl Fn(u64) -> String) -> io::Result<String> {
    let mut file = File::open(file)?;
    let mut digest = D::new_with_prefix(head(file.metadata()?.len()));
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&digest.finalize())),
            count => digest.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_compared_with_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "hello\n").unwrap();
        // `git hash-object` and `sha256sum` of the same six bytes.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for name in [git, sha256, &sha256.to_uppercase(), "d41d8cd98f00b204e9800998ecf8427e", "v1"] {
            assert_eq!(difference(&path, name).unwrap(), None, "{name}");
        }
        std::fs::write(&path, "hello!").unwrap();
        assert!(difference(&path, git).unwrap().unwrap().starts_with("git id "));
        assert!(difference(&path, sha256).unwrap().unwrap().starts_with("SHA-256 "));
    }
}
