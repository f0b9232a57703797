//! Tests that no product reads weights of another version. If an update leaves out a packed copy of a weight, each
//! place that multiplies by this copy panics. (The version number is called `generation` in the code.)

use std::panic::{AssertUnwindSafe, catch_unwind};

use kernels::rng::Key;
use kernels::{Buffer, Device, Isa, Queue, Scratch};

use super::{Model, Role};
use crate::activations::{Activations, Keep};
use crate::backward::{BackwardBuffers, Gradients, backward};
use crate::batch::Batch;
use crate::config::Config;
use crate::forward::forward;
use crate::generate::{Flow, Limits, Request, Sampling, Scheduler, generate};
use crate::head::{self, HeadBuffers, Targets};
use crate::lora::{Adapters, LoraConfig};
use crate::params::Arena;
use crate::table::GroupId;

struct Case {
    queue: Queue,
    master: Arena,
    model: Model<f32>,
    /// The same weights, one update earlier.
    older: Model<f32>,
    batch: Batch,
}

impl Case {
    fn new() -> Case {
        let text = r#"{"model_type":"llama","hidden_size":16,"num_hidden_layers":2,"num_attention_heads":2,
            "intermediate_size":24,"vocab_size":20,"max_position_embeddings":32}"#;
        let config = Config::from_json(text, "config.json".as_ref()).expect("a valid configuration");
        let (queue, master) = (Queue::cpu(1, Isa::available()[0]), Arena::random(Device::Cpu, &config, 1));
        let older = Model::new(&queue, &master, Role::Training);
        let mut model = Model::new(&queue, &master, Role::Training);
        model.update(&queue, &master);
        let mut batch = Batch::new();
        batch.push(&[1, 2, 3], None);
        Case { queue, master, model, older, batch }
    }

    /// The matrices of the first layer, each with the name of its first tensor.
    fn matrices(&self) -> Vec<(String, GroupId)> {
        let table = &self.model.layout.table;
        let of_first_layer = table.groups().filter_map(|(id, group)| {
            let first = &table.tensors_of(group)[0];
            (first.layer == Some(0) && first.is_layer_matrix()).then(|| (first.name.clone(), id))
        });
        of_first_layer.collect()
    }

    fn make_stale(&mut self, id: GroupId) {
        self.model.weights.swap(&mut self.older.weights, id);
    }

    fn forward(&self) -> Activations<f32> {
        let mut activations = Activations::new(Device::Cpu, self.model.config(), self.batch.len(), Keep::Everything);
        let scratch = &mut Scratch::new(Device::Cpu);
        forward(&self.queue, &self.model, &self.batch, &mut activations, scratch);
        activations
    }

    fn backward(&self, mut activations: Activations<f32>, gradients: &mut Gradients<f32>) {
        let (config, rows) = (self.model.config(), self.batch.len());
        let zeros = Buffer::zeros(Device::Cpu, rows * config.hidden_size);
        let d_hidden = zeros.matrix(rows, config.hidden_size);
        let buffers = &mut BackwardBuffers::new(Device::Cpu, config, rows);
        let scratch = &mut Scratch::new(Device::Cpu);
        let (queue, batch) = (&self.queue, &self.batch);
        backward(queue, &self.model, batch, &mut activations, d_hidden, &[], gradients, buffers, scratch);
    }

    fn decode(&self) {
        let limits = Limits { pages: 2, sequences: 1, rows: 8 };
        let mut scheduler = Scheduler::new(&self.queue, self.model.config(), limits);
        let request = Request {
            prompt: vec![1, 2],
            samples: 1,
            sampling: Sampling::greedy(),
            max_new_tokens: 1,
            stop_tokens: Vec::new(),
            key: Key::new(0),
            top_logprobs: 0,
        };
        generate(&self.queue, &self.model, &mut scheduler, vec![request], &mut |_, _, _| Flow::Continue);
    }

    fn score(&self, activations: &Activations<f32>) {
        let (config, targets) = (self.model.config(), Targets::of(&self.batch, |t| t > 0));
        let (hidden, buffers) = (activations.hidden(config), &mut HeadBuffers::new(Device::Cpu, config));
        head::statistics(&self.queue, &self.model, hidden, &targets, 1.0, buffers);
    }
}

#[track_caller]
fn is_refused(what: &str, run: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err(what);
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.contains("are of generation Some(1), the weights of 2"), "{what}: {message}");
}

#[test]
fn projections_of_an_older_generation_are_refused_forwards_backwards_and_in_decoding() {
    let matrices = Case::new().matrices();
    assert_eq!(matrices.len(), 4);
    for (name, id) in matrices {
        let mut case = Case::new();
        let activations = case.forward();
        case.decode();
        case.make_stale(id);
        is_refused(&format!("forward through {name}"), || drop(case.forward()));
        is_refused(&format!("decode through {name}"), || case.decode());
        let mut gradients = Arena::zeros(Device::Cpu, case.model.config());
        is_refused(&format!("backward through {name}"), || {
            case.backward(activations, &mut Gradients::Weights(gradients.weights_mut()));
        });
    }
}

#[test]
fn a_head_of_an_older_generation_is_refused_in_scoring_and_in_sampling() {
    let mut case = Case::new();
    let activations = case.forward();
    case.score(&activations);
    case.make_stale(case.model.layout.head);
    is_refused("scoring", || case.score(&activations));
    is_refused("sampling", || case.decode());
}

#[test]
fn adapters_of_an_older_generation_are_refused() {
    let case = Case::new();
    let (scratch, config) = (&mut Scratch::new(Device::Cpu), case.model.config().clone());
    let lora = LoraConfig { rank: 2, alpha: 4.0 };
    let mut adapters = Adapters::<f32>::new(&case.queue, &config, lora, Key::new(1));
    let mut gradients = adapters.weights().zeros_like();
    // Packing raises the version of a model's weights: from 0 to 1 for the model of zeros, and from 1 to 2 for the
    // model with weights, which is the version of the case.
    let before =
        [Model::zeros(&case.queue, &config, Role::Training), Model::new(&case.queue, &case.master, Role::Training)];
    for mut model in before {
        adapters.pack(&case.queue, &case.master, &mut model, scratch);
        let activations = case.forward();
        let run = || case.backward(activations, &mut Gradients::Adapters(&mut adapters, &mut gradients));
        if model.generation() == 1 { is_refused("backward through adapters", run) } else { run() }
    }
}
