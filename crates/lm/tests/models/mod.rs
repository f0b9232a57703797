//! The golden models for tests: configurations and expected values from `tests/golden`, weights from a formula.
//!
//! `bench/peers/golden.py` writes the files and documents the formula.

// Every test file uses only a part of this.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use kernels::Device;
use lm::{Arena, Config};
use serde_json::Value;

/// One model of each kind: one with rotary scaling and an untied head, one with biases, one with q/k norms.
pub const MODELS: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// The expected values, and the path of the gradients.
pub fn golden(name: &str) -> (Value, PathBuf) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).expect("a golden file");
    (serde_json::from_str(&text).expect("JSON"), folder.join(format!("{name}.safetensors")))
}

fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The weights according to the formula.
pub fn weights(golden: &Value) -> Arena {
    let config = Config::from_json(&golden["config"].to_string(), Path::new("config.json")).expect("a valid config");
    let mut arena = Arena::zeros(Device::Cpu, &config);
    for (tensor, row) in golden["tensors"].as_array().expect("a list").iter().enumerate() {
        let index = arena.specs().iter().position(|spec| row["name"] == *spec.name).expect("a known tensor");
        let (scale, offset) = (row["scale"].as_f64().unwrap() as f32, row["offset"].as_f64().unwrap() as f32);
        let value = |element: usize| {
            let hash = mix(mix(tensor as u32 + 1).wrapping_add(element as u32));
            offset + scale * ((hash >> 8) as f32 * 2f32.powi(-23) - 1.0)
        };
        let values: Vec<f32> = (0..arena.specs()[index].len()).map(value).collect();
        arena.tensor_mut(index).copy_from_host(&values);
    }
    arena
}

/// The tokens of the golden case, which are packed sequences.
pub fn tokens(golden: &Value) -> Vec<u32> {
    golden["case"]["tokens"].as_array().expect("a list").iter().map(|t| t.as_u64().expect("an id") as u32).collect()
}
