//! A model that is read group by group from a folder equals the model of an arena that is read from the same folder.

mod models;

use kernels::{Device, Isa, Queue, Real, bf16};
use lm::checkpoint::huggingface::{self, Companions, GenerationConfig};
use lm::checkpoint::{self, Storage};
use lm::forward::forward;
use lm::head::{self, HeadBuffers, Targets};
use lm::{Activations, Arena, Batch, Keep, Model, Role};
use models::{MODELS, golden, tokens, weights};

fn save(arena: &Arena, folder: &std::path::Path) {
    let config = arena.config();
    let generation = GenerationConfig::of(config);
    let companions = Companions { config, generation: &generation, tokenizer: None, template: None };
    huggingface::save(folder, companions, arena, Storage::F32).expect("a writable folder");
}

fn logprobs<T: Real>(queue: &Queue, model: &Model<T>, tokens: &[u32]) -> Vec<f32> {
    let mut batch = Batch::new();
    batch.push(tokens, None);
    let config = model.config();
    let mut activations = Activations::new(Device::Cpu, config, batch.len(), Keep::Nothing);
    forward(queue, model, &batch, &mut activations, &mut kernels::Scratch::new(Device::Cpu));
    let mut buffers = HeadBuffers::new(Device::Cpu, config);
    let targets = Targets::of(&batch, |_| true);
    head::statistics(queue, model, activations.hidden(config), &targets, 1.0, &mut buffers).logprob
}

fn compare<T: Real>(queue: &Queue, arena: &Arena, source: &dyn checkpoint::TensorSource, tokens: &[u32]) {
    let whole: Model<T> = Model::new(queue, arena, Role::Inference);
    let streamed: Model<T> = Model::load(queue, arena.config(), source, Role::Inference).expect("the same tensors");
    assert_eq!(logprobs(queue, &whole, tokens), logprobs(queue, &streamed, tokens));
}

#[test]
fn a_streamed_model_is_the_model_of_an_arena() {
    let queue = Queue::cpu(2, Isa::available()[0]);
    for name in MODELS {
        let (golden, _) = golden(name);
        let arena = weights(&golden);
        let folder = tempfile::tempdir().expect("a temporary folder");
        save(&arena, folder.path());
        let model = checkpoint::open(folder.path()).expect("a model folder");
        let loaded = Arena::load(Device::Cpu, model.config(), model.tensors()).expect("the tensors just written");
        assert_eq!(loaded.values().to_host(), arena.values().to_host());
        assert!(model.tensors().has_f32_matrices());
        compare::<f32>(&queue, &arena, model.tensors(), &tokens(&golden));
        compare::<bf16>(&queue, &arena, model.tensors(), &tokens(&golden));
    }
}

#[test]
fn biases_of_grouped_heads_keep_their_places() {
    let shape = r#"{"model_type": "qwen2", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
        "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 40, "vocab_size": 50}"#;
    let shape = serde_json::from_str(shape).expect("a shape");
    let config = lm::Config::from_shape(&shape, None, "shape".as_ref()).expect("a valid shape");
    let mut arena = Arena::random(Device::Cpu, &config, 1);
    for index in 0..arena.specs().len() {
        if arena.specs()[index].shape.len() == 1 {
            let mut values = arena.tensor(index).to_host();
            values.iter_mut().enumerate().for_each(|(i, x)| *x += (index + i) as f32 * 1e-3);
            arena.tensor_mut(index).copy_from_host(&values);
        }
    }
    let queue = Queue::cpu(1, Isa::available()[0]);
    compare::<f32>(&queue, &arena, &arena, &[1, 7, 49, 3, 3, 20]);
}
