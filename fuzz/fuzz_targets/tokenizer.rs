//! Any bytes at all: reading them as a `tokenizer.json` ends in an error or in a tokenizer that encodes and decodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm::tokenizer::Tokenizer;
use std::sync::LazyLock;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(FOLDER.path().join("tokenizer.json"), bytes).expect("a folder that can be written to");
    let Ok(tokenizer) = Tokenizer::open_folder(FOLDER.path()) else { return };
    for text in ["the 三年 <s> é\n\n", "<|im_end|>"] {
        tokenizer.decode(&tokenizer.encode_with_special(text), true);
        let user = tokenizer.encode_user(text);
        assert!(user.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    }
});
