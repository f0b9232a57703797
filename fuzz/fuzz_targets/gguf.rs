//! Any bytes at all: opening them as a GGUF file and reading everything in it ends in values or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm::checkpoint::{self, TensorSource, gguf};
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = gguf::File::from_bytes(bytes.to_vec(), Path::new("model.gguf")) else { return };
    let _ = checkpoint::check(file.config(), &file);
    let _ = file.tokenizer().map(|tokenizer| tokenizer.encode_with_special("the 三年 <s>"));
    let _ = file.template();
    for name in file.names() {
        let len = file.shape(&name).expect("a source has every tensor that it names").iter().product::<usize>();
        // A tensor that was let through lies within the file: no element takes less than four bits.
        assert!(len <= 2 * bytes.len(), "{name} has {len} elements in {} bytes", bytes.len());
        let _ = file.read_f32(&name, &mut vec![0.0; len]);
    }
});
