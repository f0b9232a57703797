//! Decoding token by token: [`DecodeStream`], and the bytes that tokens stand for.
//!
//! A token of a byte-level vocabulary may end in the middle of a character. The stream holds such bytes back until
//! the rest arrives, so that everything it yields can be shown at once; what it yields in all, with
//! [`DecodeStream::finish`], is what [`super::Tokenizer::decode`] gives for the whole, except that a byte which can
//! never become a character turns into one U+FFFD as soon as that is certain.

use super::Tokenizer;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Text of tokens that arrive one after the other; see the [module](self).
#[derive(Debug, Clone)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Bytes that do not yet make a character; at most three between calls.
    pending: Vec<u8>,
    at_start: bool,
}

impl<'a> DecodeStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, pending: Vec::new(), at_start: true }
    }

    /// Takes one token and returns the text that has become certain; often empty.
    pub fn push(&mut self, id: u32) -> String {
        if self.skip_special && self.tokenizer.is_special(id) {
            return String::new();
        }
        let Some(mut bytes) = self.tokenizer.token_bytes(id) else { return String::new() };
        if std::mem::take(&mut self.at_start) && self.tokenizer.strips_leading_blank {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.pending.extend_from_slice(bytes);
        self.take_whole()
    }

    /// Ends the stream: bytes still held back become U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }

    /// Takes all whole characters from `pending`, replacing what can never become one.
    fn take_whole(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).expect("from_utf8 called it valid"));
                    let Some(invalid) = error.error_len() else {
                        rest = after;
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[invalid..];
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }
}

/// The byte-level alphabet of GPT-2: printable Latin-1 stands for itself, the other bytes for U+0100 and up in order.
static BYTE_OF: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0..=u8::MAX).map(|byte| (byte_char(byte), byte)).collect());

/// The character that stands for a byte in a byte-level vocabulary.
pub(super) fn byte_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&byte| !printable(byte)).count();
    char::from_u32(256 + before as u32).expect("256 to 323 are characters")
}

/// The bytes of a token of the vocabulary, spelled in the byte-level alphabet or in SentencePiece's manner.
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
