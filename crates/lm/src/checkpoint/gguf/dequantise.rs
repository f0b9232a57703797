//! Dequantises the block formats of ggml to f32.
//!
//! A block holds 32 or 256 elements. They share a scale `d`, and in some formats an offset, both in half precision. A
//! block of 256 elements (the `K` formats) has eight or sixteen sub-blocks, each with a small integer scale of its own.
//! The arithmetic is in f32 and in ggml's order, so the values equal ggml's bit for bit.
//!
//! Source: `ggml-quants.c` and `ggml-common.h` of ggml describe the layouts.

use super::Kind;
use crate::checkpoint::numbers;
use half::f16;

/// Dequantises whole blocks.
///
/// * `bytes`: whole blocks, as many as `out` has room for.
///
/// # Panics
/// When the two lengths do not match; a valid header excludes that.
pub fn dequantise(kind: Kind, bytes: &[u8], out: &mut [f32]) {
    let (elements, size) = kind.block();
    assert_eq!(bytes.len() * elements, out.len() * size, "{kind:?}");
    let by_block = |block: fn(&[u8], &mut [f32]), out: &mut [f32]| {
        for (bytes, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(elements)) {
            block(bytes, out);
        }
    };
    match kind {
        Kind::F32 => numbers::widen_f32(bytes, out),
        Kind::F16 => numbers::widen_f16(bytes, out),
        Kind::Bf16 => numbers::widen_bf16(bytes, out),
        Kind::Q4_0 => by_block(q4_0, out),
        Kind::Q4_1 => by_block(q4_1, out),
        Kind::Q5_0 => by_block(q5_0, out),
        Kind::Q5_1 => by_block(q5_1, out),
        Kind::Q8_0 => by_block(q8_0, out),
        Kind::Q4K => by_block(q4_k, out),
        Kind::Q5K => by_block(q5_k, out),
        Kind::Q6K => by_block(q6_k, out),
    }
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// The low and the high nibble of each byte: they are elements `j` and `j + 16`.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = (usize, i32, i32)> {
    bytes.iter().enumerate().map(|(j, byte)| (j, i32::from(byte & 15), i32::from(byte >> 4)))
}

/// d · (q − 8)
fn q4_0(bytes: &[u8], out: &mut [f32]) {
    let d = half(bytes);
    for (j, low, high) in nibbles(&bytes[2..]) {
        out[j] = (low - 8) as f32 * d;
        out[j + 16] = (high - 8) as f32 * d;
    }
}

/// d · q + m
fn q4_1(bytes: &[u8], out: &mut [f32]) {
    let (d, m) = (half(bytes), half(&bytes[2..]));
    for (j, low, high) in nibbles(&bytes[4..]) {
        out[j] = low as f32 * d + m;
        out[j + 16] = high as f32 * d + m;
    }
}

/// The fifth bits of elements `j` and `j + 16` of a block of 32, shifted to bit 4.
fn fifth_bits(bytes: &[u8], j: usize) -> (i32, i32) {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    ((((bits >> j) & 1) << 4) as i32, (((bits >> (j + 16)) & 1) << 4) as i32)
}

/// d · (q − 16)
fn q5_0(bytes: &[u8], out: &mut [f32]) {
    let d = half(bytes);
    for (j, low, high) in nibbles(&bytes[6..]) {
        let (low_bit, high_bit) = fifth_bits(&bytes[2..], j);
        out[j] = ((low | low_bit) - 16) as f32 * d;
        out[j + 16] = ((high | high_bit) - 16) as f32 * d;
    }
}

/// d · q + m
fn q5_1(bytes: &[u8], out: &mut [f32]) {
    let (d, m) = (half(bytes), half(&bytes[2..]));
    for (j, low, high) in nibbles(&bytes[8..]) {
        let (low_bit, high_bit) = fifth_bits(&bytes[4..], j);
        out[j] = (low | low_bit) as f32 * d + m;
        out[j + 16] = (high | high_bit) as f32 * d + m;
    }
}

/// d · q
fn q8_0(bytes: &[u8], out: &mut [f32]) {
    let d = half(bytes);
    for (out, &q) in out.iter_mut().zip(&bytes[2..]) {
        *out = f32::from(q as i8) * d;
    }
}

/// Six-bit scale and minimum of sub-block `j`. Twelve bytes hold eight of each.
fn scale_and_minimum(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, minimum) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        ((packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4), (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4))
    };
    (f32::from(scale), f32::from(minimum))
}

/// d · scale · q − dmin · minimum, in sub-blocks of 32
fn q4_k(bytes: &[u8], out: &mut [f32]) {
    let (d, dmin, scales) = (half(bytes), half(&bytes[2..]), &bytes[4..16]);
    for (pair, (quants, out)) in bytes[16..].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
        for (sub, shift) in [(0, 0), (1, 4)] {
            let (scale, minimum) = scale_and_minimum(scales, 2 * pair + sub);
            let (scale, minimum) = (d * scale, dmin * minimum);
            for (out, byte) in out[32 * sub..].iter_mut().zip(quants) {
                *out = scale * f32::from((byte >> shift) & 15) - minimum;
            }
        }
    }
}

/// As [`q4_k`], with a fifth bit of each element: bit `s` of byte `l` belongs to element `l` of sub-block `s`
fn q5_k(bytes: &[u8], out: &mut [f32]) {
    let (d, dmin, scales, fifth) = (half(bytes), half(&bytes[2..]), &bytes[4..16], &bytes[16..48]);
    for (pair, (quants, out)) in bytes[48..].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
        for (sub, shift) in [(0, 0), (1, 4)] {
            let (scale, minimum) = scale_and_minimum(scales, 2 * pair + sub);
            let (scale, minimum) = (d * scale, dmin * minimum);
            for (l, out) in out[32 * sub..32 * sub + 32].iter_mut().enumerate() {
                let bit = (fifth[l] >> (2 * pair + sub)) & 1;
                *out = scale * f32::from(((quants[l] >> shift) & 15) + 16 * bit) - minimum;
            }
        }
    }
}

/// d · scale · (q − 32), in sub-blocks of 16; the four low bits and the two high bits are stored separately
fn q6_k(bytes: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&bytes[..128], &bytes[128..192], &bytes[192..208], half(&bytes[208..]));
    for (part, out) in out.chunks_exact_mut(128).enumerate() {
        let (low, high, scales) = (&low[64 * part..], &high[32 * part..], &scales[8 * part..]);
        for (i, out) in out.iter_mut().enumerate() {
            let (quarter, l) = (i / 32, i % 32);
            let four = (low[l + 32 * (quarter % 2)] >> (4 * (quarter / 2))) & 15;
            let two = (high[l] >> (2 * quarter)) & 3;
            let scale = d * f32::from(scales[i / 16] as i8);
            *out = scale * (i32::from(four | (two << 4)) - 32) as f32;
        }
    }
}
