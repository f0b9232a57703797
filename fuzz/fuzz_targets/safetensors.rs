//! Any bytes at all: opening them as a safetensors file and reading everything in it ends in values or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm::checkpoint::TensorSource;
use lm::checkpoint::safetensors::Weights;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Ok(weights) = Weights::from_bytes(bytes.to_vec(), Path::new("model.safetensors")) else { return };
    for name in weights.names() {
        let len = weights.shape(&name).expect("a source has every tensor that it names").iter().product::<usize>();
        // Types of less than a byte exist in the format; none has less than four bits.
        assert!(len <= 2 * bytes.len(), "{name} has {len} elements in {} bytes", bytes.len());
        let _ = weights.read_f32(&name, &mut vec![0.0; len]);
    }
});
