//! The digest of a model. Models with equal digests have equal weights.
//!
//! It is the BLAKE3 of the exported tensors, sorted by the bytes of their names. Any tool can compute it again. The bytes hashed for
//! each tensor are:
//!
//! ```text
//! u64 length of the name in bytes      name, UTF-8
//! u64 length of the dtype in bytes     dtype, as safetensors spells it: "F32", "BF16", "F16", …
//! u64 number of dimensions             each dimension as u64, outermost first
//! u64 number of bytes                  the elements, row-major, little-endian
//! ```
//!
//! All integers are little-endian. Nothing precedes the first tensor or follows the last, so that a model without tensors has the digest
//! of the empty string. The digest is written as 64 lower-case hexadecimal characters.
//!
//! It covers weights only: no tokenizer, no config. The file itself is not hashed, because that hash would change with the order, the
//! padding and the metadata of a safetensors header.
//!
//! Read next: [`crate::ledger::rows::StageRow`], where it is kept.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::StoreError;

/// The BLAKE3 of a file, hexadecimal.
///
/// # Errors
/// [`StoreError::Io`].
pub fn of_file(path: &Path) -> Result<String, StoreError> {
    hash_file(path).map(|(_, blake3)| blake3).map_err(|e| StoreError::io("read", path, e))
}

/// A file's length and BLAKE3.
pub(crate) fn hash_file(path: &Path) -> io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok((hasher.count(), hasher.finalize().to_hex().to_string()))
}

/// Computes a digest: begin each tensor in the order of names, feed its bytes in pieces of any size, and finish.
///
/// # Example
/// ```
/// let mut digest = store::ModelDigest::new();
/// digest.tensor("head.weight", "F32", &[1, 2], &[0, 0, 128, 63, 0, 0, 0, 64])?;
/// assert_eq!(digest.finish()?.len(), 64);
/// # Ok::<(), store::StoreError>(())
/// ```
#[derive(Clone, Default)]
pub struct ModelDigest {
    hasher: blake3::Hasher,
    /// Name, announced bytes, fed bytes.
    current: Option<(String, u64, u64)>,
}

impl ModelDigest {
    /// A digest of no tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one whole tensor; `bytes` are little-endian and row-major.
    ///
    /// # Errors
    /// [`StoreError::DigestOrder`] if `name` does not sort after the previous name; [`StoreError::DigestLength`] if the
    /// previous tensor was not fed whole.
    pub fn tensor(&mut self, name: &str, dtype: &str, shape: &[u64], bytes: &[u8]) -> Result<(), StoreError> {
        self.begin(name, dtype, shape, bytes.len() as u64)?;
        self.bytes(bytes);
        Ok(())
    }

    /// Announces the next tensor and its size in bytes; [`Self::bytes`] feeds it.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn begin(&mut self, name: &str, dtype: &str, shape: &[u64], n_bytes: u64) -> Result<(), StoreError> {
        self.check_whole()?;
        if let Some((previous, ..)) = &self.current
            && previous.as_bytes() >= name.as_bytes()
        {
            return Err(StoreError::DigestOrder { previous: previous.clone(), name: name.to_owned() });
        }
        for text in [name, dtype] {
            self.integer(text.len() as u64);
            self.hasher.update(text.as_bytes());
        }
        self.integer(shape.len() as u64);
        for &dimension in shape {
            self.integer(dimension);
        }
        self.integer(n_bytes);
        self.current = Some((name.to_owned(), n_bytes, 0));
        Ok(())
    }

    /// Feeds the next piece of the tensor that was begun last.
    ///
    /// # Panics
    /// When no tensor was begun.
    pub fn bytes(&mut self, piece: &[u8]) {
        let (_, _, fed) = self.current.as_mut().expect("bytes of no tensor: call `begin` first");
        *fed += piece.len() as u64;
        self.hasher.update(piece);
    }

    /// The digest: 64 lower-case hexadecimal characters.
    ///
    /// # Errors
    /// [`StoreError::DigestLength`] if the last tensor was not fed whole.
    pub fn finish(self) -> Result<String, StoreError> {
        self.check_whole()?;
        Ok(self.hasher.finalize().to_hex().to_string())
    }

    fn integer(&mut self, value: u64) {
        self.hasher.update(&value.to_le_bytes());
    }

    fn check_whole(&self) -> Result<(), StoreError> {
        match &self.current {
            Some((name, announced, found)) if announced != found => {
                Err(StoreError::DigestLength { name: name.clone(), announced: *announced, found: *found })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        // The framing is written out by hand here, so that this test sees any change of it.
        let mut framed = Vec::new();
        framed.extend_from_slice(b"\x01\0\0\0\0\0\0\0a\x03\0\0\0\0\0\0\0F32\x02\0\0\0\0\0\0\0");
        framed.extend_from_slice(b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0");
        framed.extend_from_slice(&[0, 0, 128, 63, 0, 0, 0, 64]);
        framed
            .extend_from_slice(b"\x01\0\0\0\0\0\0\0b\x04\0\0\0\0\0\0\0BF16\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x80\x3f");
        let mut digest = ModelDigest::new();
        digest.begin("a", "F32", &[1, 2], 8).unwrap();
        digest.bytes(&[0, 0, 128]);
        digest.bytes(&[63, 0, 0, 0, 64]);
        digest.tensor("b", "BF16", &[], &[0x80, 0x3f]).unwrap();
        let found = digest.finish().unwrap();
        assert_eq!(found, blake3::hash(&framed).to_hex().to_string());
        assert_eq!(found, "a910eea3f5c167b30d752edccd32785acebfb53bfa5ad9a0395b5311c65449a8");
        assert_eq!(ModelDigest::new().finish().unwrap(), blake3::hash(b"").to_hex().to_string());
    }

    #[test]
    fn disorder_and_missing_bytes_are_refused() {
        let mut digest = ModelDigest::new();
        digest.tensor("b", "F32", &[1], &[0; 4]).unwrap();
        assert!(matches!(digest.clone().tensor("a", "F32", &[1], &[0; 4]), Err(StoreError::DigestOrder { .. })));
        assert!(matches!(digest.clone().tensor("b", "F32", &[1], &[0; 4]), Err(StoreError::DigestOrder { .. })));
        digest.begin("c", "F32", &[1], 4).unwrap();
        digest.bytes(&[0; 3]);
        assert!(matches!(digest.finish(), Err(StoreError::DigestLength { announced: 4, found: 3, .. })));
    }
}
