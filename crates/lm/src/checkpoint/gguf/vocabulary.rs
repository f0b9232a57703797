//! Reads tokenizers from GGUF metadata, and writes them.
//!
//! A file holds the tokens in the order of their ids, their merges or scores, and a *name* for the way in which text is
//! cut into words. It does not hold the regular expressions behind the name. [`CUTS`] has those that the supported
//! families use, each in the form of a `pre_tokenizer` of a `tokenizer.json`. An unknown name is an error, because the
//! ids would be silently wrong.
//!
//! Two kinds of vocabulary can be read: byte-level BPE with merges (`gpt2`), and SentencePiece's BPE with scores
//! (`llama`). The merges of the latter are recovered from the scores.

use super::metadata::Value;
use crate::error::FormatError;
use crate::tokenizer::{self, Tokenizer};
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The type of a token, by ggml's numbers.
mod token_type {
    pub const NORMAL: i64 = 1;
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER_DEFINED: i64 = 4;
    pub const BYTE: i64 = 6;
}

/// A way of cutting text into words.
struct Cut {
    /// Names in `tokenizer.ggml.pre`; the first one is written.
    names: &'static [&'static str],
    /// Regular expressions, applied in order. Each splits the pieces that the previous one left.
    patterns: &'static [&'static str],
    /// Whether the byte-level step then splits by GPT-2's expression.
    gpt2: bool,
    /// Whether text is first normalised to Unicode's composed form (NFC).
    nfc: bool,
    /// Whether a word that is a token becomes that token directly, without merges.
    ignore_merges: bool,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_V3: &str = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

/// The ways of the supported families, from the `tokenizer.json` of their releases.
const CUTS: [Cut; 7] = [
    Cut {
        names: &["llama-bpe", "llama3", "llama-v3"],
        patterns: &[LLAMA3],
        gpt2: false,
        nfc: false,
        ignore_merges: true,
    },
    Cut { names: &["qwen2"], patterns: &[QWEN2], gpt2: false, nfc: true, ignore_merges: false },
    Cut { names: &["gpt-2"], patterns: &[], gpt2: true, nfc: false, ignore_merges: false },
    Cut { names: &["smollm"], patterns: &[r"\p{N}"], gpt2: true, nfc: false, ignore_merges: false },
    Cut {
        names: &["deepseek-v3"],
        patterns: &[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK_V3],
        gpt2: false,
        nfc: false,
        ignore_merges: false,
    },
    Cut {
        names: &["deepseek-coder"],
        patterns: &crate::tokenizer::WORD_PATTERNS,
        gpt2: false,
        nfc: false,
        ignore_merges: false,
    },
    Cut { names: &["deepseek-r1-qwen"], patterns: &[QWEN2], gpt2: false, nfc: false, ignore_merges: false },
];

impl Cut {
    fn pre_tokenizer(&self) -> Json {
        let split = |pattern: &&str| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
        let mut parts: Vec<Json> = self.patterns.iter().map(split).collect();
        parts.push(byte_level(self.gpt2));
        json!({ "type": "Sequence", "pretokenizers": parts })
    }
}

fn byte_level(use_regex: bool) -> Json {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex })
}

type Metadata = BTreeMap<String, Value>;

fn get<'a>(metadata: &'a Metadata, key: &str) -> Option<&'a Value> {
    metadata.get(&format!("tokenizer.ggml.{key}"))
}

/// The fields that `tokenizer_config.json` would have: the named special tokens and the chat template.
pub fn special_fields(metadata: &Metadata) -> Map<String, Json> {
    let tokens = get(metadata, "tokens").and_then(Value::as_list).unwrap_or_default();
    let mut fields = Map::new();
    fields.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    for (name, key) in [
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("pad_token", "padding_token_id"),
        ("unk_token", "unknown_token_id"),
    ] {
        let id = get(metadata, key).and_then(Value::as_unsigned).and_then(|id| usize::try_from(id).ok());
        if let Some(token) = id.and_then(|id| tokens.get(id)).and_then(Value::as_text) {
            fields.insert(name.into(), token.into());
        }
    }
    fields.insert("clean_up_tokenization_spaces".into(), false.into());
    if let Some(template) = metadata.get("tokenizer.chat_template").and_then(Value::as_text) {
        fields.insert("chat_template".into(), template.into());
    }
    fields
}

/// Builds the tokenizer that the metadata describe.
pub fn read(metadata: &Metadata, path: &Path) -> Result<Tokenizer, FormatError> {
    let hint = "take tokenizer.json from the model's Hugging Face folder";
    let fail = |problem: String| FormatError::malformed(path, problem, hint);
    let texts = |key: &str| -> Result<Vec<&str>, FormatError> {
        let list = get(metadata, key).and_then(Value::as_list);
        let list = list.ok_or_else(|| fail(format!("the file has no tokenizer: tokenizer.ggml.{key} is missing")))?;
        let texts: Option<Vec<&str>> = list.iter().map(Value::as_text).collect();
        texts.ok_or_else(|| fail(format!("tokenizer.ggml.{key} is not a list of texts")))
    };
    let tokens = texts("tokens")?;
    let mut vocabulary: HashMap<&str, u32> = HashMap::with_capacity(tokens.len());
    for (id, token) in (0..).zip(&tokens) {
        if vocabulary.insert(token, id).is_some() {
            return Err(fail(format!("the token `{token}` occurs twice in tokenizer.ggml.tokens")));
        }
    }
    let kind = get(metadata, "model").and_then(Value::as_text).unwrap_or("");
    let mut pipeline = match kind {
        "gpt2" => byte_level_pipeline(metadata, &texts("merges")?).map_err(fail)?,
        "llama" => sentencepiece_pipeline(metadata, &tokens, &vocabulary).map_err(fail)?,
        other => return Err(fail(format!("a tokenizer of kind `{other}` is not supported (`gpt2` and `llama` are)"))),
    };
    pipeline["model"]["vocab"] =
        Map::from_iter(tokens.iter().zip(0u32..).map(|(token, id)| (token.to_string(), id.into()))).into();
    pipeline["version"] = "1.0".into();
    pipeline["added_tokens"] = added_tokens(metadata, &tokens).into();
    pipeline["post_processor"] = post_processor(metadata, &tokens).map_err(fail)?;
    let inner = tokenizer::pipeline(pipeline.to_string().as_bytes(), path)?;
    Tokenizer::assemble(inner, special_fields(metadata), path)
}

fn byte_level_pipeline(metadata: &Metadata, merges: &[&str]) -> Result<Json, String> {
    let name = get(metadata, "pre").and_then(Value::as_text).unwrap_or("default");
    let cut = CUTS.iter().find(|cut| cut.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = CUTS.iter().flat_map(|cut| cut.names).copied().collect();
        format!("cutting text into words by `{name}` is not known; these are: {}", known.join(", "))
    })?;
    // A merge is two tokens with a space between them. A space inside a token is spelled by another character.
    let pairs: Option<Vec<Json>> =
        merges.iter().map(|merge| merge.split_once(' ').map(|(left, right)| json!([left, right]))).collect();
    Ok(json!({
        "normalizer": if cut.nfc { json!({ "type": "NFC" }) } else { Json::Null },
        "pre_tokenizer": cut.pre_tokenizer(),
        "decoder": byte_level(false),
        "model": {
            "type": "BPE",
            "ignore_merges": cut.ignore_merges,
            "merges": pairs.ok_or("a merge is not two tokens with a blank between")?,
        },
    }))
}

/// The pipeline of a SentencePiece vocabulary. SentencePiece merges the pair whose joined token has the best score. The
/// equivalent list of merges is every way to cut every token in two, in the order of the tokens' scores.
fn sentencepiece_pipeline(metadata: &Metadata, tokens: &[&str], ids: &HashMap<&str, u32>) -> Result<Json, String> {
    let scores = get(metadata, "scores").and_then(Value::as_list).unwrap_or_default();
    let scores: Option<Vec<f64>> = scores.iter().map(Value::as_float).collect();
    let scores =
        scores.filter(|scores| scores.len() == tokens.len()).ok_or("tokenizer.ggml.scores has another length")?;
    let mut merges = Vec::new();
    for (token, score) in tokens.iter().zip(scores) {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                merges.push((score, left_id, right_id, left, right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let merges: Vec<[&str; 2]> = merges.into_iter().map(|(_, _, _, left, right)| [left, right]).collect();
    let prefix = get(metadata, "add_space_prefix").and_then(Value::as_bool).unwrap_or(true);
    let mut normalizers = vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" })];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": "▁" }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let unknown = get(metadata, "unknown_token_id").and_then(Value::as_unsigned).unwrap_or(0);
    Ok(json!({
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": {
            "type": "BPE",
            "unk_token": usize::try_from(unknown).ok().and_then(|id| tokens.get(id)),
            "fuse_unk": true,
            "byte_fallback": true,
            "merges": merges,
        },
    }))
}

/// The added tokens: control tokens, which are special, and tokens that users defined, which are not.
fn added_tokens(metadata: &Metadata, tokens: &[&str]) -> Vec<Json> {
    let types = get(metadata, "token_type").and_then(Value::as_list).unwrap_or_default();
    let mut added = Vec::new();
    for (id, (content, kind)) in tokens.iter().zip(types).enumerate() {
        let kind = match kind {
            Value::Signed(kind) => *kind,
            other => other.as_unsigned().map_or(token_type::NORMAL, |kind| kind as i64),
        };
        let special = matches!(kind, token_type::CONTROL | token_type::UNKNOWN);
        if special || kind == token_type::USER_DEFINED {
            added.push(json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            }));
        }
    }
    added
}

/// The step that adds the beginning token and the end token around a text, if the file asks for them.
fn post_processor(metadata: &Metadata, tokens: &[&str]) -> Result<Json, String> {
    let sentencepiece = get(metadata, "model").and_then(Value::as_text) == Some("llama");
    let flag = |key: &str, default| get(metadata, key).and_then(Value::as_bool).unwrap_or(default);
    let token = |key: &str| -> Result<(u64, &str), String> {
        let id = get(metadata, key).and_then(Value::as_unsigned);
        let token = id.and_then(|id| Some((id, *tokens.get(usize::try_from(id).ok()?)?)));
        token.ok_or_else(|| format!("tokenizer.ggml.{key} names no token"))
    };
    let (mut single, mut pair, mut special) = (Vec::new(), Vec::new(), Map::new());
    let mut add = |parts: &mut Vec<Json>, key: &str, type_id: u32| -> Result<(), String> {
        let (id, token) = token(key)?;
        parts.push(json!({ "SpecialToken": { "id": token, "type_id": type_id } }));
        special.insert(token.into(), json!({ "id": token, "ids": [id], "tokens": [token] }));
        Ok(())
    };
    let (bos, eos) = (flag("add_bos_token", sentencepiece), flag("add_eos_token", false));
    if !bos && !eos {
        return Ok(Json::Null);
    }
    for (type_id, sequence) in [(0, "A"), (1, "B")] {
        for (enabled, key) in [(bos, Some("bos_token_id")), (true, None), (eos, Some("eos_token_id"))] {
            match key {
                Some(key) if enabled => add(&mut pair, key, type_id)?,
                Some(_) => {}
                None => pair.push(json!({ "Sequence": { "id": sequence, "type_id": type_id } })),
            }
        }
        if type_id == 0 {
            single.clone_from(&pair);
        }
    }
    Ok(json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special }))
}

/// The metadata that describe a tokenizer.
///
/// * `vocab_size`: number of rows of the embedding. Rows beyond the last token get unused tokens.
///
/// # Errors
/// A sentence for the user, if no name in a GGUF file describes the tokenizer.
pub fn write(tokenizer: &Tokenizer, vocab_size: usize) -> Result<Vec<(String, Value)>, String> {
    let text = tokenizer.pipeline().to_string(false).map_err(|error| error.to_string())?;
    let json: Json = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let mut metadata = Vec::new();
    let mut put = |key: &str, value: Value| metadata.push((format!("tokenizer.ggml.{key}"), value));

    let mut tokens: Vec<String> = (0..vocab_size).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![5; vocab_size]; // unused
    let byte_fallback = json["model"]["byte_fallback"] == true;
    let vocabulary = json["model"]["vocab"].as_object().ok_or("the tokenizer has no vocabulary")?;
    for (token, id) in vocabulary {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < vocab_size);
        let id = id.ok_or_else(|| format!("the token `{token}` has no row in the embedding"))?;
        let is_byte = byte_fallback && token.len() == 6 && token.starts_with("<0x");
        tokens[id] = token.clone();
        types[id] = if is_byte { token_type::BYTE } else { token_type::NORMAL };
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let (id, content) = (added["id"].as_u64(), added["content"].as_str());
        let (Some(id), Some(content)) = (id.filter(|&id| id < vocab_size as u64), content) else {
            return Err(format!("the added token {added} has no row in the embedding"));
        };
        tokens[id as usize] = content.into();
        let unknown = json["model"]["unk_token"] == content && byte_fallback;
        types[id as usize] = match added["special"].as_bool() {
            Some(true) if unknown => token_type::UNKNOWN,
            Some(true) => token_type::CONTROL,
            _ => token_type::USER_DEFINED,
        };
    }
    let merges: Vec<(String, String)> =
        json["model"]["merges"].as_array().into_iter().flatten().filter_map(pair).collect();
    if byte_fallback {
        let scores = sentencepiece_scores(&tokens, &merges);
        put("model", Value::Text("llama".into()));
        put("pre", Value::Text("default".into()));
        put("scores", Value::List(scores.into_iter().map(Value::Float).collect()));
        put("add_space_prefix", Value::Bool(text.contains(r#""type":"Prepend""#)));
    } else {
        let cut = cut_of(&json)?;
        put("model", Value::Text("gpt2".into()));
        put("pre", Value::Text(cut.names[0].into()));
        put("merges", Value::List(merges.iter().map(|(l, r)| Value::Text(format!("{l} {r}"))).collect()));
    }
    put("tokens", Value::List(tokens.into_iter().map(Value::Text).collect()));
    put("token_type", Value::List(types.into_iter().map(Value::Signed).collect()));
    let special = tokenizer.special();
    for (key, id) in [
        ("bos_token_id", special.bos),
        ("eos_token_id", special.eos),
        ("padding_token_id", special.pad),
        ("unknown_token_id", special.unk),
    ] {
        if let Some(id) = id {
            put(key, Value::Unsigned(id.into()));
        }
    }
    let around = tokenizer.encode_with_special("");
    put("add_bos_token", Value::Bool(special.bos.is_some() && around.first() == special.bos.as_ref()));
    put(
        "add_eos_token",
        Value::Bool(special.eos.is_some() && around.len() > 1 && around.last() == special.eos.as_ref()),
    );
    Ok(metadata)
}

fn pair(merge: &Json) -> Option<(String, String)> {
    match merge {
        Json::String(text) => text.split_once(' ').map(|(left, right)| (left.into(), right.into())),
        _ => Some((merge[0].as_str()?.into(), merge[1].as_str()?.into())),
    }
}

/// Scores that rank each token by the first merge that makes it. Tokens that no merge makes come last.
fn sentencepiece_scores(tokens: &[String], merges: &[(String, String)]) -> Vec<f64> {
    let mut first: HashMap<String, usize> = HashMap::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        first.entry(format!("{left}{right}")).or_insert(rank);
    }
    tokens.iter().map(|token| first.get(token).map_or(-1e9, |&rank| -(rank as f64))).collect()
}

/// The entry of [`CUTS`] that a `tokenizer.json` describes. Some steps have two equivalent spellings; both are
/// recognised.
fn cut_of(json: &Json) -> Result<&'static Cut, String> {
    let nfc = match &json["normalizer"] {
        Json::Null => false,
        Json::Object(step) if step["type"] == "NFC" => true,
        Json::Object(step) if step["type"] == "Sequence" && step["normalizers"] == json!([]) => false,
        other => return Err(format!("llama.cpp has no counterpart of the normalizer {other}")),
    };
    let mut patterns: Vec<String> = Vec::new();
    let mut gpt2 = false;
    let step = &json["pre_tokenizer"];
    let steps = match step["pretokenizers"].as_array() {
        Some(steps) => steps.clone(),
        None => vec![step.clone()],
    };
    for step in &steps {
        match step["type"].as_str() {
            Some("Split") => patterns.push(step["pattern"]["Regex"].as_str().unwrap_or_default().into()),
            Some("Digits") if step["individual_digits"] == true => patterns.push(r"\p{N}".into()),
            Some("ByteLevel") if step["add_prefix_space"] == false => gpt2 = step["use_regex"] == true,
            _ => return Err(format!("llama.cpp has no counterpart of the pre-tokenizer {step}")),
        }
    }
    let ignore_merges = json["model"]["ignore_merges"] == true;
    let cut = CUTS.iter().find(|cut| {
        cut.patterns == patterns && cut.gpt2 == gpt2 && cut.nfc == nfc && cut.ignore_merges == ignore_merges
    });
    cut.ok_or_else(|| format!("llama.cpp has no name for cutting text into words by {patterns:?}"))
}
