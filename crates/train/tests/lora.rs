//! Low-rank adapters: their gradients against those of the merged weights, what stays frozen, and that they learn.

use std::path::Path;

use kernels::rng::Key;
use kernels::{Device, Isa, Queue, Real, bf16};
use lm::lora::LoraConfig;
use lm::optimizer::Hyperparameters;
use lm::{Arena, Batch, Config, Keep};
use train::step::{Learner, Signals};

const LORA: LoraConfig = LoraConfig { rank: 3, alpha: 6.0 };

fn queue(threads: usize) -> Queue {
    Queue::cpu(threads, Isa::available()[0])
}

/// A small model of a family: grouped queries, with Qwen3's query and key norms or Qwen2's biases.
fn base(family: &str) -> Arena {
    let json = serde_json::json!({
        "architectures": [family], "model_type": family.to_lowercase().replace("forcausallm", ""),
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
        "intermediate_size": 20, "vocab_size": 23, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": family == "Qwen3ForCausalLM", "initializer_range": 0.3, "hidden_act": "silu",
    });
    let config = Config::from_json(&json.to_string(), Path::new("test")).expect("a valid configuration");
    Arena::random(Device::Cpu, &config, 1)
}

fn batch() -> (Batch, Vec<f32>) {
    let mut batch = Batch::new();
    batch.push(&[3, 1, 4, 1, 5, 9, 2], None);
    batch.push(&[6, 5, 3, 5, 8], None);
    (batch, vec![0.0, 0.0, 0.0, 0.3, 0.2, 0.1, 0.4, 0.0, 0.0, 0.25, 0.5, 0.125])
}

/// A learner whose adapters have moved from their initial values, where `B` is zero.
fn adapted<T: Real>(queue: &Queue, base: &Arena, keep: Keep) -> Learner<T> {
    let key = Key::new(7);
    let mut learner = Learner::with_adapters(queue, base.clone(), LORA, key, Hyperparameters::default(), keep);
    let mut draws = key.word("moved").stream();
    let mut values = learner.trained().values().to_host();
    values.iter_mut().for_each(|value| *value += 0.1 * draws.normal() as f32);
    learner.trained_mut().values_mut().view_mut().copy_from_host(&values);
    learner.repack(queue);
    learner
}

fn accumulated<T: Real>(queue: &Queue, mut learner: Learner<T>) -> Learner<T> {
    let (batch, weights) = batch();
    learner.accumulate(queue, &batch, &Signals::cross_entropy(weights));
    learner
}

#[test]
fn gradients_of_an_adapter_follow_from_those_of_the_merged_matrix() {
    for family in ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"] {
        let (queue, base) = (queue(2), base(family));
        let merged = adapted::<f32>(&queue, &base, Keep::Everything).into_weights(&queue);
        let whole = Learner::<f32>::new(&queue, merged, Hyperparameters::default(), Keep::Everything);
        let whole = accumulated(&queue, whole);
        let learner = accumulated(&queue, adapted::<f32>(&queue, &base, Keep::Everything));
        let (pairs, of_pairs) = (learner.trained(), learner.gradient());
        assert_eq!(pairs.specs().len(), 2 * 7 * 2);
        for index in (0..pairs.specs().len()).step_by(2) {
            let name = pairs.specs()[index].name.replace(".lora_A", ".weight");
            let at = base.specs().iter().position(|spec| spec.name == name).expect("a weight of the model");
            let (outputs, inputs) = (base.specs()[at].shape[0], base.specs()[at].shape[1]);
            let [a, b] = [index, index + 1].map(|index| pairs.tensor(index).to_host());
            let d_w = whole.gradient().tensor(at).to_host();
            let scale = LORA.alpha / LORA.rank as f32;
            // d_A = s·Bᵀ·d_W and d_B = s·d_W·Aᵀ, with B held as its transpose.
            let sum = |n: usize, of: &dyn Fn(usize) -> f32| scale * (0..n).map(of).sum::<f32>();
            let d_a = (0..LORA.rank * inputs).map(|i| {
                let (r, input) = (i / inputs, i % inputs);
                sum(outputs, &|out| b[r * outputs + out] * d_w[out * inputs + input])
            });
            let d_b = (0..LORA.rank * outputs).map(|i| {
                let (r, out) = (i / outputs, i % outputs);
                sum(inputs, &|input| a[r * inputs + input] * d_w[out * inputs + input])
            });
            for (index, expected) in [(index, d_a.collect::<Vec<_>>()), (index + 1, d_b.collect())] {
                let found = of_pairs.tensor(index).to_host();
                let size: f32 = expected.iter().map(|value| value * value).sum::<f32>().sqrt();
                let apart: f32 = found.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
                assert!(size > 1e-3 && apart < 1e-4 * size, "{family} {name}: {apart:e} apart, of {size:e}");
            }
        }
    }
}

#[test]
fn the_merged_matrix_is_the_sum_and_has_the_same_loss() {
    let (queue, base) = (queue(2), base("Qwen2ForCausalLM"));
    let learner = adapted::<f32>(&queue, &base, Keep::Everything);
    let (pairs, scale) = (learner.trained().clone(), LORA.alpha / LORA.rank as f32);
    let loss = accumulated(&queue, learner).update(&queue, 0.0).loss;
    let merged = adapted::<f32>(&queue, &base, Keep::Everything).into_weights(&queue);
    for index in (0..pairs.specs().len()).step_by(2) {
        let name = pairs.specs()[index].name.replace(".lora_A", ".weight");
        let at = base.specs().iter().position(|spec| spec.name == name).expect("a weight of the model");
        let (outputs, inputs) = (base.specs()[at].shape[0], base.specs()[at].shape[1]);
        let [a, b] = [index, index + 1].map(|index| pairs.tensor(index).to_host());
        for (i, (&found, frozen)) in merged.tensor(at).to_host().iter().zip(base.tensor(at).to_host()).enumerate() {
            let (out, input) = (i / inputs, i % inputs);
            let sum: f32 = (0..LORA.rank).map(|r| b[r * outputs + out] * a[r * inputs + input]).sum();
            assert!((found - (frozen + scale * sum)).abs() < 1e-5, "{name}[{out}, {input}]: {found}");
        }
    }
    let plain = Learner::<f32>::new(&queue, merged, Hyperparameters::default(), Keep::Everything);
    assert_eq!(loss, accumulated(&queue, plain).update(&queue, 0.0).loss);
}

#[test]
fn gradients_are_the_same_on_any_number_of_threads_and_recomputed() {
    fn of<T: Real>(threads: usize, keep: Keep) -> Vec<u32> {
        let queue = queue(threads);
        let learner = accumulated(&queue, adapted::<T>(&queue, &base("Qwen3ForCausalLM"), keep));
        learner.gradient().values().to_host().iter().map(|value| value.to_bits()).collect()
    }
    let (wide, narrow) = (of::<f32>(1, Keep::Everything), of::<bf16>(1, Keep::Everything));
    for threads in [2, 3] {
        assert_eq!(wide, of::<f32>(threads, Keep::Residuals));
        assert_eq!(narrow, of::<bf16>(threads, Keep::Residuals));
    }
}

#[test]
fn fresh_adapters_change_nothing_and_only_projections_learn() {
    let (queue, base) = (queue(2), base("Qwen2ForCausalLM"));
    let mut learner = Learner::<f32>::with_adapters(
        &queue,
        base.clone(),
        LORA,
        Key::new(7),
        Hyperparameters::default(),
        Keep::Everything,
    );
    assert_eq!(learner.trained().values().len(), LORA.parameters(base.config()));
    let mut losses = Vec::new();
    for _ in 0..40 {
        learner = accumulated(&queue, learner);
        losses.push(learner.update(&queue, 1e-2).loss);
    }
    let plain = Learner::<f32>::new(&queue, base.clone(), Hyperparameters::default(), Keep::Everything);
    assert_eq!(losses[0], accumulated(&queue, plain).update(&queue, 0.0).loss);
    assert!(losses[39] < 0.3 * losses[0], "{losses:?}");
    let learnt = learner.into_weights(&queue);
    for (index, spec) in base.specs().iter().enumerate() {
        let adapted = spec.name.contains("_proj.weight");
        assert_eq!(base.tensor(index).to_host() != learnt.tensor(index).to_host(), adapted, "{}", spec.name);
    }
}
