//! Converts text to token ids and back: [`Tokenizer`], which uses the `tokenizers` crate.
//!
//! There are five ways to encode a text. They differ in how far the text is trusted:
//! * [`Tokenizer::encode_user`]: text from anybody. No part of it becomes a special or added token, even if it spells
//!   one.
//! * [`Tokenizer::encode_markup`]: text that the model shall learn to generate. Markup such as `<think>` becomes the
//!   plain added token of the vocabulary. A control token, such as the end token, is encoded as plain characters.
//! * [`Tokenizer::encode`]: text that this program composed, such as a rendered chat template. Special tokens that it
//!   spells become special tokens.
//! * [`Tokenizer::encode_except`]: as `encode`, except for parts of the text that come from anybody.
//! * [`Tokenizer::encode_with_special`]: as `encode`; in addition, the tokenizer puts its special tokens around the
//!   text (for example a beginning token). This is `transformers`' `tokenizer(text)`.
//!
//! [`Tokenizer::decode`] decodes many tokens at once. [`DecodeStream`] decodes token by token and never splits a
//! character.
//!
//! Rollouts are token ids from end to end; their text is never encoded again.
//!
//! Where versions of `transformers` disagree, ids are those that version 5 gives for the `tokenizer.json`. The field
//! `add_bos_token` of old Llama classes has no effect.
//!
//! Read next: `tokenizer/train.rs` (training one), [`crate::template`].

mod alphabet;
mod stream;
mod train;
mod validate;

pub use stream::DecodeStream;
pub use train::TrainOptions;
pub(crate) use train::WORD_PATTERNS;

use crate::atomic::write_atomically;
use crate::error::FormatError;
use crate::panics::caught;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokenizers::tokenizer::{Encoding, Model, Normalizer, OffsetType, PreTokenizedString, PreTokenizer, Token};
use tokenizers::{AddedToken, DecoderWrapper};

/// A tokenizer with its special tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The fields of `tokenizer_config.json`, as in the file.
    fields: Map<String, Value>,
    special: SpecialTokens,
    /// The bytes of every token, by id; `None` if no token has the id.
    bytes: Vec<Option<Box<[u8]>>>,
    /// Whether each token is special, by id.
    is_special: Vec<bool>,
    /// Whether each token is recognised in a text before it is cut into words, by id: special tokens and markup.
    is_added: Vec<bool>,
    /// Whether decoding removes one leading space, as with SentencePiece vocabularies.
    strips_leading_blank: bool,
    path: PathBuf,
}

/// The tokens that `tokenizer_config.json` names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// Fills up batches in other programs.
    pub pad: Option<u32>,
    /// Replaces what the vocabulary cannot spell.
    pub unk: Option<u32>,
}

impl Tokenizer {
    /// Opens `tokenizer.json`, and `tokenizer_config.json` if it exists, of a Hugging Face folder.
    ///
    /// # Errors
    /// [`FormatError::Io`] if `tokenizer.json` cannot be read, [`FormatError::Malformed`] if one of the files is not
    /// valid.
    pub fn open_folder(folder: &Path) -> Result<Self, FormatError> {
        let path = folder.join("tokenizer.json");
        let text = std::fs::read(&path).map_err(FormatError::io(&path, "read"))?;
        let inner = pipeline(&text, &path)?;
        let config_path = folder.join("tokenizer_config.json");
        let mut fields = Map::new();
        if config_path.exists() {
            let text = std::fs::read_to_string(&config_path).map_err(FormatError::io(&config_path, "read"))?;
            fields = serde_json::from_str(&text).map_err(|error| {
                FormatError::malformed(
                    &config_path,
                    error.to_string(),
                    "correct the file, or take it from the model's release",
                )
            })?;
        }
        Self::assemble(inner, fields, &path)
    }

    /// A tokenizer from its parts: the pipeline, and the fields of `tokenizer_config.json`.
    pub(crate) fn assemble(
        mut inner: tokenizers::Tokenizer,
        fields: Map<String, Value>,
        path: &Path,
    ) -> Result<Self, FormatError> {
        let malformed = |problem: String| FormatError::malformed(path, problem, "do the files belong together?");
        validate::check(&inner).map_err(|(problem, hint)| FormatError::malformed(path, problem, hint))?;
        // The file may still contain the batch settings of its last use; remove them.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| malformed(error.to_string()))?;
        caught(|| add_declared_tokens(&mut inner, &fields)).flatten().map_err(malformed)?;
        let (byte_level, strips_leading_blank) = decoder_kind(inner.get_decoder());
        let vocabulary = inner.get_vocab(true);
        let size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        if size > 1 << 22 {
            return Err(malformed(format!("the largest token id is {}", size - 1)));
        }
        let mut bytes = vec![None; size];
        let (mut is_special, mut is_added) = (vec![false; size], vec![false; size]);
        let added = inner.get_added_tokens_decoder();
        for (token, id) in vocabulary {
            let token_bytes = match added.get(&id) {
                Some(added) => added.content.as_bytes().into(),
                None => alphabet::token_bytes(&token, byte_level),
            };
            bytes[id as usize] = Some(token_bytes);
        }
        for (&id, token) in &added {
            is_special[id as usize] = token.special;
            is_added[id as usize] = true;
        }
        let id_of = |name: &str| inner.token_to_id(token_content(fields.get(name)?)?);
        let special = SpecialTokens {
            bos: id_of("bos_token"),
            eos: id_of("eos_token"),
            pad: id_of("pad_token"),
            unk: id_of("unk_token"),
        };
        validate::probe(&inner, size)
            .map_err(|problem| FormatError::malformed(path, problem, "take the file from the model's release"))?;
        Ok(Self { inner, fields, special, bytes, is_special, is_added, strips_leading_blank, path: path.to_path_buf() })
    }

    /// Encodes text from anybody. Text that looks like a special or added token is encoded as plain characters.
    ///
    /// It adds no tokens around the text.
    pub fn encode_user(&self, text: &str) -> Vec<u32> {
        self.whole_or_pieces(text, |text| self.plain(text).map(ids))
    }

    /// Encodes text that a model shall learn to generate. Added tokens that are not special, such as `<think>`, are
    /// recognised. A special token in the text is encoded as plain characters. It adds no tokens around the text.
    pub fn encode_markup(&self, text: &str) -> Vec<u32> {
        let added = self.inner.get_added_tokens_decoder();
        let special: Vec<&str> =
            added.values().filter(|token| token.special).map(|token| token.content.as_str()).collect();
        let mut ids = Vec::new();
        let mut rest = text;
        // Finds the first special token in the text; if several begin at one place, the longest.
        let next = |rest: &str| {
            let found = special.iter().filter_map(|token| Some((rest.find(token)?, token.len())));
            found.min_by_key(|(start, len)| (*start, usize::MAX - len))
        };
        while let Some((start, len)) = next(rest) {
            ids.extend(self.encode(&rest[..start]));
            ids.extend(self.encode_user(&rest[start..start + len]));
            rest = &rest[start + len..];
        }
        ids.extend(self.encode(rest));
        ids
    }

    /// Encodes text that this program composed. Special tokens that it spells become special tokens. It adds no tokens
    /// around the text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.whole_or_pieces(text, |text| self.inner.encode_fast(text, false).map(ids))
    }

    /// Encodes as [`Tokenizer::encode`] does, but no special or added token takes a character from the untrusted parts.
    ///
    /// Where such a part would become a token, all text from the last token before it to the next one after it is
    /// encoded as [`Tokenizer::encode_user`] does.
    ///
    /// * `untrusted`: places in bytes, in order, without overlaps.
    pub fn encode_except(&self, text: &str, untrusted: &[Range<usize>]) -> Vec<u32> {
        let is_untrusted = |place: &Range<usize>| {
            let after = untrusted.partition_point(|part| part.end <= place.start);
            untrusted.get(after).is_some_and(|part| part.start < place.end)
        };
        let (mut ids, mut from) = (Vec::new(), 0);
        loop {
            let rest = &text[from..];
            let Ok(Ok(encoding)) = caught(|| self.inner.encode(rest, false)) else {
                // Without places, nothing can be told apart.
                ids.extend(self.encode_user(rest));
                return ids;
            };
            let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
            let mut trusted_end = 0;
            let mut plain: Option<Range<usize>> = None;
            for (_, &(start, end)) in tokens.filter(|(id, _)| self.is_added[**id as usize]) {
                let untrusted = is_untrusted(&(from + start..from + end));
                match &mut plain {
                    None if untrusted => plain = Some(trusted_end..rest.len()),
                    None => trusted_end = end,
                    Some(_) if untrusted => {}
                    Some(plain) => {
                        plain.end = start;
                        break;
                    }
                }
            }
            let Some(plain) = plain else {
                ids.extend(encoding.get_ids());
                return ids;
            };
            ids.extend(self.encode(&rest[..plain.start]));
            ids.extend(self.encode_user(&rest[plain.clone()]));
            from += plain.end;
        }
    }

    /// Encodes as `transformers`' `tokenizer(text)` does: special tokens in the text are recognised, and others are
    /// added around it.
    pub fn encode_with_special(&self, text: &str) -> Vec<u32> {
        self.whole_or_pieces(text, |text| self.inner.encode_fast(text, true).map(ids))
    }

    /// Whether a text certainly has more than `most` tokens. Long texts take far more memory to encode than to store, so
    /// this is asked first.
    pub fn exceeds(&self, text: &str, most: usize) -> bool {
        // A token rarely has more bytes. Where the first part is cut may change a few tokens, not half of them.
        let mut bytes = most.saturating_mul(16).max(1 << 12);
        while bytes < text.len() {
            if self.encode_user(&text[..text.floor_char_boundary(bytes)]).len() / 2 > most {
                return true;
            }
            bytes = bytes.saturating_mul(4);
        }
        false
    }

    /// Decodes ids. Unknown ids are left out, and invalid UTF-8 becomes U+FFFD.
    ///
    /// * `skip_special`: whether special tokens are left out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        caught(|| self.inner.decode(ids, skip_special)).ok().and_then(Result::ok).unwrap_or_else(|| {
            let mut stream = self.decode_stream(skip_special);
            let pieces: String = ids.iter().map(|&id| stream.push(id)).collect();
            pieces + &stream.finish()
        })
    }

    /// The bytes of a token, which need not be whole characters; `None` for an unknown id.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.bytes.get(id as usize)?.as_deref()
    }

    /// Whether the token is a control token, such as an end token, and not text.
    pub fn is_special(&self, id: u32) -> bool {
        self.is_special.get(id as usize).copied().unwrap_or(false)
    }

    /// The named special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The id of a token by its text in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// The text of every added token: special tokens, and markup such as `<think>` that some models add as plain
    /// tokens.
    pub fn added_tokens(&self) -> Vec<String> {
        let mut added: Vec<(u32, AddedToken)> = self.inner.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        added.into_iter().map(|(_, token)| token.content).collect()
    }

    /// The fields of `tokenizer_config.json`.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The pipeline, for formats that store its parts.
    pub(crate) fn pipeline(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json`. With them, `transformers` gives the same ids.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn save(&self, folder: &Path) -> Result<(), FormatError> {
        let text = self.inner.to_string(true).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        write_atomically(&folder.join("tokenizer.json"), |file| file.write_all(text.as_bytes()))?;
        let text = serde_json::to_string_pretty(&self.fields).expect("a JSON value serialises") + "\n";
        write_atomically(&folder.join("tokenizer_config.json"), |file| file.write_all(text.as_bytes()))
    }

    /// Encodes without searching for added tokens.
    fn plain(&self, text: &str) -> tokenizers::Result<Encoding> {
        let mut pieces = PreTokenizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            pieces.normalize(|piece| normalizer.normalize(piece))?;
        }
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        let model = self.inner.get_model();
        pieces.tokenize(|piece| {
            let tokens = model.tokenize(piece.get())?;
            // A vocabulary may be able to make a special token by merging its characters.
            let is_spelled = |token: &Token| self.is_special(token.id) && piece.get().contains(&token.value);
            if !tokens.iter().any(is_spelled) {
                return Ok(tokens);
            }
            let characters = piece.get().char_indices();
            let characters = characters.map(|(at, c)| model.tokenize(&piece.get()[at..at + c.len_utf8()]));
            Ok(characters.collect::<tokenizers::Result<Vec<_>>>()?.into_iter().flatten().collect())
        })?;
        pieces.into_encoding(None, 0, OffsetType::None)
    }

    /// Encodes a text. If the library fails on it, which a damaged file can cause, the text is halved; a character on
    /// which it fails is left out.
    fn whole_or_pieces(&self, text: &str, encode: impl Fn(&str) -> tokenizers::Result<Vec<u32>> + Copy) -> Vec<u32> {
        if let Ok(Ok(ids)) = caught(|| encode(text)) {
            return ids;
        }
        let half = match text.floor_char_boundary(text.len() / 2) {
            0 => text.ceil_char_boundary(1),
            half => half,
        };
        if half == text.len() {
            return Vec::new();
        }
        let mut ids = self.whole_or_pieces(&text[..half], encode);
        ids.extend(self.whole_or_pieces(&text[half..], encode));
        ids
    }
}

/// Reads a `tokenizer.json`.
///
/// # Errors
/// [`FormatError::Malformed`], also if the library panics, and for an added token whose id is not the vocabulary's.
pub(crate) fn pipeline(json: &[u8], path: &Path) -> Result<tokenizers::Tokenizer, FormatError> {
    #[derive(serde::Deserialize)]
    struct Listed {
        #[serde(default)]
        added_tokens: Vec<Added>,
    }
    #[derive(serde::Deserialize)]
    struct Added {
        id: u32,
        content: String,
    }
    let hint = "the file is damaged, or written by a newer version of the tokenizers library";
    let fail = |problem: String| FormatError::malformed(path, problem, hint);
    let read = caught(|| tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string()));
    let inner = read.flatten().map_err(fail)?;
    let listed: Listed = serde_json::from_slice(json).map_err(|error| fail(error.to_string()))?;
    for Added { id, content } in listed.added_tokens {
        let found = inner.token_to_id(&content);
        if found != Some(id) {
            return Err(fail(format!("added_tokens: `{content}` has the id {id}, and the vocabulary says {found:?}")));
        }
    }
    Ok(inner)
}

fn ids(encoding: Encoding) -> Vec<u32> {
    encoding.get_ids().to_vec()
}

/// The text of a token; a configuration writes it as a string or as an object.
fn token_content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// Adds tokens that only `tokenizer_config.json` lists, as in old releases. Each must get the id that the file gives
/// it.
fn add_declared_tokens(inner: &mut tokenizers::Tokenizer, fields: &Map<String, Value>) -> Result<(), String> {
    let Some(Value::Object(declared)) = fields.get("added_tokens_decoder") else { return Ok(()) };
    let known: HashMap<u32, String> =
        inner.get_added_tokens_decoder().into_iter().map(|(id, token)| (id, token.content)).collect();
    let mut missing = Vec::new();
    for (id, token) in declared {
        let id: u32 = id.parse().map_err(|_| format!("added_tokens_decoder: `{id}` is not a token id"))?;
        let content = token_content(token).ok_or(format!("added_tokens_decoder: token {id} has no content"))?;
        let flag = |name: &str| token.get(name).and_then(Value::as_bool).unwrap_or(false);
        if known.get(&id).is_some_and(|known| known == content) {
            continue;
        }
        let added = AddedToken::from(content, flag("special"))
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .single_word(flag("single_word"))
            .normalized(flag("normalized"));
        missing.push((id, added));
    }
    missing.sort_by_key(|(id, _)| *id);
    for (id, token) in missing {
        inner.add_tokens(std::slice::from_ref(&token));
        let found = inner.token_to_id(&token.content);
        if found != Some(id) {
            return Err(format!("`{}` has id {found:?} where tokenizer_config.json claims {id}", token.content));
        }
    }
    Ok(())
}

/// Whether tokens are spelled in the byte-level alphabet, and whether decoding removes a leading space.
fn decoder_kind(decoder: Option<&DecoderWrapper>) -> (bool, bool) {
    match decoder {
        Some(DecoderWrapper::ByteLevel(_)) => (true, false),
        Some(DecoderWrapper::Metaspace(_)) => (false, true),
        Some(DecoderWrapper::Sequence(sequence)) => {
            let parts = sequence.get_decoders();
            let byte_level = parts.iter().any(|part| matches!(part, DecoderWrapper::ByteLevel(_)));
            let strips = parts.iter().any(|part| matches!(part, DecoderWrapper::Strip(strip) if strip.start > 0));
            (byte_level, strips)
        }
        _ => (false, false),
    }
}

#[cfg(test)]
mod tests;
