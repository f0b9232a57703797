//! A policy step computes nothing twice: the sampler's log-probabilities are used as they are, and only sampled tokens are trained.

use std::path::Path;

use kernels::rng::Key;
use kernels::{Device, Isa, Queue, Real, bf16};
use lm::optimizer::Hyperparameters;
use lm::tokenizer::{Tokenizer, TrainOptions};
use lm::{Arena, Config, Keep};
use tasks::{Case, Prompt};
use train::packing::{Continuation, PackedGroups, packed_groups};
use train::policy::{PolicyLoss, PolicySignal};
use train::prompting::{Prompting, plain_sampling};
use train::rollout::{Group, Plan, sample};
use train::step::{Learner, Signals, StepReport};

const PROMPTS: [&str; 3] = ["a ruler", "is", "flat and long, and it is made of wood"];
const TEMPERATURE: f32 = 0.7;

fn prompting() -> Prompting {
    let options = TrainOptions { vocab_size: 272, ..TrainOptions::default() };
    let text = "a ruler is flat and long, and it is made of wood; a ruler is flat and long";
    let tokenizer = Tokenizer::train([text], &options, Path::new("test")).expect("enough text");
    Prompting::new(tokenizer, None, &[]).expect("an end token")
}

fn learner<T: Real>(queue: &Queue, vocabulary: usize) -> Learner<T> {
    let shape = serde_json::json!({
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128,
        "initializer_range": 0.2,
    });
    let shape = serde_json::from_value(shape).expect("a shape");
    let config = Config::from_shape(&shape, Some(vocabulary), Path::new("test")).expect("a valid shape");
    let weights = Arena::random(Device::Cpu, &config, 3);
    Learner::new(queue, weights, Hyperparameters::default(), Keep::Everything)
}

fn groups<T: Real>(queue: &Queue, learner: &mut Learner<T>, prompting: &Prompting) -> Vec<Group> {
    let case = |text: &str| Case {
        id: text.into(),
        prompt: Prompt::Text(text.into()),
        answer: None,
        record: serde_json::Value::Null,
    };
    let cases: Vec<Case> = PROMPTS.into_iter().map(case).collect();
    let plan = Plan { samples: 4, sampling: plain_sampling(TEMPERATURE), max_new_tokens: 20, key: Key::new(2) };
    sample(queue, &mut learner.model, prompting, &cases, &plan).expect("short prompts")
}

/// The gradient of a step and its report. With `on_policy`, the log-probabilities are the sampler's; otherwise they are computed again.
fn step<T: Real>(queue: &Queue, groups: &[Group], vocabulary: usize, on_policy: bool) -> (Vec<u32>, StepReport) {
    let mut learner = learner::<T>(queue, vocabulary);
    let continuations = groups.iter().map(|group| {
        let of = |(i, rollout)| Continuation { rollout, advantage: i as f32 - 1.5, weight: 0.01 };
        (group.prompt.as_slice(), group.rollouts.iter().enumerate().map(of).collect())
    });
    let [packed] = packed_groups(continuations, 4096).try_into().ok().expect("one micro-batch");
    let PackedGroups { batch, sampled, tokens } = packed;
    let policy = PolicySignal { loss: PolicyLoss::default(), tokens, sampled, on_policy };
    learner.accumulate(queue, &batch, &Signals { rows: Some(&policy), ..Signals::none(batch.len(), TEMPERATURE) });
    let gradient = learner.gradient().values().to_host().iter().map(|x| x.to_bits()).collect();
    (gradient, learner.update(queue, 0.0))
}

fn check<T: Real>(isa: Isa) {
    let (queue, prompting) = (Queue::cpu(2, isa), prompting());
    let vocabulary = prompting.tokenizer.vocab_size();
    let groups = groups(&queue, &mut learner::<T>(&queue, vocabulary), &prompting);
    let what = format!("{}, {}", isa.name(), T::DTYPE.name());

    let (gradient, report) = step::<T>(&queue, &groups, vocabulary, true);
    let (gradient_computed, report_computed) = step::<T>(&queue, &groups, vocabulary, false);
    assert!(gradient == gradient_computed, "{what}: another gradient from log-probabilities that were computed again");
    assert_eq!(report, report_computed, "{what}");
    assert_eq!(report.rows.figure("clipped"), Some(0.0), "{what}: every ratio is 1");

    let made: usize = groups.iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.tokens.len()).sum();
    assert_eq!(report.targets, made, "{what}: the head runs on sampled tokens only");
    let shared: usize = groups.iter().map(|group| group.prompt.len() - 1).sum();
    let completions = groups.iter().map(|group| group.rollouts.len()).sum::<usize>();
    assert_eq!(
        report.tokens,
        shared + completions + made,
        "{what}: a prompt is packed once, its last token once per completion"
    );
}

#[test]
fn the_samplers_log_probabilities_are_the_trainers_and_only_completions_are_trained() {
    for isa in Isa::available() {
        check::<f32>(isa);
        check::<bf16>(isa);
    }
}
