//! Tests the golden models: weights from a formula, expected values from transformers and from PyTorch's autograd.
//!
//! The tokens are packed sequences. Two of their segments continue the same prompt.

mod models;

use kernels::{Buffer, Device, Isa, Queue, Real, Scratch, View, bf16};
use lm::backward::{BackwardBuffers, Gradients, backward};
use lm::forward::forward;
use lm::head::{self, HeadBuffers, Targets};
use lm::optimizer::{Hyperparameters, Optimizer};
use lm::{Activations, Arena, Batch, Keep, Model, Role};
use models::{MODELS, golden, weights};
use serde_json::Value;

fn batch(case: &Value) -> Batch {
    let tokens: Vec<u32> = case["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let mut batch = Batch::new();
    for segment in case["segments"].as_array().unwrap() {
        let (start, len) = (segment["start"].as_u64().unwrap() as usize, segment["len"].as_u64().unwrap() as usize);
        batch.push(&tokens[start..start + len], segment["parent"].as_u64().map(|p| p as usize));
    }
    batch
}

fn floats(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap_or(0.0)).collect()
}

/// Everything that a training step needs, for a small model.
struct Bench<T: Real> {
    queue: Queue,
    model: Model<T>,
    batch: Batch,
    targets: Targets,
    weights: Vec<f32>,
    activations: Activations<T>,
    buffers: BackwardBuffers<T>,
    head: HeadBuffers<T>,
    scratch: Scratch,
}

impl<T: Real> Bench<T> {
    fn new(queue: Queue, arena: &Arena, golden: &Value, keep: Keep) -> Self {
        let weights = floats(&golden["case"]["weights"]).iter().map(|&w| w as f32).collect();
        Self::on(queue, arena, batch(&golden["case"]), weights, keep)
    }

    fn on(queue: Queue, arena: &Arena, batch: Batch, weights: Vec<f32>, keep: Keep) -> Self {
        let config = arena.config();
        let targets = Targets::of(&batch, |t| weights[t] != 0.0);
        Bench {
            model: Model::new(&queue, arena, Role::Training),
            activations: Activations::new(Device::Cpu, config, batch.len(), keep),
            buffers: BackwardBuffers::new(Device::Cpu, config, batch.len()),
            head: HeadBuffers::new(Device::Cpu, config),
            scratch: Scratch::new(Device::Cpu),
            queue,
            batch,
            targets,
            weights,
        }
    }

    /// Runs backward over the activations of the last forward pass.
    fn backward(&mut self, d_hidden: View<f32>, gradients: &mut Gradients<T>) {
        backward(
            &self.queue,
            &self.model,
            &self.batch,
            &mut self.activations,
            d_hidden,
            &[],
            gradients,
            &mut self.buffers,
            &mut self.scratch,
        );
    }

    fn forward(&mut self) {
        forward(&self.queue, &self.model, &self.batch, &mut self.activations, &mut self.scratch);
    }

    /// The weighted mean loss. Its gradients are accumulated into `gradients`.
    fn gradients(&mut self, gradients: &mut Arena) -> f64 {
        self.forward();
        let config = self.model.config().clone();
        let total: f32 = self.targets.tokens.iter().map(|&t| self.weights[t as usize]).sum();
        let share = |r: usize, targets: &Targets, weights: &[f32]| weights[targets.tokens[r] as usize] / total;
        let mut d_hidden = Buffer::zeros(Device::Cpu, self.batch.len() * config.hidden_size);
        let mut d_hidden = d_hidden.matrix_mut(self.batch.len(), config.hidden_size);
        let mut gradients = Gradients::Weights(gradients.weights_mut());
        let rows = head::backward(
            &self.queue,
            &self.model,
            self.activations.hidden(&config),
            &self.targets,
            1.0,
            |r, _, _| -share(r, &self.targets, &self.weights),
            None,
            d_hidden.reborrow(),
            gradients.head(),
            &mut self.head,
            &mut self.scratch,
        );
        let loss = (0..rows.logprob.len())
            .map(|r| -f64::from(rows.logprob[r]) * f64::from(share(r, &self.targets, &self.weights)))
            .sum();
        self.backward(d_hidden.as_view(), &mut gradients);
        loss
    }
}

fn relative_error(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let difference: f64 = ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let norm: f64 = theirs.iter().map(|&b| f64::from(b).powi(2)).sum();
    (difference / norm.max(1e-30)).sqrt()
}

#[test]
fn logprobs_are_those_of_transformers() {
    for name in MODELS {
        let (golden, _) = golden(name);
        let arena = weights(&golden);
        for isa in Isa::available() {
            let mut bench = Bench::<f32>::new(Queue::cpu(2, isa), &arena, &golden, Keep::Nothing);
            bench.forward();
            let all = Targets::of(&bench.batch, |_| true);
            let hidden = bench.activations.hidden(arena.config());
            let rows = head::statistics(&bench.queue, &bench.model, hidden, &all, 1.0, &mut bench.head);
            let expected = floats(&golden["result"]["logprobs"]);
            for (r, &t) in all.tokens.iter().enumerate() {
                let (ours, theirs) = (f64::from(rows.logprob[r]), expected[t as usize]);
                assert!(
                    (ours - theirs).abs() < 2e-5 * theirs.abs().max(1.0),
                    "{name}, {isa:?}, token {t}: {ours} against {theirs}"
                );
            }
        }
    }
}

#[test]
fn every_gradient_is_that_of_autograd() {
    for name in MODELS {
        let (golden, tensors) = golden(name);
        let bytes = std::fs::read(tensors).expect("golden gradients");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let arena = weights(&golden);
        for isa in Isa::available() {
            for keep in [Keep::Everything, Keep::Residuals] {
                let mut gradients = Arena::zeros(Device::Cpu, arena.config());
                let loss = Bench::<f32>::new(Queue::cpu(2, isa), &arena, &golden, keep).gradients(&mut gradients);
                let expected = golden["result"]["loss"].as_f64().unwrap();
                assert!((loss - expected).abs() < 1e-5 * expected, "{name}, {isa:?}: loss {loss} against {expected}");
                for (index, spec) in gradients.specs().iter().enumerate() {
                    let view = file.tensor(&spec.name).expect("every tensor has a gradient");
                    let theirs: Vec<f32> =
                        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                    let error = relative_error(&gradients.tensor(index).to_host(), &theirs);
                    assert!(error < 1e-5, "{name}, {isa:?}, {keep:?}: gradient of {} is off by {error:e}", spec.name);
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "run forward again")]
fn a_forward_serves_one_backward() {
    let (golden, _) = golden(MODELS[0]);
    let arena = weights(&golden);
    let mut gradients = Arena::zeros(Device::Cpu, arena.config());
    let queue = Queue::cpu(1, Isa::available()[0]);
    let mut bench = Bench::<f32>::new(queue, &arena, &golden, Keep::Everything);
    bench.forward();
    let zeros = Buffer::zeros(Device::Cpu, bench.batch.len() * arena.config().hidden_size);
    let d_hidden = zeros.matrix(bench.batch.len(), arena.config().hidden_size);
    for _ in 0..2 {
        bench.backward(d_hidden, &mut Gradients::Weights(gradients.weights_mut()));
    }
}

#[test]
fn twenty_steps_give_the_losses_of_torch() {
    for name in MODELS {
        let (golden, _) = golden(name);
        let mut arena = weights(&golden);
        let adamw = &golden["case"]["adamw"];
        let number = |key: &str| adamw[key].as_f64().unwrap() as f32;
        let hyperparameters = Hyperparameters {
            beta1: number("beta1"),
            beta2: number("beta2"),
            eps: number("eps"),
            weight_decay: number("weight_decay"),
            max_grad_norm: number("max_norm"),
        };
        let queue = Queue::cpu(2, Isa::available()[0]);
        let mut optimizer = Optimizer::new(Device::Cpu, arena.values().len(), hyperparameters);
        let mut bench = Bench::<f32>::new(queue.clone(), &arena, &golden, Keep::Everything);
        for (step, &expected) in floats(&golden["result"]["adamw_losses"]).iter().enumerate() {
            let mut gradients = Arena::zeros(Device::Cpu, arena.config());
            let loss = bench.gradients(&mut gradients);
            assert!((loss - expected).abs() < 1e-4 * expected, "{name}, step {step}: {loss} against {expected}");
            optimizer.step(&queue, &mut arena, &gradients, number("lr"));
            bench.model.update(&queue, &arena);
        }
    }
}

#[test]
fn bf16_stays_near_f32() {
    for name in MODELS {
        let (golden, _) = golden(name);
        let arena = weights(&golden);
        let mut exact = Arena::zeros(Device::Cpu, arena.config());
        let mut rounded = exact.clone();
        let queue = Queue::cpu(2, Isa::available()[0]);
        let loss = Bench::<f32>::new(queue.clone(), &arena, &golden, Keep::Everything).gradients(&mut exact);
        let loss_bf16 = Bench::<bf16>::new(queue, &arena, &golden, Keep::Everything).gradients(&mut rounded);
        assert!((loss - loss_bf16).abs() < 0.02 * loss, "{name}: {loss_bf16} against {loss}");
        let error = relative_error(&rounded.values().to_host(), &exact.values().to_host());
        assert!(error < 0.03, "{name}: bf16 gradients are off by {error}");
    }
}

/// A batch that is long enough to be divided among threads: prompts with completions that share them, across the
/// boundaries of attention's blocks.
fn long_batch(vocabulary: usize) -> Batch {
    let tokens = |seed: usize, len: usize| -> Vec<u32> {
        (0..len).map(|i| ((i * i * 7 + i * 3 + seed) % vocabulary) as u32).collect()
    };
    let mut batch = Batch::new();
    for prompt in 0..3 {
        let parent = batch.push(&tokens(prompt, 49 + prompt), None);
        for i in 0..4 {
            batch.push(&tokens(10 * prompt + i, 17 + 5 * i), Some(parent));
        }
    }
    batch
}

fn assert_gradients_do_not_depend_on_threads_or_memory<T: Real>(name: &str, arena: &Arena, isa: Isa) {
    let batch = long_batch(arena.config().vocab_size);
    let weights: Vec<f32> = (0..batch.len()).map(|t| 0.5 + (t % 7) as f32).collect();
    let gradients = |threads: usize, keep: Keep| {
        let mut gradients = Arena::zeros(Device::Cpu, arena.config());
        Bench::<T>::on(Queue::cpu(threads, isa), arena, batch.clone(), weights.clone(), keep).gradients(&mut gradients);
        gradients
    };
    let expected = gradients(1, Keep::Everything);
    for keep in [Keep::Everything, Keep::Residuals] {
        for threads in [1, 2, 3] {
            let found = gradients(threads, keep);
            for (index, spec) in expected.specs().iter().enumerate() {
                let bits =
                    |arena: &Arena| -> Vec<u32> { arena.tensor(index).to_host().iter().map(|x| x.to_bits()).collect() };
                let what = format!("{name}, {}, {}, {keep:?}, {threads} threads", isa.name(), T::DTYPE.name());
                assert!(bits(&found) == bits(&expected), "{what}: gradient of {}", spec.name);
            }
        }
    }
}

#[test]
fn gradients_are_the_same_for_any_threads_recomputed_or_stored() {
    for name in MODELS {
        let arena = weights(&golden(name).0);
        for isa in Isa::available() {
            assert_gradients_do_not_depend_on_threads_or_memory::<f32>(name, &arena, isa);
            assert_gradients_do_not_depend_on_threads_or_memory::<bf16>(name, &arena, isa);
        }
    }
}
