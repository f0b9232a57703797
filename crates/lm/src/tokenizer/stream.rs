//! Decoding token by token: [`DecodeStream`].
//!
//! A token of a byte-level vocabulary may end in the middle of a character. The stream holds such bytes back until the
//! rest arrives, so that all the text it yields can be shown at once. The pieces and [`DecodeStream::finish`] together
//! are what [`Tokenizer::decode`] gives for all the ids, with one difference: a byte that can never become part of a
//! character turns into U+FFFD as soon as that is certain.

use super::Tokenizer;

/// Text of tokens that arrive one after the other; see the [module](self).
#[derive(Debug, Clone)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Bytes that do not yet make a character; at most three between calls.
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
    /// Takes one token and returns the text that is complete now; often empty.
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
