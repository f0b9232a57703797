//! The bytes of a checkpoint's file: a memory mapping of the file, or bytes in memory.

use crate::error::FormatError;
use kernels::Mapping;
use std::ops::Deref;
use std::path::Path;

/// The bytes of a file.
pub enum Bytes {
    /// A memory mapping of a file on disk.
    Mapped(Mapping),
    /// Bytes in memory, from tests and fuzzers.
    Owned(Vec<u8>),
}

impl Bytes {
    /// Maps a file.
    pub fn map(path: &Path) -> Result<Self, FormatError> {
        Mapping::open(path).map(Bytes::Mapped).map_err(FormatError::io(path, "read"))
    }

    /// Returns an error if the file became shorter while it was open.
    pub fn check_length(&self) -> Result<(), FormatError> {
        match self {
            Bytes::Mapped(mapping) => mapping.check_length().map_err(FormatError::io(mapping.path(), "read")),
            Bytes::Owned(_) => Ok(()),
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(mapping) => mapping,
            Bytes::Owned(bytes) => bytes,
        }
    }
}
