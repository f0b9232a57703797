use super::huggingface::{Companions, Folder, GenerationConfig};
use super::safetensors::{self, Weights};
use super::*;
use crate::config::Config;
use crate::error::{FormatError, told};
use crate::params::Arena;
use std::collections::BTreeMap;
use std::path::Path;

/// A Qwen2 of two layers: biases, grouped heads, an untied head.
fn config() -> Config {
    let text = r#"{"model_type":"qwen2","hidden_size":8,"num_hidden_layers":2,"num_attention_heads":4,
        "num_key_value_heads":2,"intermediate_size":12,"vocab_size":11,"eos_token_id":[1,2],"bos_token_id":0}"#;
    Config::from_json(text, Path::new("config.json")).unwrap()
}

/// Tensors by name, each with its shape and values.
pub struct Tensors(pub Map);

type Map = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

impl TensorSource for Tensors {
    fn path(&self) -> &Path {
        Path::new("tensors of a test")
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.get(name).map(|(shape, _)| shape.clone())
    }

    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), FormatError> {
        out.copy_from_slice(&self.0[name].1);
        Ok(())
    }
}

impl Tensors {
    fn only(tensors: &[(&str, &[usize], Vec<f32>)]) -> Self {
        let entry =
            |(name, shape, values): &(&str, &[usize], Vec<f32>)| (name.to_string(), (shape.to_vec(), values.clone()));
        Self(tensors.iter().map(entry).collect())
    }
}

/// Values from −1 to below 1 that f32, f16 and bf16 all hold exactly, different in every tensor.
pub fn weights(config: &Config) -> Tensors {
    let value = |seed: usize, i: usize| ((seed * 31 + i * 7) % 251) as f32 / 128.0 - 1.0;
    let tensors = config.tensors().into_iter().enumerate();
    let tensors = tensors.map(|(seed, spec)| {
        let values = (0..spec.len()).map(|i| value(seed, i)).collect();
        (spec.name, (spec.shape, values))
    });
    Tensors(tensors.collect())
}

pub fn message<T: std::fmt::Debug>(result: Result<T, FormatError>) -> String {
    told(&result.unwrap_err())
}

#[test]
fn a_saved_folder_reads_back() {
    let (config, folder) = (config(), tempfile::tempdir().unwrap());
    let weights = weights(&config);
    let generation = GenerationConfig::of(&config);
    let companions =
        Companions { config: &config, generation: &generation, tokenizer: None, template: Some("{{ x }}") };
    for storage in [Storage::F32, Storage::F16, Storage::Bf16] {
        huggingface::save(folder.path(), companions, &weights, storage).unwrap();
        let model = open(folder.path()).unwrap();
        assert_eq!(model.config(), &config);
        assert_eq!(model.generation().eos_token_id, [1, 2]);
        assert_eq!(model.template().unwrap().unwrap().source(), "{{ x }}");
        check(&config, model.tensors()).unwrap();
        for (name, (shape, values)) in &weights.0 {
            let mut found = vec![0.0; values.len()];
            model.tensors().read_f32(name, &mut found).unwrap();
            assert_eq!((&found, model.tensors().shape(name).as_ref()), (values, Some(shape)), "{name} as {storage:?}");
        }
    }
    let leftovers = std::fs::read_dir(folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("partial"));
    assert_eq!(leftovers.count(), 0);
}

#[test]
fn the_same_tensors_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(&config());
    let (a, b) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    safetensors::save(&a, &weights, Storage::Bf16).unwrap();
    safetensors::save(&b, &Weights::open_file(&a).unwrap(), Storage::Bf16).unwrap();
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
}

#[test]
fn master_weights_are_written_and_loaded() {
    let (config, folder) = (config(), tempfile::tempdir().unwrap());
    let path = folder.path().join("model.safetensors");
    let master = Arena::random(kernels::Device::Cpu, &config, 7);
    safetensors::save(&path, &master, Storage::F32).unwrap();
    let read = Arena::load(kernels::Device::Cpu, &config, &Weights::open_file(&path).unwrap()).unwrap();
    assert_eq!(read.values().to_host(), master.values().to_host());
}

#[test]
fn shards_are_read_through_their_index() {
    let (config, folder) = (config(), tempfile::tempdir().unwrap());
    let weights = weights(&config);
    let shard = |name: &str| if name.contains("layers.1") { "two.safetensors" } else { "one.safetensors" };
    for file in ["one.safetensors", "two.safetensors"] {
        let part = weights.0.iter().filter(|(name, _)| shard(name) == file);
        let part = Tensors(part.map(|(name, tensor)| (name.clone(), tensor.clone())).collect());
        safetensors::save(&folder.path().join(file), &part, Storage::F32).unwrap();
    }
    let write_index = |change: &dyn Fn(&str, &str) -> String| {
        let map: BTreeMap<&String, String> = weights.0.keys().map(|name| (name, change(name, shard(name)))).collect();
        let index = serde_json::json!({ "metadata": {}, "weight_map": map });
        std::fs::write(folder.path().join(safetensors::INDEX), index.to_string()).unwrap();
    };
    write_index(&|_, file| file.to_string());
    let source = Weights::open_folder(folder.path()).unwrap();
    check(&config, &source).unwrap();
    let mut found = vec![0.0; 8];
    source.read_f32("model.layers.1.input_layernorm.weight", &mut found).unwrap();
    assert_eq!(found, weights.0["model.layers.1.input_layernorm.weight"].1);

    write_index(&|_, file| format!("../{file}"));
    assert!(message(Weights::open_folder(folder.path())).contains("is not the name of a file in the same folder"));
    write_index(&|_, _| "one.safetensors".to_string());
    assert!(message(Weights::open_folder(folder.path())).contains("is promised in one.safetensors"));
    write_index(&|_, _| "three.safetensors".to_string());
    assert!(message(Weights::open_folder(folder.path())).contains("three.safetensors: cannot read"));
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_refused() {
    let (config, folder) = (config(), tempfile::tempdir().unwrap());
    let path = folder.path().join("model.safetensors");
    let outcome = |change: &dyn Fn(&mut Map)| {
        let mut weights = weights(&config);
        change(&mut weights.0);
        safetensors::save(&path, &weights, Storage::F32).unwrap();
        check(&config, &Weights::open_file(&path).unwrap())
    };
    outcome(&|_| ()).unwrap();
    outcome(&|weights| {
        weights.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), (vec![1], vec![0.5]));
    })
    .unwrap();
    let missing = message(outcome(&|weights| drop(weights.remove("model.norm.weight"))));
    assert!(missing.contains("tensor `model.norm.weight` is missing (shape [8] is needed)\nhint: "), "{missing}");
    let shape = message(outcome(&|weights| {
        weights.insert("model.norm.weight".into(), (vec![2, 4], vec![0.5; 8]));
    }));
    assert!(shape.contains("`model.norm.weight` has shape [2, 4] where the configuration calls for [8]"), "{shape}");
    let extra = message(outcome(&|weights| {
        weights.insert("model.layers.2.input_layernorm.weight".into(), (vec![8], vec![0.5; 8]));
    }));
    assert!(extra.contains("1 tensors have no place in this model"), "{extra}");
}

#[test]
fn weights_that_are_not_numbers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for (bad, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut values = vec![0.5; 5000];
        values[4321] = bad;
        safetensors::save(&path, &Tensors::only(&[("w", &[5000], values)]), Storage::Bf16).unwrap();
        let message = message(Weights::open_file(&path).unwrap().read_f32("w", &mut vec![0.0; 5000]));
        assert!(message.contains(&format!("tensor `w` holds {shown} at element 4321\nhint: ")), "{message}");
    }
}

#[test]
fn damaged_safetensors_are_refused_before_anything_is_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let with_header = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    };
    let huge = u64::MAX;
    for bytes in [
        vec![],
        vec![1, 2, 3],
        u64::MAX.to_le_bytes().to_vec(),
        (1u64 << 40).to_le_bytes().to_vec(),
        with_header("{", 0),
        with_header(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 7),
        with_header(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 9),
        with_header(r#"{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8),
        with_header(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8),
        with_header(r#"{"w":{"dtype":"X99","shape":[2],"data_offsets":[0,8]}}"#, 8),
        with_header(&format!(r#"{{"w":{{"dtype":"F32","shape":[{huge},{huge}],"data_offsets":[0,8]}}}}"#), 8),
        with_header(&format!(r#"{{"w":{{"dtype":"F32","shape":[2],"data_offsets":[{},{huge}]}}}}"#, huge - 8), 8),
        with_header(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12,
        ),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let message = message(Weights::open_file(&path));
        assert!(message.contains("model.safetensors: not a valid safetensors file: "), "{message}");
    }
}

#[test]
fn a_folder_without_weights_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config().to_json()).unwrap();
    std::fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    assert!(message(Folder::open(folder.path())).contains("holds neither model.safetensors nor"));
    assert!(message(Folder::open(&folder.path().join("absent"))).contains("config.json: cannot read"));
}
