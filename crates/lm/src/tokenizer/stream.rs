//! Decoding token by token: [`DecodeStream`].
//!
//! A token of a byte-level vocabulary may end in the middle of a character. The stream keeps such bytes until the rest
//! arrives, so all text that it returns can be shown at once. The pieces and the text of [`DecodeStream::finish`],
//! joined, equal the text of [`Tokenizer::decode`] for all ids. There is one difference in time: a byte that can no
//! longer become part of a character turns into U+FFFD as soon as this is certain.

use super::Tokenizer;

/// Decodes tokens that arrive one after the other; see the [module](self).
#[derive(Debug, Clone)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Bytes that do not make a whole character yet; at most three between calls.
    pending: Vec<u8>,
    at_start: bool,
}

impl Tokenizer {
    /// Starts decoding token by token.
    ///
    /// * `skip_special`: whether special tokens are left out.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream { tokenizer: self, skip_special, pending: Vec::new(), at_start: true }
    }
}

impl DecodeStream<'_> {
    /// Adds one token. Returns the text that is now complete, which is often empty.
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

    /// Ends the stream. Bytes that are still pending become U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }

    /// Takes all complete characters from `pending`, and replaces bytes that can never become one.
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
