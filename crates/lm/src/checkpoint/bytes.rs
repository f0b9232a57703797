//! The bytes of a checkpoint's file: mapped, or given.

use crate::error::FormatError;
use kernels::Mapping;
use std::ops::Deref;
use std::path::Path;

/// A file's bytes where the operating system keeps them, or a caller's own.
pub enum Bytes {
    /// A file.
    Mapped(Mapping),
    /// Given as they are, by tests and fuzzers.
    Owned(Vec<u8>),
}

impl Bytes {
    /// Maps a file.
    pub fn map(path: &Path) -> Result<Self, FormatError> {
        Mapping::open(path).map(Bytes::Mapped).map_err(FormatError::io(path, "read"))
    }

    /// Refuses to go on with a file that became shorter while it was open.
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
