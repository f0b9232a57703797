//! How the tokens of a vocabulary represent bytes.
//!
//! GPT-2's byte-level alphabet has one character for every byte. Printable characters of Latin-1 represent themselves.
//! The other bytes are represented by U+0100 and the characters after it, in order.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The byte of each character of the alphabet.
static BYTE_OF: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0..=u8::MAX).map(|byte| (byte_char(byte), byte)).collect());

/// The character that spells a byte in a byte-level vocabulary.
pub(super) fn byte_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&byte| !printable(byte)).count();
    char::from_u32(256 + before as u32).expect("256 to 323 are characters")
}

/// The bytes of a token of the vocabulary.
///
/// * `byte_level`: whether the token is spelled in the byte-level alphabet. If not, it is spelled as in SentencePiece:
///   `▁` for a space and `<0xHH>` for a byte.
pub(super) fn token_bytes(token: &str, byte_level: bool) -> Box<[u8]> {
    if byte_level {
        let bytes: Option<Box<[u8]>> = token.chars().map(|c| BYTE_OF.get(&c).copied()).collect();
        return bytes.unwrap_or_else(|| token.as_bytes().into());
    }
    let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|hex| hex.len() == 2);
    match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => [byte].into(),
        None => token.replace('▁', " ").into_bytes().into(),
    }
}
