use super::dequantise::dequantise;
use super::metadata::{Header, Value};
use super::*;
use crate::checkpoint::tests::{Tensors, message, weights};
use crate::checkpoint::{Storage, TensorSource, check};
use crate::config::RopeScaling;
use crate::tokenizer::{Tokenizer, TrainOptions};
use std::path::Path;

/// Two blocks of each format, with bytes from a formula. The expected first and last value, sum, and sum weighted by
/// position are those of the `gguf` package 0.19.
#[test]
fn blocks_are_dequantised_as_ggml_does() {
    for (kind, first, last, sum, weighted) in [
        (Kind::Q4_0, 0.5, 0.0390625, -28.265625, -424.84375),
        (Kind::Q4_1, 4.375, 1.5625, 140.765625, 4041.6875),
        (Kind::Q5_0, 0.5, -0.0234375, -42.453125, -813.53125),
        (Kind::Q5_1, 8.375, 1.71875, 240.203125, 5779.75),
        (Kind::Q8_0, -43.5, -0.28125, -171.125, -3101.5),
        (Kind::Q4K, 18.625, -37.875, 9244.75, -1908825.0),
        (Kind::Q5K, 218.625, -32.375, 26833.25, 595006.5),
        (Kind::Q6K, 712.5, -16.0, 30541.5, 1564710.1875),
    ] {
        let (elements, size) = kind.block();
        let mut bytes: Vec<u8> = (0..2 * size).map(|i| ((i * 37 + 11) * (i + 3) % 256) as u8).collect();
        let halves: &[usize] = match kind {
            Kind::Q4_0 | Kind::Q5_0 | Kind::Q8_0 => &[0],
            Kind::Q6K => &[208],
            _ => &[0, 2],
        };
        for (block, scales) in [[0.5, -0.125], [0.0078125, 1.5]].into_iter().enumerate() {
            for (at, scale) in halves.iter().zip(scales) {
                let at = block * size + at;
                bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
            }
        }
        let mut values = vec![0.0; 2 * elements];
        dequantise(kind, &bytes, &mut values);
        let found_sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
        let found_weighted: f64 = values.iter().zip(1..).map(|(&value, i)| f64::from(value) * f64::from(i)).sum();
        let found = (f64::from(values[0]), f64::from(values[2 * elements - 1]), found_sum, found_weighted);
        assert_eq!(found, (first, last, sum, weighted), "{kind:?}");
    }
}

#[test]
fn rows_alternate_between_the_halves_of_a_head() {
    let order: Vec<usize> = (0..12).map(|row| hf_row(row, 6)).collect();
    assert_eq!(order, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
}

fn tokenizer() -> Tokenizer {
    let options = TrainOptions {
        vocab_size: 260,
        special_tokens: ["<|end|>", "<|user|>"].map(String::from).into(),
        eos_token: "<|end|>".into(),
        pad_token: "<|end|>".into(),
        ..TrainOptions::default()
    };
    Tokenizer::train(["the the the 三年三年", "the 三年"], &options, Path::new("recipe.toml")).unwrap()
}

fn export<'a>(config: &'a Config, tokenizer: Option<&'a Tokenizer>) -> Export<'a> {
    Export { name: "tiny", config, tokenizer, template: Some("{{ messages[0].content }}{{ eos_token }}") }
}

/// A configuration of each family, with the vocabulary of [`tokenizer`] and with rows that are whole blocks of 32.
fn families() -> Vec<Config> {
    ["llama", "qwen2", "qwen3"]
        .map(|family| {
            let scaling = match family {
                "llama" => {
                    r#","rope_scaling":{"rope_type":"llama3","factor":32.0,"low_freq_factor":1.0,
                    "high_freq_factor":4.0,"original_max_position_embeddings":8192}"#
                }
                _ => "",
            };
            let text = format!(
                r#"{{"model_type":"{family}","hidden_size":32,"num_hidden_layers":2,"num_attention_heads":4,
                "num_key_value_heads":2,"head_dim":{},"intermediate_size":64,"vocab_size":264,"rms_norm_eps":1e-5,
                "rope_theta":500000.0,"tie_word_embeddings":{},"eos_token_id":0,"pad_token_id":0{scaling}}}"#,
                if family == "qwen2" { 8 } else { 16 },
                family == "qwen3"
            );
            Config::from_json(&text, Path::new("config.json")).unwrap()
        })
        .into()
}

#[test]
fn what_is_written_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let tokenizer = tokenizer();
    for config in families() {
        let weights = weights(&config);
        for storage in [Storage::F32, Storage::F16, Storage::Bf16, Storage::Q8_0] {
            save(&path, export(&config, Some(&tokenizer)), &weights, storage).unwrap();
            let file = File::open(&path).unwrap();
            let expected = Config { max_position_embeddings: file.config().max_position_embeddings, ..config.clone() };
            assert_eq!(file.config(), &expected);
            check(&config, &file).unwrap();
            for (name, (shape, values)) in &weights.0 {
                let mut found = vec![0.0; values.len()];
                file.read_f32(name, &mut found).unwrap();
                let largest = found.iter().zip(values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let allowed = if storage == Storage::Q8_0 && shape.len() == 2 { 0.005 } else { 0.0 };
                assert!(largest <= allowed, "{name} {shape:?} as {storage:?}: {largest}");
            }
            let template = file.template().unwrap().unwrap();
            let messages = [serde_json::json!({ "role": "user", "content": "hi" })];
            let chat = crate::template::Chat { messages: &messages, ..Default::default() };
            assert_eq!(template.render(&chat).unwrap(), "hi<|end|>");
        }
    }
}

#[test]
fn a_tokenizer_survives_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let (config, tokenizer) = (families().remove(0), tokenizer());
    save(&path, export(&config, Some(&tokenizer)), &weights(&config), Storage::F32).unwrap();
    let read = File::open(&path).unwrap().tokenizer().unwrap();
    assert_eq!(read.special(), tokenizer.special());
    for text in ["the the 三年, 123\n\n <|user|>é", ""] {
        assert_eq!(read.encode(text), tokenizer.encode(text));
        assert_eq!(read.encode_with_special(text), tokenizer.encode_with_special(text));
        assert_eq!(read.encode_user(text), tokenizer.encode_user(text));
        assert_eq!(read.decode(&read.encode(text), false), text);
    }
    // Four rows of the embedding belong to no token.
    assert_eq!((tokenizer.vocab_size(), read.vocab_size()), (260, 264));
}

#[test]
fn a_sentencepiece_vocabulary_survives_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(["▁", "a", "b", "c", "ab", "bc", "▁a", "▁ab"].map(String::from));
    let scores = [0.0; 263].into_iter().chain([-1.0, -2.0, -3.0, -4.0]).map(Value::Float).collect();
    let kinds = [2i64, 3, 3].into_iter().chain([6; 256]).chain([1; 8]).map(Value::Signed).collect();
    let text = |text: &str| Value::Text(text.into());
    let metadata = [
        ("model", text("llama")),
        ("tokens", Value::List(tokens.iter().map(|token| text(token)).collect())),
        ("scores", Value::List(scores)),
        ("token_type", Value::List(kinds)),
        ("bos_token_id", Value::Unsigned(1)),
        ("eos_token_id", Value::Unsigned(2)),
        ("unknown_token_id", Value::Unsigned(0)),
    ];
    let metadata = metadata.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect();
    let tokenizer = vocabulary::read(&metadata, Path::new("model.gguf")).unwrap();
    // "ab" has the best score, so "abc" is ab + c and not a + bc.
    let ids = [1, 266, 262, 259, 261, 262, 3 + 0xc3, 3 + 0xa9];
    assert_eq!(tokenizer.encode_with_special("abc bcé"), [1, 266, 262, 259, 264, 3 + 0xc3, 3 + 0xa9]);
    assert_eq!(tokenizer.decode(&ids, true), "abc bcé");

    let text = r#"{"model_type":"llama","hidden_size":32,"num_hidden_layers":1,"num_attention_heads":1,
        "intermediate_size":32,"vocab_size":267,"eos_token_id":2,"bos_token_id":1}"#;
    let config = Config::from_json(text, Path::new("config.json")).unwrap();
    let path = folder.path().join("model.gguf");
    save(&path, export(&config, Some(&tokenizer)), &weights(&config), Storage::F16).unwrap();
    let read = File::open(&path).unwrap().tokenizer().unwrap();
    for text in ["abc bcé", "a  b", "<s>"] {
        assert_eq!(read.encode_with_special(text), tokenizer.encode_with_special(text));
    }
}

#[test]
fn every_scaling_survives_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut config = families().remove(0);
    let llama3 = |factor, original_max_position_embeddings| RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings,
    };
    for scaling in [RopeScaling::Linear { factor: 4.0 }, llama3(7.0, 32), llama3(32.0, 8192)] {
        config.rope_scaling = Some(scaling);
        save(&path, export(&config, None), &weights(&config), Storage::F32).unwrap();
        assert_eq!(File::open(&path).unwrap().config().rope_scaling, Some(scaling));
    }
    // Remove the key that only Ferule writes, so that the file looks like another program's.
    let hide = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let at = bytes.windows(LLAMA3_SCALING.len()).position(|text| text == LLAMA3_SCALING.as_bytes()).unwrap();
        bytes[at] = b'x';
        File::from_bytes(bytes, path)
    };
    assert_eq!(hide(&path).unwrap().config().rope_scaling, Some(llama3(32.0, 8192)));
    config.rope_scaling = Some(llama3(7.0, 32));
    save(&path, export(&config, None), &weights(&config), Storage::F32).unwrap();
    assert!(message(hide(&path)).contains("are not those of any Llama 3 release"));
}

#[test]
fn what_cannot_be_stored_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let config = families().remove(1);
    let with = |value: f32| {
        let mut weights = weights(&config);
        weights.0.get_mut("model.embed_tokens.weight").unwrap().1[3] = value;
        weights
    };
    let large = message(save(&path, export(&config, None), &with(70_000.0), Storage::F16));
    assert!(large.contains("`model.embed_tokens.weight` holds 70000, which half precision cannot"), "{large}");
    save(&path, export(&config, None), &with(70_000.0), Storage::Bf16).unwrap();
    let foreign: Tensors = weights(&families()[0]);
    assert!(message(save(&path, export(&config, None), &foreign, Storage::F32)).contains("calls for"));
    let wide = Config { head_dim: 16, ..config.clone() };
    let refused = message(save(&path, export(&wide, None), &weights(&wide), Storage::F32));
    assert!(refused.contains("`head_dim`: llama.cpp's qwen2 has heads of"), "{refused}");
    let small = Config { vocab_size: 100, ..config.clone() };
    let tokenizer = tokenizer();
    let refused = save(&path, export(&small, Some(&tokenizer)), &weights(&small), Storage::F32);
    assert!(message(refused).contains("has no row in the embedding"));
}

/// A file with one tensor `w` of two f32, after `change` has changed its parts.
fn raw(change: impl Fn(&mut Vec<u8>, &mut Vec<u8>, &mut Vec<u8>)) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut start = [&b"GGUF"[..], &3u32.to_le_bytes(), &1u64.to_le_bytes(), &1u64.to_le_bytes()].concat();
    let mut metadata = [text("general.alignment"), [4u32.to_le_bytes(), 32u32.to_le_bytes()].concat()].concat();
    let dims = [&1u32.to_le_bytes()[..], &2u64.to_le_bytes(), &0u32.to_le_bytes(), &0u64.to_le_bytes()].concat();
    let mut tensor = [text("w"), dims].concat();
    change(&mut start, &mut metadata, &mut tensor);
    let mut bytes = [start, metadata, tensor].concat();
    bytes.resize(bytes.len().next_multiple_of(32) + 8, 0);
    bytes
}

#[test]
fn damaged_headers_are_refused_before_anything_is_allocated() {
    assert_eq!(Header::parse(&raw(|_, _, _| ())).unwrap().entries[0].shape, [2]);
    let huge = u64::MAX.to_le_bytes();
    let set = |bytes: &mut Vec<u8>, at: usize, new: &[u8]| bytes[at..at + new.len()].copy_from_slice(new);
    type Change<'a> = Box<dyn Fn(&mut Vec<u8>, &mut Vec<u8>, &mut Vec<u8>) + 'a>;
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|start, _, _| set(start, 0, b"GGML")), "does not begin with GGUF"),
        (Box::new(|start, _, _| set(start, 4, &1u32.to_le_bytes())), "version 1"),
        (Box::new(|start, _, _| set(start, 4, &3u32.to_be_bytes())), "big-endian"),
        (Box::new(|start, _, _| set(start, 4, &9u32.to_le_bytes())), "version 9"),
        (Box::new(|start, _, _| set(start, 8, &huge)), "tensors cannot be in"),
        (Box::new(|start, _, _| set(start, 16, &huge)), "keys cannot be in"),
        (Box::new(|_, metadata, _| set(metadata, 0, &huge)), "bytes of text cannot be in"),
        (Box::new(|_, metadata, _| set(metadata, 25, &99u32.to_le_bytes())), "kind 99 is not known"),
        (Box::new(|_, metadata, _| set(metadata, 29, &3u32.to_le_bytes())), "is not a power of two"),
        (Box::new(|_, metadata, _| set(metadata, 29, &0u32.to_le_bytes())), "is not a power of two"),
        (Box::new(|_, metadata, _| set(metadata, 8, &[0xff])), "not UTF-8"),
        (Box::new(|_, _, tensor| set(tensor, 9, &0u32.to_le_bytes())), "has 0 dimensions"),
        (Box::new(|_, _, tensor| set(tensor, 9, &9u32.to_le_bytes())), "has 9 dimensions"),
        (Box::new(|_, _, tensor| set(tensor, 13, &huge)), "larger than any file"),
        (Box::new(|_, _, tensor| set(tensor, 13, &4u64.to_le_bytes())), "the file is cut short"),
        (Box::new(|_, _, tensor| set(tensor, 21, &16u32.to_le_bytes())), "ggml's type 16, which is not read"),
        (Box::new(|_, _, tensor| set(tensor, 21, &8u32.to_le_bytes())), "not whole blocks of 32"),
        (Box::new(|_, _, tensor| set(tensor, 25, &7u64.to_le_bytes())), "not at a multiple of 32"),
        (Box::new(|_, _, tensor| set(tensor, 25, &(u64::MAX - 31).to_le_bytes())), "larger than any file"),
        (
            Box::new(|start, _, tensor| {
                set(start, 8, &2u64.to_le_bytes());
                let again = tensor.clone();
                tensor.extend(again);
            }),
            "`w` occurs twice",
        ),
        (
            Box::new(|start, _, tensor| {
                set(start, 8, &2u64.to_le_bytes());
                let mut again = tensor.clone();
                again[8] = b'v';
                tensor.extend(again);
            }),
            "overlap",
        ),
    ];
    for (change, expected) in cases {
        let problem = Header::parse(&raw(change)).unwrap_err();
        assert!(problem.contains(expected), "{problem} (expected: {expected})");
    }
}

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let (config, tokenizer) = (families().remove(2), tokenizer());
    save(&path, export(&config, Some(&tokenizer)), &weights(&config), Storage::Q8_0).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for len in (0..bytes.len() - 32).step_by(997) {
        let message = message(File::from_bytes(bytes[..len].to_vec(), &path));
        assert!(message.contains("model.gguf: not a GGUF file that can be read: "), "{message}");
    }
}

#[test]
fn damage_anywhere_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let (config, tokenizer) = (families().remove(0), tokenizer());
    save(&path, export(&config, Some(&tokenizer)), &weights(&config), Storage::Q8_0).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let mut state = 1u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let header = 8_000.min(bytes.len());
    for _ in 0..400 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + next(4) {
            damaged[next(header)] = [0, 1, 0x7f, 0x80, 0xff][next(5)];
        }
        if let Ok(file) = File::from_bytes(damaged, &path) {
            let _ = file.tokenizer();
            let _ = file.template();
            for name in file.names() {
                let len = file.shape(&name).unwrap().iter().product::<usize>();
                let _ = file.read_f32(&name, &mut vec![0.0; len.min(1 << 20)]);
            }
        }
    }
}
