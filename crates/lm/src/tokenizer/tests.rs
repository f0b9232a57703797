use super::*;
use crate::error::told;
use std::path::Path;

const TEXT: &str =
    "被告人盗窃手机一部，价值2,350元。被告人盗窃电动车一辆。\n\nThe cat sat on the mat; the cat's 12 hats.\n";

fn small() -> Tokenizer {
    let options = TrainOptions { vocab_size: 290, ..TrainOptions::default() };
    Tokenizer::train([TEXT, TEXT], &options, Path::new("recipe.toml")).unwrap()
}

fn spelled(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let bytes = tokenizer.encode_user(text).into_iter().map(|id| tokenizer.token_bytes(id).unwrap().to_vec());
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

#[test]
fn training_depends_on_the_texts_and_not_on_their_order() {
    let options = TrainOptions { vocab_size: 290, ..TrainOptions::default() };
    let texts =
        ["the cat sat", "一二三四五六七八", "the hat sat on the cat", "一二三一二三", "abcabcabc xyz xyz xyz xyz"];
    let train = |texts: &[&str]| {
        let texts: Vec<&str> = texts.iter().flat_map(|text| [*text, *text]).collect();
        let tokenizer = Tokenizer::train(texts, &options, Path::new("recipe.toml")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path()).unwrap();
        std::fs::read_to_string(folder.path().join("tokenizer.json")).unwrap()
    };
    let mut reversed = texts;
    reversed.reverse();
    assert_eq!(train(&texts), train(&reversed));
}

#[test]
fn what_is_encoded_decodes_to_itself() {
    let tokenizer = small();
    assert_eq!(tokenizer.vocab_size(), 290);
    for text in [TEXT, "", " ", "\u{0}\t\r\n", "naïve café 𝄞 👩‍👩‍👧 ﷽", "全角１２３ 々〇", "<|im_end|>", "\u{fdd0}"]
    {
        assert_eq!(tokenizer.decode(&tokenizer.encode_user(text), false), text);
    }
}

#[test]
fn digits_stand_alone() {
    let tokenizer = small();
    let tokens = spelled(&tokenizer, "被告人1234元，the");
    assert!(["1", "2", "3", "4"].iter().all(|alone| tokens.iter().any(|token| token == alone)), "{tokens:?}");
    assert!(tokens.contains(&"被告人".to_string()), "{tokens:?}");
}

#[test]
fn the_words_of_users_never_become_special() {
    let tokenizer = small();
    let end = tokenizer.special().eos.unwrap();
    assert_eq!(tokenizer.encode("<|im_end|>"), [end]);
    assert!(!tokenizer.encode_user("<|im_end|>").contains(&end));
    assert_eq!(tokenizer.decode(&[end], false), "<|im_end|>");
    assert_eq!(tokenizer.decode(&[end], true), "");
    assert!(tokenizer.is_special(end) && !tokenizer.is_special(100) && !tokenizer.is_special(u32::MAX));
}

#[test]
fn markup_is_found_and_control_is_not() {
    let markup_tokens = vec!["<think>".to_string()];
    let options = TrainOptions { vocab_size: 290, markup_tokens, ..TrainOptions::default() };
    let tokenizer = Tokenizer::train([TEXT, TEXT], &options, Path::new("recipe.toml")).unwrap();
    let (think, end) = (tokenizer.token_to_id("<think>").unwrap(), tokenizer.special().eos.unwrap());
    let ids = tokenizer.encode_markup("<think>盗<|im_end|><think><|im_end|>");
    assert_eq!((ids.iter().filter(|&&id| id == think).count(), ids.contains(&end)), (2, false));
    assert_eq!(tokenizer.decode(&ids, false), "<think>盗<|im_end|><think><|im_end|>");
    assert_eq!(tokenizer.encode_markup(TEXT), tokenizer.encode(TEXT));
}

#[test]
fn a_stream_never_splits_a_character() {
    let tokenizer = small();
    let text = "盗𝄞é👩‍👩‍👧 the cat。<|im_end|>";
    for skip_special in [false, true] {
        let ids = tokenizer.encode(text);
        let mut stream = tokenizer.decode_stream(skip_special);
        let mut whole = String::new();
        for &id in &ids {
            let piece = stream.push(id);
            assert!(!piece.contains(char::REPLACEMENT_CHARACTER), "{piece}");
            whole += &piece;
        }
        whole += &stream.finish();
        assert_eq!(whole, tokenizer.decode(&ids, skip_special));
    }
}

#[test]
fn a_stream_of_damaged_bytes_goes_on() {
    let tokenizer = small();
    let byte = |byte: u8| (0..290).find(|&id| tokenizer.token_bytes(id) == Some(&[byte])).unwrap();
    // A single continuation byte; a character interrupted by a letter; a character that is never finished.
    let ids = [byte(0x80), byte(b'a'), byte(0xe4), byte(0xbd), byte(b'b'), byte(0xe4), byte(0xbd)];
    let mut stream = tokenizer.decode_stream(false);
    let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
    assert_eq!(pieces, ["\u{fffd}", "a", "", "", "\u{fffd}b", "", ""]);
    assert_eq!(pieces.concat() + &stream.finish(), tokenizer.decode(&ids, false));
}

#[test]
fn a_saved_tokenizer_reads_back() {
    let (tokenizer, folder) = (small(), tempfile::tempdir().unwrap());
    tokenizer.save(folder.path()).unwrap();
    let read = Tokenizer::open_folder(folder.path()).unwrap();
    assert_eq!(read.encode(TEXT), tokenizer.encode(TEXT));
    assert_eq!(read.special(), tokenizer.special());
    assert_eq!(read.added_tokens(), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]);
    assert_eq!(read.encode_user(TEXT), tokenizer.encode_user(TEXT));
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let message = |options: TrainOptions, text: &str| {
        Tokenizer::train([text], &options, Path::new("recipe.toml")).unwrap_err().to_string()
    };
    let defaults = TrainOptions::default;
    let small = message(TrainOptions { vocab_size: 100, ..defaults() }, TEXT);
    assert!(small.starts_with("recipe.toml: `vocab_size`: 100 is not between 259"), "{small}");
    let unknown = message(TrainOptions { eos_token: "</s>".into(), ..defaults() }, TEXT);
    assert!(unknown.starts_with("recipe.toml: `eos_token`: `</s>` is not among special_tokens"), "{unknown}");
    let twice = TrainOptions { special_tokens: vec!["<|a|>".into(), "<|a|>".into()], ..defaults() };
    assert!(message(twice, TEXT).contains("`special_tokens`"));
    let poor = message(defaults(), TEXT);
    assert!(poor.contains("`vocab_size`: the texts give only"), "{poor}");
}

#[test]
fn sentencepiece_vocabularies_decode_by_bytes() {
    // A vocabulary as in Llama 2: ▁ for spaces, <0xHH> for bytes that no token spells.
    let mut vocabulary: Vec<(String, u32)> =
        ["<unk>", "<s>", "</s>"].iter().zip(0..).map(|(token, id)| (token.to_string(), id)).collect();
    vocabulary.extend((0..=255u32).map(|byte| (format!("<0x{byte:02X}>"), byte + 3)));
    vocabulary.extend(["▁", "a", "b", "▁a"].iter().zip(259..).map(|(token, id)| (token.to_string(), id)));
    let text = serde_json::json!({
        "version": "1.0",
        "added_tokens": [{"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1],
            "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": serde_json::Map::from_iter(vocabulary.into_iter().map(|(token, id)| (token, id.into()))),
            "merges": [["▁", "a"]]},
    });
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &serde_json::Value| std::fs::write(folder.path().join("tokenizer.json"), text.to_string());
    let mut random = text.clone();
    random["model"]["dropout"] = 0.5.into();
    write(&random).unwrap();
    let refused = Tokenizer::open_folder(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("tokenizer.json: model.dropout: "), "{refused}");
    write(&text).unwrap();
    let tokenizer = Tokenizer::open_folder(folder.path()).unwrap();
    let ids = tokenizer.encode_with_special("a b中");
    assert_eq!(ids, [1, 262, 259, 261, 3 + 0xe4, 3 + 0xb8, 3 + 0xad]);
    assert_eq!(tokenizer.encode_user("a b中"), ids[1..]);
    assert_eq!(tokenizer.encode_user("<s>")[0], 259);
    let mut stream = tokenizer.decode_stream(true);
    let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
    assert_eq!(pieces, ["", "a", " ", "b", "", "", "中"]);
    assert_eq!(tokenizer.decode(&ids, true), "a b中");
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    assert!(Tokenizer::open_folder(folder.path()).unwrap_err().to_string().contains("tokenizer.json: cannot read"));
    for text in ["", "{", "{}", "[1]", r#"{"version":"1.0","model":{"type":"BPE","vocab":{},"merges":[["a","b"]]}}"#] {
        std::fs::write(&path, text).unwrap();
        let message = told(&Tokenizer::open_folder(folder.path()).unwrap_err());
        assert!(message.contains("tokenizer.json: ") && message.contains("\nhint: "), "{message}");
    }
}

/// A file that breaks the library, and what it is refused for.
#[test]
fn files_that_would_break_the_library_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    small().save(folder.path()).unwrap();
    let path = folder.path().join("tokenizer.json");
    let sound: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let template = |listed: serde_json::Value| {
        serde_json::json!({ "type": "TemplateProcessing", "pair": [], "special_tokens": listed,
            "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }] })
    };
    let replace =
        |pattern: serde_json::Value| serde_json::json!({ "type": "Replace", "pattern": pattern, "content": "x" });
    for (place, value, problem) in [
        ("/post_processor", template(serde_json::json!({})), ""),
        ("/post_processor", template(serde_json::json!({ "<s>": { "id": "<s>", "ids": [], "tokens": [] } })), ""),
        (
            "/post_processor",
            template(serde_json::json!({ "<s>": { "id": "<s>", "ids": [4294967295_u32], "tokens": ["<s>"] } })),
            "a text becomes the token",
        ),
        ("/normalizer", replace(serde_json::json!({ "String": "" })), "normalizer: a Replace has an empty pattern"),
        ("/normalizer", replace(serde_json::json!({ "Regex": "" })), "normalizer: a Replace has an empty pattern"),
        ("/normalizer", replace(serde_json::json!({ "Regex": "(" })), ""),
        ("/normalizer", serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "AAAA" }), ""),
        ("/normalizer", serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "AQAAAAEAAAAA" }), ""),
        ("/decoder", serde_json::json!({ "type": "Strip", "content": "x", "start": u32::MAX, "stop": u32::MAX }), ""),
        ("/decoder", serde_json::json!({ "type": "CTC" }), ""),
        ("/decoder", replace(serde_json::json!({ "String": "" })), ""),
        ("/model/unk_token", "<none>".into(), "model.unk_token: `<none>` is not in the vocabulary"),
        ("/model", serde_json::json!({ "type": "Unigram", "unk_id": null, "vocab": [["a", 0.0]] }), ""),
        ("/model", serde_json::json!({ "type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]] }), ""),
        (
            "/model",
            serde_json::json!({ "type": "WordLevel", "unk_token": "?", "vocab": { "a": 0 } }),
            "model.unk_token",
        ),
        (
            "/model",
            serde_json::json!({ "type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "", "max_input_chars_per_word": 9, "vocab": { "a": 0 } }),
            "model.unk_token",
        ),
        ("/added_tokens/0/id", 4_000_000_000_u32.into(), "added_tokens: `<|endoftext|>` has the id 4000000000"),
        (
            "/truncation",
            serde_json::json!({ "direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 9 }),
            "",
        ),
    ] {
        let mut damaged = sound.clone();
        *damaged.pointer_mut(place).unwrap() = value;
        if place == "/model" {
            damaged["added_tokens"] = serde_json::json!([]);
        }
        std::fs::write(&path, damaged.to_string()).unwrap();
        match Tokenizer::open_folder(folder.path()) {
            Err(error) => {
                let told = told(&error);
                assert!(
                    told.contains("tokenizer.json: ") && told.contains(problem) && told.contains("\nhint: "),
                    "{told}"
                );
            }
            // What is let through can be used.
            Ok(tokenizer) => {
                assert!(problem.is_empty(), "{damaged}");
                tokenizer.decode(&tokenizer.encode_with_special(TEXT), false);
            }
        }
    }
}

#[test]
fn merges_that_spell_a_special_token_do_not_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let text = serde_json::json!({
        "version": "1.0", "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "added_tokens": [{ "id": 4, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true }],
        "model": { "type": "BPE", "merges": [["<", "/"], ["s", ">"], ["</", "s>"]],
            "vocab": { "<": 0, "/": 1, "s": 2, ">": 3, "</s>": 4, "</": 5, "s>": 6 } },
    });
    std::fs::write(folder.path().join("tokenizer.json"), text.to_string()).unwrap();
    let tokenizer = Tokenizer::open_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.encode_user("s></s></"), [2, 3, 0, 1, 2, 3, 0, 1]);
    assert_eq!(tokenizer.encode_user("s></"), [6, 5]);
    let except = |text: &str, untrusted: Range<usize>| tokenizer.encode_except(text, &[untrusted]);
    assert_eq!(except("</s></s>", 4..5), [4, 0, 1, 2, 3]);
    assert_eq!(except("</s></s>", 3..5), [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(except("</s></s></s>", 5..6), [4, 0, 1, 2, 3, 4]);
}
