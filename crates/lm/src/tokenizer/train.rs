//! Trains a byte-level BPE tokenizer. The same texts give the same tokenizer on every machine.
//!
//! The `tokenizers` crate has a trainer too, but when two pairs are equally frequent its result depends on the order of
//! a hash table. This trainer counts words into a sorted map and breaks ties by the pair's ids. So vocabulary and
//! merges depend only on the texts, and not on their order.
//!
//! Text is cut into words before anything is counted. The cuts differ from GPT-2's:
//! * Every digit is a word, so numbers are spelled digit by digit.
//! * A run of Chinese characters is a word, separate from punctuation and from other scripts.
//! * No token is longer than [`TrainOptions::longest_token_bytes`]. So a clause without a comma, or a phrase that every
//!   document repeats, does not become a token.
//!
//! llama.cpp has the same cuts under the name `deepseek-coder`, so a model that was trained here can be exported to it.
//!
//! Source: Sennrich et al. 2016, arXiv 1508.07909; byte level after Radford et al. 2019.

use super::Tokenizer;
use super::alphabet::byte_char;
use crate::error::FormatError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

/// How to train a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainOptions {
    /// Number of tokens in all: special tokens, markup tokens, 256 bytes and merges.
    pub vocab_size: usize,
    /// Control tokens, which are not text. They get the ids from 0, in this order.
    pub special_tokens: Vec<String>,
    /// Markup that is one token but ordinary text, such as `<think>`. The ids follow those of the special tokens.
    pub markup_tokens: Vec<String>,
    /// The token of `special_tokens` that begins a text, if any.
    pub bos_token: Option<String>,
    /// The token of `special_tokens` that ends a text.
    pub eos_token: String,
    /// The token of `special_tokens` that other programs use to fill up batches.
    pub pad_token: String,
    /// Length of the longest token, in bytes.
    pub longest_token_bytes: usize,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            vocab_size: 4096,
            special_tokens: ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from).to_vec(),
            markup_tokens: Vec::new(),
            bos_token: None,
            eos_token: "<|im_end|>".into(),
            pad_token: "<|endoftext|>".into(),
            longest_token_bytes: 24,
        }
    }
}

/// How text is cut into words. Each expression splits the pieces that the previous expressions left, at its matches.
///
/// In order: line ends; letters with a space before them; punctuation with a space before it; Chinese characters;
/// single digits.
pub(crate) const WORD_PATTERNS: [&str; 5] = ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"];

impl Tokenizer {
    /// Trains a byte-level BPE; see [`TrainOptions`].
    ///
    /// The result depends on `options` and on how often each word occurs in `texts`. It does not depend on the order of
    /// the texts.
    ///
    /// * `path`: the recipe, which messages name.
    ///
    /// # Errors
    /// [`FormatError::Config`] for options that contradict each other, and for texts with too few words to give
    /// `vocab_size` tokens.
    pub fn train<'t>(
        texts: impl IntoIterator<Item = &'t str>,
        options: &TrainOptions,
        path: &Path,
    ) -> Result<Self, FormatError> {
        options.validate(path)?;
        let pre_tokenizer = pre_tokenizer();
        let words = count_words(texts, &pre_tokenizer);
        let (vocabulary, merges) = learn(&words, options);
        if vocabulary.len() < options.vocab_size {
            let problem = format!("the texts give only {} of {} tokens", vocabulary.len(), options.vocab_size);
            let hint = format!("give more text, or ask for {}", vocabulary.len());
            return Err(FormatError::config(path, "vocab_size", problem, hint));
        }
        let pipeline = json!({
            "version": "1.0",
            "added_tokens": [],
            "normalizer": null,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": null,
            "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
            "model": { "type": "BPE", "vocab": vocabulary, "merges": merges },
        });
        let mut inner = tokenizers::Tokenizer::from_bytes(pipeline.to_string())
            .expect("every merge's parts and result are in the vocabulary");
        let special: Vec<AddedToken> =
            options.special_tokens.iter().map(|token| AddedToken::from(token.as_str(), true)).collect();
        inner.add_special_tokens(&special);
        let markup: Vec<AddedToken> =
            options.markup_tokens.iter().map(|token| AddedToken::from(token.as_str(), false)).collect();
        inner.add_tokens(&markup);
        Ok(Self::assemble(inner, options.fields(), Path::new("tokenizer.json")).expect("made of valid parts"))
    }
}

impl TrainOptions {
    fn validate(&self, path: &Path) -> Result<(), FormatError> {
        let fail = |field: &str, problem: String, hint: &str| Err(FormatError::config(path, field, problem, hint));
        let mut seen = BTreeSet::new();
        for token in self.special_tokens.iter().chain(&self.markup_tokens) {
            if token.chars().count() < 2 || !seen.insert(token) {
                let problem = format!("`{token}` is shorter than two characters, or named twice");
                return fail("special_tokens", problem, "name every token once, in the manner of <|end|>");
            }
        }
        let named = [("eos_token", Some(&self.eos_token)), ("pad_token", Some(&self.pad_token))];
        for (field, token) in named.into_iter().chain([("bos_token", self.bos_token.as_ref())]) {
            if let Some(token) = token.filter(|token| !seen.contains(token)) {
                return fail(field, format!("`{token}` is not among special_tokens"), "list it there too");
            }
        }
        let least = self.special_tokens.len() + self.markup_tokens.len() + 256;
        if self.vocab_size < least || self.vocab_size > 1 << 20 {
            let problem = format!("{} is not between {least} (special tokens and bytes) and 1048576", self.vocab_size);
            return fail("vocab_size", problem, "2048 to 8192 suit models of a few million parameters");
        }
        Ok(())
    }

    /// The contents of `tokenizer_config.json`.
    fn fields(&self) -> Map<String, Value> {
        let fields = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "pad_token": self.pad_token,
            "clean_up_tokenization_spaces": false,
            "model_max_length": 1_000_000,
        });
        fields.as_object().expect("an object").clone()
    }
}

fn pre_tokenizer() -> PreTokenizerWrapper {
    let split = |pattern: &str| {
        let pattern = SplitPattern::Regex(pattern.into());
        Split::new(pattern, SplitDelimiterBehavior::Isolated, false).expect("the pattern is valid").into()
    };
    let mut steps: Vec<PreTokenizerWrapper> = WORD_PATTERNS.map(split).into();
    steps.push(ByteLevel::new(false, false, false).into());
    PreTokenizerWrapper::Sequence(Sequence::new(steps))
}

/// Counts how often each word occurs. Words are spelled in the byte-level alphabet.
fn count_words<'t>(texts: impl IntoIterator<Item = &'t str>, words: &PreTokenizerWrapper) -> BTreeMap<String, u64> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    for text in texts {
        // Cutting a document takes memory of many times its size. A line end is a word of its own, so lines can be cut
        // separately.
        for line in text.split_inclusive('\n') {
            let mut pieces = PreTokenizedString::from(line);
            words.pre_tokenize(&mut pieces).expect("cutting valid text cannot fail");
            for (word, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
                match counts.get_mut(word) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(word.to_string(), 1)),
                }
            }
        }
    }
    counts.into_iter().collect()
}

type Pair = (u32, u32);
type Learned = (HashMap<String, u32>, Vec<(String, String)>);

/// Merges the most frequent pair again and again, until there are enough tokens or no pair occurs twice. If several
/// pairs are equally frequent, the pair with the smaller ids is merged first.
fn learn(words: &BTreeMap<String, u64>, options: &TrainOptions) -> Learned {
    let mut tokens: Vec<String> = [&options.special_tokens[..], &options.markup_tokens].concat();
    let mut alphabet: Vec<char> = (0..=u8::MAX).map(byte_char).collect();
    alphabet.sort_unstable();
    tokens.extend(alphabet.iter().map(char::to_string));
    let mut ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();

    let mut pairs = Pairs::count(words, &ids);
    let mut queue: BinaryHeap<(i64, Reverse<Pair>)> =
        pairs.table.iter().map(|(&pair, entry)| (entry.count, Reverse(pair))).collect();
    let mut merges = Vec::new();
    while tokens.len() < options.vocab_size {
        let Some((count, Reverse(pair))) = queue.pop() else { break };
        let current = pairs.table[&pair].count;
        if count != current {
            // Merges have made the pair rarer since it was queued. (A pair that became more frequent was queued again
            // at that time.)
            if count > current && current > 0 {
                queue.push((current, Reverse(pair)));
            }
            continue;
        }
        let (left, right) = (tokens[pair.0 as usize].clone(), tokens[pair.1 as usize].clone());
        let joined = format!("{left}{right}");
        // One character of the byte-level alphabet is one byte of text.
        if count < 2 || joined.chars().count() > options.longest_token_bytes {
            continue;
        }
        let id = *ids.entry(joined.clone()).or_insert_with(|| {
            tokens.push(joined);
            tokens.len() as u32 - 1
        });
        merges.push((left, right));
        for risen in pairs.merge(pair, id) {
            queue.push((pairs.table[&risen].count, Reverse(risen)));
        }
    }
    (ids, merges)
}

/// Every word as its current tokens, and for each pair of neighbouring tokens how often it occurs, and in which words.
struct Pairs {
    spelled: Vec<Vec<u32>>,
    counts: Vec<i64>,
    table: HashMap<Pair, Entry, BuildHasherDefault<PairHasher>>,
}

#[derive(Default)]
struct Entry {
    count: i64,
    /// The words that contain the pair, and some words that contained it before a merge removed it.
    words: Vec<u32>,
}

impl Pairs {
    fn count(words: &BTreeMap<String, u64>, ids: &HashMap<String, u32>) -> Self {
        let spell = |word: &String| word.chars().map(|c| ids[c.encode_utf8(&mut [0; 4]) as &str]).collect();
        let spelled: Vec<Vec<u32>> = words.keys().map(spell).collect();
        let counts: Vec<i64> = words.values().map(|&count| count as i64).collect();
        let mut pairs = Self { spelled: Vec::new(), counts, table: HashMap::default() };
        for (at, word) in spelled.iter().enumerate() {
            word.windows(2).for_each(|pair| pairs.add((pair[0], pair[1]), pairs.counts[at], at));
        }
        pairs.spelled = spelled;
        pairs
    }

    fn add(&mut self, pair: Pair, count: i64, word: usize) {
        let entry = self.table.entry(pair).or_default();
        entry.count += count;
        if count > 0 && entry.words.last() != Some(&(word as u32)) {
            entry.words.push(word as u32);
        }
    }

    /// Replaces `pair` by `id` in every word. Returns the pairs that became more frequent.
    fn merge(&mut self, pair: Pair, id: u32) -> BTreeSet<Pair> {
        let mut risen = BTreeSet::new();
        for at in std::mem::take(&mut self.table.get_mut(&pair).expect("a queued pair was counted").words) {
            let at = at as usize;
            let (mut word, count) = (std::mem::take(&mut self.spelled[at]), self.counts[at]);
            let (mut read, mut write) = (0, 0);
            while read < word.len() {
                if read + 1 == word.len() || (word[read], word[read + 1]) != pair {
                    word[write] = word[read];
                    (read, write) = (read + 1, write + 1);
                    continue;
                }
                self.add(pair, -count, at);
                if write > 0 {
                    let left = word[write - 1];
                    self.add((left, pair.0), -count, at);
                    self.add((left, id), count, at);
                    risen.insert((left, id));
                }
                if let Some(&right) = word.get(read + 2) {
                    self.add((pair.1, right), -count, at);
                    self.add((id, right), count, at);
                    risen.insert((id, right));
                }
                word[write] = id;
                (read, write) = (read + 2, write + 1);
            }
            word.truncate(write);
            self.spelled[at] = word;
        }
        risen
    }
}

/// A hash of two ids. The standard hash also protects against crafted keys; it would take a third of the training time.
#[derive(Default)]
struct PairHasher(u64);

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0.rotate_left(26) ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
