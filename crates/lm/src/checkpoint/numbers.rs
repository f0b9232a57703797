//! Converts little-endian bytes to f32 and back, in blocks that the compiler can vectorise.

use super::source::Storage;
use crate::error::FormatError;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::path::Path;

/// Converts f32 bytes; `bytes` has four for each element of `out`.
pub fn widen_f32(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * 4);
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *value = f32::from_le_bytes(*bytes);
    }
}

/// Widens bf16 bytes exactly; `bytes` has two for each element of `out`.
pub fn widen_bf16(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * 2);
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

/// Widens IEEE half-precision bytes exactly; `bytes` has two for each element of `out`.
pub fn widen_f16(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * 2);
    let mut block = [f16::ZERO; 256];
    for (values, bytes) in out.chunks_mut(block.len()).zip(bytes.chunks(2 * block.len())) {
        let block = &mut block[..values.len()];
        for (half, bytes) in block.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(*bytes);
        }
        block.convert_to_f32_slice(values);
    }
}

/// The first NaN or infinity of `values`, with its index.
pub fn first_not_finite(values: &[f32]) -> Option<(usize, f32)> {
    const EXPONENT: u32 = 0x7f80_0000;
    for (block, chunk) in values.chunks(4096).enumerate() {
        // A loop without an early exit is a plain reduction, which vectorises. It is the common case.
        let bad = chunk.iter().fold(false, |bad, value| bad | (value.to_bits() & EXPONENT == EXPONENT));
        if bad {
            let at = chunk.iter().position(|value| !value.is_finite());
            return at.map(|at| (block * 4096 + at, chunk[at]));
        }
    }
    None
}

/// Returns an error for finite values that would become infinite in half precision.
///
/// * `storage`: `None` for block formats, whose stored scales are far smaller than the values.
pub fn check_fits(storage: Option<Storage>, values: &[f32], name: &str, path: &Path) -> Result<(), FormatError> {
    let too_large = |value: &&f32| storage == Some(Storage::F16) && value.abs() > f16::MAX.to_f32();
    match values.iter().find(too_large) {
        None => Ok(()),
        Some(value) => {
            let problem = format!("tensor `{name}` holds {value}, which half precision cannot");
            Err(FormatError::malformed(path, problem, "write bf16 or f32"))
        }
    }
}

/// Appends `values` in a type of fixed width, rounded to nearest, ties to even.
///
/// # Panics
/// For [`Storage::Q8_0`], which stores blocks instead of single elements.
pub fn append_narrowed(storage: Storage, values: &[f32], bytes: &mut Vec<u8>) {
    match storage {
        Storage::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Storage::F16 => bytes.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes())),
        Storage::Bf16 => bytes.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes())),
        Storage::Q8_0 => panic!("Q8_0 is written by blocks, not by elements"),
    }
}
